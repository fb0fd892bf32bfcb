"""The state of the whole machine: when it has ended, and how."""

from enum import IntEnum

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.control.report import REPORT_LAYOUT
from tercel.hw.isa import Fault
from tercel.hw.wide_mux import WideMux

SETTLE_CYCLES = 8
"""Cycles for which nothing may move before the machine is taken to have stopped; longer than any transfer is between two registers."""


class State(IntEnum):
    """As in the STATUS register."""

    IDLE = 0
    RUNNING = 1
    DONE = 2
    FAULT = 3


class Supervisor(Component):
    """Watches one run and says how it ended.

    It ends as DONE in the cycle in which HALT is next and everything is empty; else, when all have been stuck for SETTLE_CYCLES, as FAULT
    with the fault of lowest index or, if there is none, DEADLOCK at the lowest index of the instructions that wait. ``state``
    changes ``drain_cycles`` later than ``running``, so that the counters can be read then. The next run needs a reset.

    Parameters
    ----------
    reporters
        Number of ``reports``.
    drain_cycles
        Cycles that the counters need after ``running`` has fallen.

    Members
    -------
    run
        Begin; held until the reset.
    halted
        HALT is the next instruction.
    empty
        No instruction is anywhere behind the dispatcher.
    stuck
        Nobody can move.
    memory_idle
        Nothing is on its way to or from the memory.
    reports
        Who has what to report, an array of :data:`REPORT_LAYOUT`; read once nobody can move.
    running
        The machine worked in the cycle before: that cycle counts. The issuers tell their events as late.
    state, fault_code, fault_index
        As in the CSRs; ``Fault.NONE`` and 0 unless ``state`` is FAULT.
    """

    def __init__(self, *, reporters: int, drain_cycles: int) -> None:
        assert drain_cycles >= reporters  # the comparing counts as draining
        self._reporters = reporters
        self._drain_cycles = drain_cycles
        super().__init__(
            {
                "run": In(1),
                "halted": In(1),
                "empty": In(1),
                "stuck": In(1),
                "memory_idle": In(1),
                "reports": In(data.ArrayLayout(REPORT_LAYOUT, reporters)),
                "running": Out(1),
                "state": Out(2),
                "fault_code": Out(4),
                "fault_index": Out(16),
            }
        )

    def elaborate(self, platform) -> Module:
        """The reports are compared one every other cycle, while the counters drain: a fault comes before a wait, then the lower index."""
        m = Module()
        stopped = Signal()
        settled = Signal(range(SETTLE_CYCLES))
        reporter = Signal(range(self._reporters + 1))
        report = Signal(REPORT_LAYOUT, reset_less=True)
        best = Signal(17, init=0x1FFFF)
        best_code = Signal(4)
        rank = Cat(report.index, ~report.fault)
        better = Signal(reset_less=True)
        drained = Signal(range(self._drain_cycles + 1))
        faulty = Signal()
        m.submodules.choice = choice = WideMux(width=REPORT_LAYOUT.size, count=self._reporters)
        m.d.comb += choice.sel.eq(reporter)
        m.d.comb += [choice.inputs[number].eq(self.reports[number]) for number in range(self._reporters)]
        m.d.sync += [
            report.eq(choice.o),
            stopped.eq(self.stuck & self.memory_idle),
            settled.eq(Mux(stopped, settled + 1, 0)),
            better.eq(report.valid & (rank < best)),
            self.running.eq(0),
        ]

        with m.FSM():
            with m.State("IDLE"), m.If(self.run):
                m.d.sync += self.state.eq(State.RUNNING)
                m.next = "RUN"
            with m.State("RUN"):
                m.d.sync += self.running.eq(1)
                with m.If(self.halted & self.empty & self.memory_idle):
                    m.next = "DRAIN"
                with m.Elif(stopped & (settled == SETTLE_CYCLES - 1)):
                    m.d.sync += faulty.eq(1)
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.sync += reporter.eq(reporter + 1)
                m.next = "CHOOSE"
            with m.State("CHOOSE"):
                with m.If(better):
                    m.d.sync += [best.eq(rank), best_code.eq(Mux(report.fault, report.code, Fault.DEADLOCK))]
                with m.If(reporter == self._reporters):
                    m.next = "DRAIN"
                with m.Else():
                    m.d.sync += drained.eq(drained + 1)
                    m.next = "COMPARE"
            with m.State("DRAIN"):
                m.d.sync += drained.eq(drained + 1)
                with m.If(drained == self._drain_cycles):
                    m.d.sync += [
                        self.state.eq(Mux(faulty, State.FAULT, State.DONE)),
                        self.fault_code.eq(best_code),
                        self.fault_index.eq(Mux(faulty, best[:16], 0)),
                    ]
                    m.next = "END"
            with m.State("END"):
                pass
        return m
