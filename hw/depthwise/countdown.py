"""A loop counter whose ends are registers."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out


class Countdown(Component):
    """Counts the rounds of a loop, over and over.

    Parameters
    ----------
    width
        Bits of the number of rounds less 1.

    Members
    -------
    last : In(width)
        Rounds less 1.
    start : In(1)
        The first round comes next.
    step : In(1)
        This round is over; after the last one the first comes again.
    first, soon, end : Out(1)
        The round is the first, the last but one, the last.
    then_end : Out(1)
        What ``end`` becomes with ``start`` or ``step``.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        ends = {name: Out(1) for name in ("first", "soon", "end", "then_end")}
        super().__init__({"last": In(width), "start": In(1), "step": In(1), **ends})

    def elaborate(self, platform) -> Module:
        """Rounds that are left, and what the next number of them says."""
        m = Module()
        left = Signal(self.width, reset_less=True)
        first, soon, end = (Signal(name=name, reset_less=True) for name in ("is_first", "is_soon", "is_end"))
        m.d.comb += [self.first.eq(first), self.soon.eq(soon), self.end.eq(end)]
        m.d.comb += self.then_end.eq(Mux(self.start | end, self.last == 0, soon))
        # The step comes late in a cycle: it enables, and chooses nothing.
        with m.If(self.start | self.step):
            m.d.sync += end.eq(self.then_end)
            with m.If(self.start | end):
                m.d.sync += [left.eq(self.last), first.eq(1), soon.eq(self.last == 1)]
            with m.Else():
                m.d.sync += [left.eq(left - 1), first.eq(0), soon.eq(left == 2)]
        return m
