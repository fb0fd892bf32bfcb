"""Initialises the chip and refreshes it."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.sdram.timing import SdramCycles

FIRST_REFRESHES = 8
"""Refreshes before the chip's mode is set."""


class Maintenance(Component):
    """Runs the chip's initialisation once and then a refresh every ``refresh`` cycles, when nothing is under way.

    Initialisation: power-up time, all banks closed, :data:`FIRST_REFRESHES` refreshes, mode. The time between two refreshes varies by
    as much as it takes to end what was under way, the number of them does not.

    Parameters
    ----------
    cycles
        Of the chip.

    Members
    -------
    quiet : In(1)
        Nothing is half done and all banks may be closed.
    hold : Out(1)
        Begin nothing new; from a register. All banks are closed when it ends.
    precharge_all, refresh, mode : Out(1)
        The command in this cycle; no other comes at the same time while ``hold`` and ``quiet``.
    ready : Out(1)
        The initialisation is over.
    """

    def __init__(self, cycles: SdramCycles) -> None:
        self._cycles = cycles
        super().__init__(
            {
                "quiet": In(1),
                "hold": Out(1, init=1),
                "precharge_all": Out(1),
                "refresh": Out(1),
                "mode": Out(1),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """A timer that runs freely, a pause between two commands, and the sequence."""
        m = Module()
        cycles = self._cycles
        timer = Signal(range(cycles.refresh), init=cycles.refresh - 1)
        tick = Signal()
        due = Signal()
        pause = Signal(range(max(cycles.rp, cycles.rfc, cycles.mrd)))
        left = Signal(range(max(FIRST_REFRESHES, cycles.power_up) + 1), init=cycles.power_up)
        m.d.sync += [timer.eq(timer - 1), tick.eq(timer == 1)]
        with m.If(tick):
            m.d.sync += [timer.eq(cycles.refresh - 1), due.eq(1)]
        with m.If(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        with m.FSM():
            with m.State("POWER_UP"):
                with m.If(tick):
                    m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.d.sync += left.eq(FIRST_REFRESHES)
                    m.next = "CLOSE"
            with m.State("CLOSE"), m.If(self.quiet):
                m.d.comb += self.precharge_all.eq(1)
                m.d.sync += pause.eq(cycles.rp - 1)
                m.next = "REFRESH"
            with m.State("REFRESH"), m.If(pause == 0):
                m.d.comb += self.refresh.eq(1)
                m.d.sync += [pause.eq(cycles.rfc - 1), due.eq(0)]
                with m.If(self.ready):
                    m.next = "END"
                with m.Else():
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "MODE"
            with m.State("MODE"), m.If(pause == 0):
                m.d.comb += self.mode.eq(1)
                m.d.sync += [pause.eq(cycles.mrd - 1), self.ready.eq(1)]
                m.next = "END"
            with m.State("END"), m.If(pause == 0):
                m.d.sync += self.hold.eq(0)
                m.next = "WORK"
            with m.State("WORK"), m.If(due):
                m.d.sync += self.hold.eq(1)
                m.next = "CLOSE"
        return m
