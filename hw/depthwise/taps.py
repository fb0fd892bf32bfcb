"""Products of nine taps, their sum, and the sum over the windows of a word."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.depthwise.column import taps_layout
from tercel.hw.depthwise.maximum import Maximum
from tercel.hw.depthwise.plan import PLAN_LAYOUT
from tercel.hw.depthwise.weights import weights_layout
from tercel.hw.depthwise.window import window_layout
from tercel.hw.mux_add import MuxAdd
from tercel.hw.product import Product


class Taps(wiring.Component):
    """K sums of nine products a cycle.

    ::

        cycle  0              1, 2              3              4            5
        window, weights -> 72 products -> 3 sums of 3 -> sum of 3 -> accumulate -> sums

    ``sums`` is valid with ``valid``, :attr:`LATENCY` cycles after a window whose ``taps`` say ``compute`` and ``last``. In
    maximum mode ``largest`` of a last window is the sum; weights must then be 0, and it takes ``Maximum.LATENCY`` - 2 cycles more.
    """

    LATENCY = 5

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
        late = delayed(m, self.taps, Maximum.LATENCY - Product.LATENCY, name="late", reset_less=False)
        control = Signal(taps_layout(self._config))
        m.d.comb += control.eq(self.taps)
        with m.If(self.plan.maximum):
            m.d.comb += [control.eq(late), control.first.eq(1)]
        control = delayed(m, control, Taps.LATENCY - 1, name="control", reset_less=False)
        m.d.sync += self.valid.eq(control.compute & control.last)

        for lane in range(self._config.lanes):
            products = []
            for tap in range(9):
                m.submodules[f"product_{lane}_{tap}"] = product = Product(a_bits=9, b_bits=10)
                m.d.comb += [product.a.eq(self.window[tap][lane]), product.b.eq(self.weights[tap][lane])]
                products.append(product.o)
            # A product is at most 2**17, both operands at their lowest: three of them need 20 bits, nine 22.
            # Cells of their own for the second additions: yosys would turn sums of three into larger carry-save trees.
            adders = [MuxAdd(20), MuxAdd(20), MuxAdd(20), MuxAdd(22), MuxAdd(32)]
            for number, adder in enumerate(adders):
                m.submodules[f"add_{lane}_{number}"] = adder
                m.d.comb += adder.sel.eq((0, 0, self.plan.maximum, 0, control.first)[number])
            thirds = [Signal(signed(20), name=f"third_{lane}_{row}") for row in range(3)]
            total = Signal(signed(22), name=f"total_{lane}")
            for row in range(3):
                left, middle, right = products[3 * row : 3 * row + 3]
                m.d.comb += [adders[row].a.eq(left + middle), adders[row].c.eq(right)]
                m.d.sync += thirds[row].eq(adders[row].o)
            m.d.comb += [
                adders[2].d.eq(self.largest[lane]),
                adders[3].a.eq(thirds[0] + thirds[1]),
                adders[3].c.eq(thirds[2]),
                adders[4].a.eq(total),
                adders[4].c.eq(self.sums[lane]),
            ]
            m.d.sync += total.eq(adders[3].o)
            with m.If(control.compute):
                m.d.sync += self.sums[lane].eq(adders[4].o)
        return m
