"""The store engine: from the scratchpads into external memory."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.interfaces import WORD_READ_LAYOUT, EngineSignature, MemoryWriteSignature, beat_addr_bits
from tercel.hw.isa import ADDR_BITS, Fault, Space
from tercel.hw.memory.ledger import Ledger
from tercel.hw.memory.port import OUTSTANDING_MAX
from tercel.hw.memory.queue import Queue, Relay
from tercel.hw.memory.space import spaces
from tercel.hw.memory.walk import Walk
from tercel.hw.up_down import up_down

ROOM = 32
"""Beats between the scratchpad and the memory port."""

READ_LATENCY = 4
"""Cycles from a taken scratchpad read to its word."""


class StoreEngine(Component):
    """Reads words whenever the scratchpad lets it, and writes their beats.

    One beat a cycle while the memory port and the scratchpad allow; 2 cycles between the reads of two instructions, hidden while beats
    wait; rows as in :class:`Walk`. The first beat is offered to the memory port 12 cycles after the start was taken. ``done`` is offered in
    the cycle after the answer to an instruction's last beat. With a memory that answers after L cycles (L = 1: in the next), an
    instruction of B beats is done B + L + 14 cycles after its start was taken.

    Parameters
    ----------
    config
        Word size and depths.

    Members
    -------
    engine : Out(EngineSignature(len(EVENTS)))
        ``start`` holds a STORE. While not ``idle`` exactly one of ``events`` is 1, unless a fault is reported.
    region_base, region_end : In(32)
        Bytes that may be written; constant while the engine is busy.
    memory : Out(MemoryWriteSignature(config))
        The memory port.
    read : Out(stream.Signature(WORD_READ_LAYOUT))
        Words wanted.
    read_data : In(8K)
        The word, ``READ_LATENCY`` cycles after ``read`` was taken.
    """

    EVENTS = ("beat", "memory", "read", "start")
    """What a busy cycle went into: a beat taken by the port, waiting for the memory, waiting for the scratchpad, or anything else."""

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "engine": Out(EngineSignature(len(self.EVENTS))),
                "region_base": In(32),
                "region_end": In(32),
                "memory": Out(MemoryWriteSignature(config)),
                "read": Out(stream.Signature(WORD_READ_LAYOUT)),
                "read_data": In(8 * config.lanes),
            }
        )

    def elaborate(self, platform) -> Module:
        """Read side (walk, credit), queues of addresses and of words, write side, ledger."""
        m = Module()
        config = self._config
        beat_bits = 8 * config.memory_width
        m.submodules.ledger = ledger = Ledger(events=len(self.EVENTS))
        m.submodules.walk = walk = Walk(config, spaces=[space for space in spaces(config) if space in (Space.ARRAY, Space.WINDOW)])
        wiring.connect(m, wiring.flipped(self.engine), ledger.engine)
        wiring.connect(m, ledger.move, walk.start)
        m.d.comb += [walk.region_base.eq(self.region_base), walk.region_end.eq(self.region_end)]

        # Read side. Behind a bad word nothing is read, and its fault counts when all beats before it have been answered.
        item = walk.o.payload
        m.submodules.reads = reads = Relay(WORD_READ_LAYOUT)
        wiring.connect(m, reads.o, wiring.flipped(self.read))
        reserved = Signal(range(ROOM + 1))
        stopped = Signal()
        fault = Signal(4)
        bad = Signal()
        open_ = Signal()
        enter = Signal()
        m.d.comb += [
            bad.eq(item.fault != Fault.NONE),
            open_.eq(~stopped & ~reserved[ROOM.bit_length() - 1]),
            enter.eq(walk.o.valid & ~bad & open_ & reads.i.ready),
            walk.o.ready.eq(open_ & reads.i.ready),
            reads.i.valid.eq(walk.o.valid & ~bad & open_ & item.first),
            reads.i.p.space.eq(item.space[0]),
            reads.i.p.bank.eq(item.bank),
            reads.i.p.addr.eq(item.addr[:ADDR_BITS]),
        ]
        with m.If(walk.o.valid & bad & ~stopped):
            m.d.sync += [stopped.eq(1), fault.eq(item.fault)]

        # The beats' addresses wait for the words, so that a register in front of them costs nothing.
        place_layout = data.StructLayout({"last": unsigned(1), "addr": unsigned(beat_addr_bits(config))})
        m.submodules.places = places = Queue(place_layout, depth=ROOM)
        m.submodules.words = words = Queue(unsigned(8 * config.lanes), depth=ROOM)
        entered = Signal(place_layout, reset_less=True)
        m.d.sync += [entered.last.eq(item.last & item.end), entered.addr.eq(item.adr)]
        m.d.comb += [
            places.i.valid.eq(delayed(m, enter, 1, name="entered", reset_less=False)),
            places.i.payload.eq(entered),
            words.i.valid.eq(delayed(m, reads.o.valid & reads.moves, READ_LATENCY, name="taken", reset_less=False)),
            words.i.payload.eq(self.read_data),
        ]

        # Write side. The queues' outputs are slow, so their heads are copied; a word moves down beat by beat. The port's answer to a beat
        # comes late in a cycle, and reaches no further than the relay.
        place = Signal(place_layout, reset_less=True)
        word = Signal(8 * config.lanes, reset_less=True)
        m.submodules.beats = beats = Relay(self.memory.request.payload.shape())
        head_valid = Signal()
        head_free = Signal()
        fresh = Signal()
        beat = Signal()
        follows = Signal()
        m.d.comb += [
            head_free.eq(~head_valid | beats.i.ready),
            follows.eq(places.o.valid & (words.o.valid | ~fresh)),
            places.o.ready.eq(head_free & (words.o.valid | ~fresh)),
            words.o.ready.eq(head_free & places.o.valid & fresh),
        ]
        with m.If(head_free):
            m.d.sync += [head_valid.eq(follows), place.eq(places.o.payload), word.eq(Mux(fresh, words.o.payload, word >> beat_bits))]
        word_beats = config.lanes // config.memory_width
        if word_beats > 1:
            number = Signal(range(word_beats))
            m.d.comb += fresh.eq(number == 0)
            with m.If(head_free & follows):
                m.d.sync += number.eq(number + 1)
        else:
            m.d.comb += fresh.eq(1)

        unanswered = Signal(range(OUTSTANDING_MAX + 2))
        refused = Signal(4)
        refuses = Signal()
        m.d.comb += [
            beats.i.valid.eq(head_valid),
            beats.i.p.addr.eq(place.addr),
            beats.i.p.data.eq(word[:beat_bits]),
            beats.i.p.last.eq(place.last),
            beats.o.ready.eq(self.memory.request.ready & ~refuses),
            self.memory.request.valid.eq(beats.o.valid & ~refuses),
            self.memory.request.payload.eq(beats.o.payload),
            beat.eq(self.memory.request.valid & self.memory.request.ready),
        ]
        up_down(m, reserved, up=enter, down=beat)
        up_down(m, unanswered, up=beat, down=self.memory.valid)
        with m.If(self.memory.valid & self.memory.err & ~refuses):
            m.d.sync += [refused.eq(Mux(self.memory.timeout, Fault.BUS_TIMEOUT, Fault.BUS_ERROR)), refuses.eq(1)]

        m.d.comb += ledger.landed.eq(self.memory.valid & self.memory.last & ~self.memory.err & ~refuses)
        with m.If(refuses):
            m.d.comb += ledger.failed.eq(refused)
        with m.Elif((reserved == 0) & (unanswered == 0)):
            m.d.comb += ledger.failed.eq(fault)
        waits = head_valid | beats.o.valid | (unanswered != 0)
        blocked = ~reads.moves
        m.d.comb += ledger.events.eq(Cat(beat, ~beat & waits & ~blocked, ~beat & blocked, ~beat & ~waits & ~blocked))
        return m
