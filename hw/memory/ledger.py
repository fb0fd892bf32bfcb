"""The instructions that a moving engine has in flight, from their start to their done or fault."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.interfaces import DONE_LAYOUT, EngineSignature
from tercel.hw.isa import Fault
from tercel.hw.memory.walk import MOVE_LAYOUT
from tercel.hw.up_down import up_down

IN_FLIGHT_MAX = 4
"""A power of two."""


class Ledger(Component):
    """Splits a start into fields for the walk and an entry for later, and turns landings in order into ``done`` and ``fault``.

    A fault is reported when the ``done`` of every instruction before it has been taken; from then on nothing changes.

    Members
    -------
    engine : Out(EngineSignature(events))
        The engine's face.
    move : Out(stream.Signature(MOVE_LAYOUT))
        The instruction's fields; a start is taken when they are.
    landed : In(1)
        The last write of the oldest instruction that had not landed yet lands in this cycle.
    failed : In(4)
        The fault of the oldest instruction that has not landed, held; ``Fault.NONE`` if it has none. Nothing lands beside a fault.
    events : In(events)
        One bit of them is 1; passed on while busy.
    """

    def __init__(self, *, events: int) -> None:
        super().__init__(
            {
                "engine": Out(EngineSignature(events)),
                "move": Out(stream.Signature(MOVE_LAYOUT)),
                "landed": In(1),
                "failed": In(4),
                "events": In(events),
            }
        )

    def elaborate(self, platform) -> Module:
        """A queue of entries and a counter of those that landed before the cycle before."""
        m = Module()
        engine = self.engine
        m.submodules.entries = entries = SyncFIFO(width=DONE_LAYOUT.size, depth=IN_FLIGHT_MAX)
        # A landing is known late, and counted a cycle later.
        landed = Signal(range(IN_FLIGHT_MAX + 1))
        landing = Signal()
        finish = Signal()
        # The queue's own ``w_rdy`` compares.
        room = ~entries.w_level[IN_FLIGHT_MAX.bit_length() - 1]
        move = Signal(MOVE_LAYOUT)
        entry = Signal(DONE_LAYOUT)
        m.d.comb += [
            move.eq(engine.start.p.instruction),
            entry.index.eq(engine.start.p.index),
            entry.post.eq(move.post),
            entries.w_data.eq(entry),
            self.move.payload.eq(move),
            self.move.valid.eq(engine.start.valid & room),
            engine.start.ready.eq(self.move.ready & room),
            entries.w_en.eq(engine.start.valid & self.move.ready),
            engine.done.valid.eq(landing | (landed != 0)),
            engine.done.payload.eq(entries.r_data),
            finish.eq(engine.done.valid & engine.done.ready),
            entries.r_en.eq(finish),
            engine.idle.eq(~entries.r_rdy),
        ]
        m.d.sync += landing.eq(self.landed)
        up_down(m, landed, up=landing, down=finish)
        # Code and index mean something only with ``fault_valid``, and it takes long to know that.
        with m.If(~engine.fault_valid):
            m.d.sync += [engine.fault_code.eq(self.failed), engine.fault_index.eq(engine.done.p.index)]
            with m.If(entries.r_rdy & ~engine.done.valid & (self.failed != Fault.NONE)):
                m.d.sync += engine.fault_valid.eq(1)
        with m.If(~engine.idle & ~engine.fault_valid):
            m.d.comb += engine.events.eq(self.events)
        return m
