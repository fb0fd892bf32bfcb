"""The load engine: from external memory into the scratchpads and the linear memories."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.interfaces import (
    BANK_BITS,
    EngineSignature,
    LinearWriteSignature,
    MemoryReadSignature,
    beat_addr_bits,
    one_bank,
    word_write_layout,
)
from tercel.hw.isa import ADDR_BITS, Fault, Space
from tercel.hw.memory.ledger import Ledger
from tercel.hw.memory.queue import Queue, Relay
from tercel.hw.memory.space import most_beats, most_parts, part_bytes, spaces, word_beats
from tercel.hw.memory.walk import Walk
from tercel.hw.up_down import up_down

ROOM = 32
"""Beats that may be requested before they are used."""

_TARGET_LAYOUT = data.StructLayout({"end": unsigned(1), "space": unsigned(3), "bank": unsigned(BANK_BITS), "addr": unsigned(16)})


class LoadEngine(Component):
    """Requests beats as far ahead as there is room, and writes each word, or part of a parameter word, when its last beat has come.

    One beat a cycle, as long as the memory answers within 15 cycles and the scratchpad takes the words; 2 cycles between the requests
    of two instructions; scratchpad rows as in :class:`Walk`. The first request leaves 4 cycles after the start was taken, a word leaves
    for its linear memory 3 cycles after its last beat came and for its scratchpad a cycle later, and ``done`` is offered in the cycle
    after an instruction's last word left. With a memory that answers after L cycles (L = 1: in the next), an instruction of B beats is
    done B + L + 9 cycles after its start was taken, B + L + 10 for a scratchpad.

    Parameters
    ----------
    config
        Word sizes and depths.

    Members
    -------
    engine : Out(EngineSignature(len(EVENTS)))
        ``start`` holds a LOAD. While not ``idle`` exactly one of ``events`` is 1, unless a fault is reported.
    region_base, region_end : In(32)
        Bytes that may be read; constant while the engine is busy.
    memory : Out(MemoryReadSignature(config))
        The memory port.
    write : Out(stream.Signature(word_write_layout(config)))
        Words for the scratchpads, from a register.
    write_next_bank : Out(BANK_BITS)
        ``next_bank`` of ``write``, see :class:`Scratchpad`.
    linear_write : Out(LinearWriteSignature(config))
        Words for the linear memories.
    """

    EVENTS = ("beat", "memory", "write", "start")
    """What a busy cycle went into: a beat used, waiting for the memory, waiting for the scratchpad, or anything else."""

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "engine": Out(EngineSignature(len(self.EVENTS))),
                "region_base": In(32),
                "region_end": In(32),
                "memory": Out(MemoryReadSignature(config)),
                "write": Out(stream.Signature(word_write_layout(config))),
                "write_next_bank": Out(BANK_BITS),
                "linear_write": Out(LinearWriteSignature(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Request side (walk, credit), the two queues, data side (assembly, write), ledger."""
        m = Module()
        config = self._config
        m.submodules.ledger = ledger = Ledger(events=len(self.EVENTS))
        m.submodules.walk = walk = Walk(config, spaces=spaces(config))
        m.submodules.targets = targets = Queue(_TARGET_LAYOUT, depth=ROOM)
        m.submodules.requests = requests = Relay(unsigned(beat_addr_bits(config)))
        wiring.connect(m, requests.o, wiring.flipped(self.memory.request))
        m.submodules.beats = beats = Queue(unsigned(8 * config.memory_width), depth=ROOM)
        wiring.connect(m, wiring.flipped(self.engine), ledger.engine)
        m.d.comb += [
            walk.start.valid.eq(ledger.move.valid),
            walk.start.payload.eq(ledger.move.payload),
            ledger.move.ready.eq(walk.start.ready),
            walk.region_base.eq(self.region_base),
            walk.region_end.eq(self.region_end),
        ]

        # Request side. Behind a bad word nothing is requested, and its fault counts when all words before it have been written.
        # Targets come long before their beats, so that a register in front of their queue costs nothing.
        item = walk.o.payload
        found = Signal(_TARGET_LAYOUT)
        pop = Signal()
        reserved = Signal(range(ROOM + 1))
        stopped = Signal()
        refused = Signal(4)
        fault = Signal(4)
        request = Signal()
        open_ = Signal()
        bad = Signal()
        m.d.comb += [
            bad.eq(item.fault != Fault.NONE),
            open_.eq(~stopped & ~reserved[ROOM.bit_length() - 1]),
            requests.i.valid.eq(walk.o.valid & ~bad & open_),
            request.eq(requests.i.valid & requests.i.ready),
            requests.i.payload.eq(item.adr),
            walk.o.ready.eq(open_ & requests.i.ready),
            *(found[name].eq(item[name]) for name in _TARGET_LAYOUT.members),
            targets.i.valid.eq(delayed(m, request & item.first, 1, name="found", reset_less=False)),
            targets.i.payload.eq(delayed(m, found, 1, name="found_target")),
        ]
        with m.If(walk.o.valid & bad & ~stopped):
            m.d.sync += [stopped.eq(1), fault.eq(item.fault)]
        up_down(m, reserved, up=request, down=pop)

        # The memory's refusal ends the data; the beats before it are still used.
        m.d.comb += [
            beats.i.payload.eq(self.memory.data),
            beats.i.valid.eq(self.memory.valid & ~self.memory.err & (refused == Fault.NONE)),
        ]
        with m.If(self.memory.valid & self.memory.err & (refused == Fault.NONE)):
            m.d.sync += [refused.eq(Mux(self.memory.timeout, Fault.BUS_TIMEOUT, Fault.BUS_ERROR)), stopped.eq(1)]

        # Data side. A word's beats move in from the top, so that every size ends in the highest bytes.
        # The queue's output is slow, so the target at its head is copied. What becomes of a beat is known too late to move the queue, so
        # a relay lies between.
        part_beats = {space: part_bytes(config, space=space) // config.memory_width for space in spaces(config)}
        target = Signal(_TARGET_LAYOUT, reset_less=True)
        target_valid = Signal()
        target_used = Signal()
        last_number = Signal(range(most_beats(config)), reset_less=True)
        part_last_number = Signal(range(max(part_beats.values())), reset_less=True)
        m.submodules.coming = coming = Relay(_TARGET_LAYOUT)
        wiring.connect(m, targets.o, coming.i)
        m.d.comb += coming.o.ready.eq(~target_valid | target_used)
        with m.If(coming.o.ready):
            m.d.sync += [target_valid.eq(coming.o.valid), target.eq(coming.o.payload)]
            with m.Switch(coming.o.p.space):
                for space in spaces(config):
                    with m.Case(space):
                        m.d.sync += [last_number.eq(word_beats(config, space=space) - 1), part_last_number.eq(part_beats[space] - 1)]
        word = Signal.like(self.linear_write.data, reset_less=True)
        word_valid = Signal()
        written = Signal(_TARGET_LAYOUT, reset_less=True)
        last_beat = Signal()
        part_last_beat = Signal()
        beat = Signal(range(most_beats(config)))
        part_beat = Signal(range(max(part_beats.values())))
        part = Signal(range(most_parts(config)))
        part_written = Signal.like(part, reset_less=True)
        is_linear = Signal(reset_less=True)
        # A scratchpad's word waits in a relay until its bank is free; one for a linear memory waits until the relay is empty, so that
        # words land in order.
        place_layout = word_write_layout(config)
        word_fields = ("bank", "banks", "addr", "data")
        leaving_layout = data.StructLayout({"end": 1, **{name: place_layout[name].shape for name in word_fields}})
        m.submodules.leaving = leaving = Relay(
            leaving_layout, spare=word_beats(config, space=Space.ARRAY) == 1, flags=place_layout["spaces"].width
        )
        # Every beat waits for it, so it is known a cycle ahead: there is no word, or it leaves.
        free = Signal(init=1)

        def leaves_next(to_linear):
            return Mux(to_linear, ~leaving.then_valid, leaving.then_ready)

        to_linear = target.space >= Space.WEIGHT
        m.d.sync += free.eq(Mux(pop, ~part_last_beat | leaves_next(to_linear), free | leaves_next(is_linear)))
        m.d.comb += [
            last_beat.eq(beat == last_number),
            part_last_beat.eq(part_beat == part_last_number),
            beats.o.ready.eq(target_valid & free),
            pop.eq(beats.o.valid & beats.o.ready),
            target_used.eq(pop & last_beat),
            leaving.i.valid.eq(word_valid & ~is_linear),
            leaving.i_flags.eq(Cat(~written.space[0], written.space[0])),
            leaving.i.p.end.eq(written.end),
            leaving.i.p.bank.eq(written.bank),
            leaving.i.p.banks.eq(one_bank(config, written.bank)),
            leaving.i.p.addr.eq(written.addr[:ADDR_BITS]),
            leaving.i.p.data.eq(word[len(word) - 8 * config.lanes :]),
            self.write.valid.eq(leaving.o.valid),
            self.write.p.spaces.eq(leaving.o_flags),
            *(self.write.p[name].eq(leaving.o.p[name]) for name in word_fields),
            leaving.o.ready.eq(self.write.ready),
            self.write_next_bank.eq(leaving.following.bank),
            self.linear_write.en.eq(word_valid & is_linear & ~leaving.o.valid),
            self.linear_write.space.eq(written.space),
            self.linear_write.addr.eq(written.addr),
            self.linear_write.tap.eq(written.bank),
            self.linear_write.part.eq(part_written),
            self.linear_write.data.eq(word),
        ]
        with m.If(free):
            m.d.sync += word_valid.eq(0)
        with m.If(pop):
            m.d.sync += [
                word.eq(Cat(word, beats.o.payload)[8 * config.memory_width :]),
                beat.eq(Mux(last_beat, 0, beat + 1)),
                part_beat.eq(Mux(part_last_beat, 0, part_beat + 1)),
                written.eq(target),
                written.end.eq(target.end & last_beat),
                is_linear.eq(to_linear),
                part_written.eq(part),
            ]
            with m.If(part_last_beat):
                m.d.sync += [word_valid.eq(1), part.eq(Mux(last_beat, 0, part + 1))]

        m.d.comb += ledger.landed.eq((leaving.o.valid & leaving.moves & leaving.o.p.end) | (self.linear_write.en & written.end))
        # A range fault counts when every beat before it has been used; after a refusal what counts is that no beat is left. Neither
        # changes any more once nothing is requested or nothing comes.
        used = Signal()
        drained = Signal()
        left = Signal()
        m.d.comb += left.eq(word_valid | leaving.o.valid)
        m.d.sync += [used.eq(stopped & (reserved == 0) & ~left), drained.eq((refused != Fault.NONE) & beats.empty & ~left)]
        with m.If(used):
            m.d.comb += ledger.failed.eq(fault)
        with m.Elif(drained):
            m.d.comb += ledger.failed.eq(refused)
        held = Signal()
        m.d.sync += held.eq(~leaving.moves)
        blocked = ~pop & held
        waiting = ~pop & ~held
        m.d.comb += ledger.events.eq(Cat(pop, waiting & (reserved != 0), blocked, waiting & (reserved == 0)))
        return m
