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
        The command is given in this cycle.
    promise, over : In(1)
        A transfer in the open row will come; one is over.
    open : Out(1)
        A row is open from the cycle after ``activate`` on.
    reachable : Out(1)
        A transfer may begin, if a row is open.
    closable : Out(1)
        The row may be closed, or none is open.
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
                "closable": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Two times and the number of promises."""
        m = Module()
        m.submodules.rcd = rcd = Holdoff(self._cycles.rcd - 1)
        m.submodules.ras = ras = Holdoff(self._cycles.ras - 1)
        promised = Signal(5)
        up_down(m, promised, up=self.promise, down=self.over)
        m.d.comb += [
            rcd.start.eq(self.activate),
            ras.start.eq(self.activate),
            self.reachable.eq(~rcd.busy),
            self.closable.eq(~ras.busy & (promised == 0)),
        ]
        with m.If(self.activate):
            m.d.sync += self.open.eq(1)
        with m.If(self.precharge):
            m.d.sync += self.open.eq(0)
        return m
