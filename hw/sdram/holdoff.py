"""A least time between two events."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out


class Holdoff(Component):
    """``busy`` is 1 in the ``cycles`` cycles after each one with ``start``, so that what waits for it comes ``cycles + 1`` later or more.

    A register whose ones are shifted out: ``busy`` has no logic behind it.

    Parameters
    ----------
    cycles
        0 or more.

    Members
    -------
    start : In(1)
        From here on.
    busy : Out(1)
        Wait.
    """

    def __init__(self, cycles: int) -> None:
        self._cycles = cycles
        super().__init__({"start": In(1), "busy": Out(1)})

    def elaborate(self, platform) -> Module:
        """The register."""
        m = Module()
        if self._cycles:
            left = Signal(self._cycles)
            m.d.comb += self.busy.eq(left[0])
            m.d.sync += left.eq(left >> 1)
            with m.If(self.start):
                m.d.sync += left.eq(~0)
        return m
