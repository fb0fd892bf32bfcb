"""Products of nine taps, their sum, and the sum over the windows of a word."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..delay import delayed
from ..mux_add import MuxAdd
from .column import taps_layout
from .maximum import Maximum
from .plan import PLAN_LAYOUT
from .weights import weights_layout
from .window import window_layout


class Taps(wiring.Component):
    """K sums of nine products a cycle.

    ::

        cycle  0                  1                 2              3            4
        window, weights -> 72 products -> 3 sums of 3 -> sum of 3 -> accumulate -> sums

    ``sums`` is valid with ``valid``, :attr:`LATENCY` cycles after a window whose ``taps`` say ``compute`` and ``last``. In
    maximum mode ``largest`` of a last window is the sum; weights must then be 0, and it takes ``Maximum.LATENCY`` - 1 cycles more.
    """

    LATENCY = 4

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "plan": In(PLAN_LAYOUT),
                "window": In(window_layout(config)),
                "weights": In(weights_layout(config)),
                "taps": In(taps_layout(config)),
                "largest": In(data.ArrayLayout(signed(9), config.lanes)),
                "sums": Out(data.ArrayLayout(signed(32), config.lanes)),
                "valid": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Products and adders, lane by lane."""
        m = Module()
        late = delayed(m, self.taps, Maximum.LATENCY - 1, name="late", reset_less=False)
        control = Signal(taps_layout(self._config))
        m.d.comb += control.eq(self.taps)
        with m.If(self.plan.maximum):
            m.d.comb += [control.eq(late), control.first.eq(1)]
        control = delayed(m, control, 3, name="control", reset_less=False)
        m.d.sync += self.valid.eq(control.compute & control.last)

        for lane in range(self._config.lanes):
            products = [Signal(signed(19), name=f"product_{lane}_{tap}") for tap in range(9)]
            m.d.sync += [product.eq(self.window[tap][lane] * self.weights[tap][lane]) for tap, product in enumerate(products)]
            thirds = [Signal(signed(21), name=f"third_{lane}_{row}") for row in range(3)]
            m.submodules[f"mix_{lane}"] = mix = MuxAdd(21)
            m.d.comb += [
                mix.a.eq(products[6] + products[7]),
                mix.c.eq(products[8]),
                mix.d.eq(self.largest[lane]),
                mix.sel.eq(self.plan.maximum),
            ]
            m.d.sync += [
                thirds[0].eq(products[0] + products[1] + products[2]),
                thirds[1].eq(products[3] + products[4] + products[5]),
                thirds[2].eq(mix.o),
            ]
            total = Signal(signed(23), name=f"total_{lane}")
            m.d.sync += total.eq(thirds[0] + thirds[1] + thirds[2])
            m.submodules[f"sum_{lane}"] = accumulate = MuxAdd(32)
            m.d.comb += [accumulate.a.eq(total), accumulate.c.eq(self.sums[lane]), accumulate.d.eq(0), accumulate.sel.eq(control.first)]
            with m.If(control.compute):
                m.d.sync += self.sums[lane].eq(accumulate.o)
        return m
