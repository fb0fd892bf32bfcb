"""What is known of one bank of the chip."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.sdram.holdoff import Holdoff
from tercel.hw.sdram.timing import SdramCycles
from tercel.hw.up_down import up_down


class Bank(Component):
    """Whether a row is open, whether its columns may be reached, and whether it may be closed.

    A row may be closed when all transfers that were promised in it are over: the last word of a write lies in the chip for ``wr``
    cycles then.

    Parameters
    ----------
    cycles
        Of the chip.

    Members
    -------
    activate, precharge : In(1)
        The command is given in this cycle; a row is opened for a ``promise`` in the same cycle.
    promise, over : In(1)
        A transfer in the open row will come; one is over, not earlier than the second cycle after its promise.
    open : Out(1)
        A row is open from the cycle after ``activate`` on.
    reachable : Out(1)
        A transfer may begin, if a row is open.
    closable : Out(1)
        The row may be closed, or none is open; from a register.
    closable_next : Out(1)
        As ``closable`` in the next cycle, unless there is a ``promise`` in this one.
    """

    def __init__(self, cycles: SdramCycles) -> None:
        self._cycles = cycles
        super().__init__(
            {
                "activate": In(1),
                "precharge": In(1),
                "promise": In(1),
                "over": In(1),
                "open": Out(1),
                "reachable": Out(1),
                "closable": Out(1, init=1),
                "closable_next": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Two times and the number of promises, each of which is counted a cycle after it was made: it is made late in a cycle."""
        m = Module()
        m.submodules.rcd = rcd = Holdoff(self._cycles.rcd - 1)
        m.submodules.ras = ras = Holdoff(max(0, self._cycles.ras - 2))
        promised = Signal(5)
        promise = Signal()
        up_down(m, promised, up=promise, down=self.over)
        m.d.comb += [
            rcd.start.eq(self.activate),
            ras.start.eq(self.activate),
            self.reachable.eq(~rcd.busy),
            # A cycle ahead: of the last promise the transfer may be over in this cycle, and a row just opened was promised to a beat.
            self.closable_next.eq(~ras.busy & ~promise & ((promised == 0) | ((promised == 1) & self.over))),
        ]
        m.d.sync += [promise.eq(self.promise), self.closable.eq(self.closable_next & ~self.promise)]
        with m.If(self.activate):
            m.d.sync += self.open.eq(1)
        with m.If(self.precharge):
            m.d.sync += self.open.eq(0)
        return m
