"""Instructions on their way through the engine: one whose rows are being walked, one that is computed, and the end of it."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tercel.hw.depthwise.plan import INSTRUCTION
from tercel.hw.interfaces import DONE_LAYOUT, START_LAYOUT


class Intake(wiring.Component):
    """Holds the instructions that the other blocks work on.

    An instruction that is offered becomes ``ahead`` (with ``walk`` in its first cycle) while the one before is still ``current``; it is
    taken and becomes current, a cycle before ``begin``, when that has ``finished``; it stays ``ahead`` until ``walked``. ``done`` comes a
    cycle after ``finished``, which follows ``finishing`` by one.
    A fault (``range_fault``) is held, with the index of the current instruction. ``busy``: there is an
    instruction whose words have not all landed.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(stream.Signature(START_LAYOUT)),
                "done": Out(stream.Signature(DONE_LAYOUT)),
                "ahead": Out(INSTRUCTION),
                "walk": Out(1),
                "walked": In(1),
                "current": Out(INSTRUCTION),
                "begin": Out(1),
                "finishing": In(1),
                "finished": In(1),
                "range_fault": In(1),
                "fault": Out(1),
                "fault_index": Out(16),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Two instruction registers and their flags."""
        m = Module()
        # The walk of the rows and the hand-over are independent; both must be over before the next instruction comes.
        valid, walking, waiting, computing = Signal(), Signal(), Signal(), Signal()
        ahead, current = (Signal(INSTRUCTION, name=name, reset_less=True) for name in ("ahead", "current"))
        current_index = Signal(16, reset_less=True)
        done = Signal(DONE_LAYOUT, reset_less=True)
        # Finished, while the instruction before waits to be done.
        finished, ending = Signal(), Signal()
        over = self.finished | finished
        # The sequencer is far, so ready is a register.
        ready, comes = Signal(), Signal()
        handed_over = ~computing | ((self.finishing | over) & (~self.done.valid | self.done.ready))
        m.d.sync += ready.eq((waiting | comes) & ~ready & handed_over)
        m.d.comb += [
            ending.eq(over & ~self.done.valid),
            self.start.ready.eq(ready),
            comes.eq(~walking & ~waiting & valid & ~self.fault),
            self.busy.eq(walking | waiting | computing),
            self.fault_index.eq(current_index),
            self.ahead.eq(ahead),
            self.current.eq(current),
            self.done.payload.eq(done),
        ]
        with m.If(self.walked):
            m.d.sync += walking.eq(0)
        offered = self.start.payload.instruction[: INSTRUCTION.size]
        # Whether an instruction is offered is known late, and looked at a cycle later; the wide register follows what may be one.
        m.d.sync += [valid.eq(self.start.valid & ~ready), self.walk.eq(comes)]
        with m.If(~walking & ~waiting):
            m.d.sync += ahead.eq(offered)
        with m.If(comes):
            m.d.sync += [walking.eq(1), waiting.eq(1)]
        planned = Signal()
        m.d.sync += [planned.eq(0), self.begin.eq(planned)]
        with m.If(self.done.ready):
            m.d.sync += self.done.valid.eq(0)
        with m.If(self.finished):
            m.d.sync += finished.eq(1)
        with m.If(ending):
            m.d.sync += [finished.eq(0), computing.eq(0), self.done.valid.eq(1)]
        with m.If(~self.done.valid):
            m.d.sync += [done.index.eq(current_index), done.post.eq(current.post)]
        with m.If(ready):
            m.d.sync += [waiting.eq(0), computing.eq(1), planned.eq(1)]
            m.d.sync += [current.eq(offered), current_index.eq(self.start.payload.index)]
        with m.If(self.range_fault):
            m.d.sync += self.fault.eq(1)
        return m
