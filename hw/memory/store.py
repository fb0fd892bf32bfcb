"""The store engine: from the scratchpads into external memory."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.interfaces import WORD_READ_LAYOUT, EngineSignature, MemoryWriteSignature, beat_addr_bits
from tercel.hw.isa import ADDR_BITS, Fault
from tercel.hw.memory.ledger import Ledger
from tercel.hw.memory.port import OUTSTANDING_MAX
from tercel.hw.memory.queue import Queue
from tercel.hw.memory.walk import Walk

ROOM = 32
"""Beats between the scratchpad and the memory port."""

READ_LATENCY = 2
"""Cycles from a taken scratchpad read to its word."""


class StoreEngine(Component):
    """Reads words whenever the scratchpad lets it, and writes their beats.

    One beat a cycle while the memory port and the scratchpad allow; 2 cycles between the reads of two instructions, hidden while beats
    wait; rows as in :class:`Walk`. The first beat is offered to the memory port 8 cycles after the start was taken. ``done`` is offered in
    the cycle after the answer to an instruction's last beat. With a memory that answers after L cycles (L = 1: in the next), an
    instruction of B beats is done B + L + 10 cycles after its start was taken.

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
        The word, two cycles after ``read`` was taken.
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
        """Read side (walk, credit), two cycles of delay beside the scratchpad, a queue of beats, write side, ledger."""
        m = Module()
        config = self._config
        beat_bits = 8 * config.memory_width
        m.submodules.ledger = ledger = Ledger(events=len(self.EVENTS))
        m.submodules.walk = walk = Walk(config)
        wiring.connect(m, wiring.flipped(self.engine), ledger.engine)
        wiring.connect(m, ledger.move, walk.start)
        m.d.comb += [walk.region_base.eq(self.region_base), walk.region_end.eq(self.region_end)]

        # Read side. A bad word goes the way of the good ones, so that it is noticed behind them.
        passing_layout = data.StructLayout(
            {
                "valid": unsigned(1),
                "first": unsigned(1),
                "last": unsigned(1),
                "fault": unsigned(4),
                "addr": unsigned(beat_addr_bits(config)),
            }
        )
        item = walk.o.payload
        reserved = Signal(range(ROOM + 1))
        open_ = Signal()
        bad = Signal()
        stopped = Signal()
        passing = Signal(passing_layout)
        m.d.comb += [
            open_.eq(walk.o.valid & ~stopped & ~reserved[ROOM.bit_length() - 1]),
            bad.eq(item.fault != Fault.NONE),
            self.read.valid.eq(open_ & item.first & ~bad),
            self.read.p.space.eq(item.space[0]),
            self.read.p.bank.eq(item.bank),
            self.read.p.addr.eq(item.addr[:ADDR_BITS]),
            passing.valid.eq(open_ & (~item.first | bad | self.read.ready)),
            passing.first.eq(item.first),
            passing.last.eq(item.last & item.end),
            passing.fault.eq(item.fault),
            passing.addr.eq(item.adr),
            walk.o.ready.eq(passing.valid),
        ]
        with m.If(passing.valid & bad):
            m.d.sync += stopped.eq(1)
        arrived = delayed(m, passing, READ_LATENCY, name="passing", reset_less=False)

        # The first beat of a word comes straight from the scratchpad, the others from what is left of it.
        queue_layout = data.StructLayout(
            {"fault": unsigned(4), "last": unsigned(1), "addr": unsigned(beat_addr_bits(config)), "data": unsigned(beat_bits)}
        )
        m.submodules.queue = queue = Queue(queue_layout, depth=ROOM)
        rest = Signal(8 * config.lanes, reset_less=True)
        word = Signal.like(rest)
        m.d.comb += [
            word.eq(Mux(arrived.first, self.read_data, rest)),
            queue.i.p.fault.eq(arrived.fault),
            queue.i.p.last.eq(arrived.last),
            queue.i.p.addr.eq(arrived.addr),
            queue.i.p.data.eq(word[:beat_bits]),
            queue.i.valid.eq(arrived.valid),
        ]
        with m.If(arrived.valid):
            m.d.sync += rest.eq(word >> beat_bits)

        # Write side. The queue's output is slow, so its head is copied.
        head = Signal(queue_layout, reset_less=True)
        head_valid = Signal()
        beat = Signal()
        m.d.comb += queue.o.ready.eq(~head_valid | beat)
        with m.If(queue.o.ready):
            m.d.sync += [head_valid.eq(queue.o.valid), head.eq(queue.o.payload)]
        unanswered = Signal(range(OUTSTANDING_MAX + 2))
        refused = Signal(4)
        m.d.comb += [
            self.memory.request.valid.eq(head_valid & (head.fault == Fault.NONE) & (refused == Fault.NONE)),
            self.memory.request.p.addr.eq(head.addr),
            self.memory.request.p.data.eq(head.data),
            self.memory.request.p.last.eq(head.last),
            beat.eq(self.memory.request.valid & self.memory.request.ready),
        ]
        with m.If(passing.valid & ~beat):
            m.d.sync += reserved.eq(reserved + 1)
        with m.Elif(beat & ~passing.valid):
            m.d.sync += reserved.eq(reserved - 1)
        with m.If(beat & ~self.memory.valid):
            m.d.sync += unanswered.eq(unanswered + 1)
        with m.Elif(self.memory.valid & ~beat):
            m.d.sync += unanswered.eq(unanswered - 1)
        with m.If(self.memory.valid & self.memory.err & (refused == Fault.NONE)):
            m.d.sync += refused.eq(Mux(self.memory.timeout, Fault.BUS_TIMEOUT, Fault.BUS_ERROR))

        m.d.comb += ledger.landed.eq(self.memory.valid & self.memory.last & ~self.memory.err & (refused == Fault.NONE))
        with m.If(refused != Fault.NONE):
            m.d.comb += ledger.failed.eq(refused)
        with m.Elif(head_valid & (unanswered == 0)):
            m.d.comb += ledger.failed.eq(head.fault)
        waits = head_valid | (unanswered != 0)
        reads = self.read.valid & ~self.read.ready
        m.d.comb += ledger.events.eq(Cat(beat, ~beat & waits & ~reads, ~beat & reads, ~beat & ~waits & ~reads))
        return m
