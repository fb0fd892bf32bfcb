"""Products of the taps, their sum, and the sum over the windows of a word, which begins with the bias."""

from amaranth.hdl import Array, Cat, Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.depthwise.column import row_of_window, taps_layout
from tercel.hw.depthwise.maximum import Maximum
from tercel.hw.depthwise.plan import PLAN_LAYOUT
from tercel.hw.depthwise.weights import weights_layout
from tercel.hw.depthwise.window import window_layout
from tercel.hw.local_register import local
from tercel.hw.memory.space import RECORD_TAPS
from tercel.hw.mux_add import MuxAdd
from tercel.hw.product import Product

ROW_TAPS = 3
"""Products that are summed in one cycle."""

TAPS_LATENCY = Product.LATENCY + 5
"""Cycles from a last window to its sums."""


class Taps(wiring.Component):
    """K sums of nine products, every cycle or every third.

    ::

        cycle  0              1, 2        3              4             5             6                      7
    window, weights -> products -> 4 sums of 2 -> 2 sums of 4 -> sum of 8 -> + ninth or largest -> accumulate -> sums
    0..2: a row     -> products -> sum of 2 -> + third or largest, 4..6 -> accumulate, 5..7 -> sums

    ``sums`` is valid with ``valid``, ``TAPS_LATENCY`` cycles after a window whose ``taps`` say ``compute`` and ``last``. With 3 taps a
    cycle the ``window`` holds for two cycles more, and ``weights`` has one row after the other.

    ``bias`` is that of the word when its first products are accumulated: ``TAPS_LATENCY`` - 1 cycles after a window whose ``taps`` say
    ``first``, two less with 3 taps a cycle.

    In maximum mode ``largest`` of a last window, ``Maximum.LATENCY`` cycles after it, is the sum; weights must then be 0.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "plan": In(PLAN_LAYOUT),
                "window": In(window_layout(config)),
                "weights": In(weights_layout(config)),
                "taps": In(taps_layout(config)),
                "largest": In(data.ArrayLayout(signed(9), config.lanes)),
                "bias": In(data.ArrayLayout(signed(32), config.lanes)),
                "sums": Out(data.ArrayLayout(signed(32), config.lanes)),
                "valid": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Control, then products and adders, lane by lane."""
        m = Module()
        if self._config.depthwise_taps == RECORD_TAPS:
            control = Signal(taps_layout(self._config))
            m.d.comb += control.eq(self.taps)
            with m.If(self.plan.maximum):
                m.d.comb += control.first.eq(1)
            control = delayed(m, control, TAPS_LATENCY - 2, name="control")
            valid = delayed(m, control.compute & control.last, 1, name="valid")
            m.d.sync += self.valid.eq(valid)
            for lane in range(self._config.lanes):
                self._at_once(m, lane, Cat(control.compute, control.first))
        else:
            row = Signal(2)
            m.d.comb += row.eq(row_of_window(m, self.taps.compute))
            control = self._row_control(m)
            for lane in range(self._config.lanes):
                self._by_row(m, lane, row, control)
        return m

    def _at_once(self, m: Module, lane: int, control) -> None:
        """The sum of one lane, of nine products a cycle."""
        products = [self._product(m, lane, tap, self.window[tap][lane]) for tap in range(RECORD_TAPS)]
        # A product of -256..255 and -128..127 is -32640..2**15, that with both at their lowest: 17 bits, as 2**15 itself needs them.
        # Each level of sums is a bit wider: 20 for the sum of eight, at most 2**18, which hold that of nine, at most 9 * 2**15, too.
        sums, ninth = products[:-1], delayed(m, products[-1], 3, name=f"ninth_{lane}")
        while len(sums) > 1:
            pairs = range(0, len(sums), 2)
            sums = [delayed(m, sums[index] + sums[index + 1], 1, name=f"sum_{len(sums)}_{lane}_{index}") for index in pairs]
        self._accumulate(m, lane, self._last(m, lane, sums[0], ninth, bits=20), control)

    def _row_control(self, m: Module) -> Value:
        """Step and first for the accumulators, in the cycle before; drives ``valid``."""
        layout = data.StructLayout({"step": 1, "first": 1, "end": 1})
        control, last = Signal(layout), Signal(reset_less=True)
        middle = delayed(m, self.taps.compute & ~self.plan.maximum, 1, name="middle")
        bottom = delayed(m, middle, 1, name="bottom")
        with m.If(self.taps.compute):
            m.d.sync += last.eq(self.taps.last)
        m.d.comb += [
            control.step.eq(self.taps.compute | middle | bottom),
            control.first.eq(self.taps.compute & self.taps.first),
            control.end.eq(bottom & last),
        ]
        late = delayed(m, self.taps, Maximum.LATENCY - Product.LATENCY - 1, name="late")
        with m.If(self.plan.maximum):
            m.d.comb += [control.step.eq(late.compute), control.first.eq(1), control.end.eq(late.compute & late.last)]
        control = delayed(m, control, Product.LATENCY + 1, name="control")
        m.d.sync += self.valid.eq(delayed(m, control.end, 1, name="end"))
        return Cat(control.step, control.first)

    def _by_row(self, m: Module, lane: int, row, control) -> None:
        """The sum of one lane, of three products a cycle."""
        products = [
            self._product(m, lane, column, Array(self.window[ROW_TAPS * index + column][lane] for index in range(3))[row])
            for column in range(ROW_TAPS)
        ]
        left, middle, right = products
        pair = delayed(m, left + middle, 1, name=f"pair_{lane}")
        right = delayed(m, right, 1, name=f"right_{lane}")
        # Three products are -3 * 32640..3 * 2**15, less than 2**17 (see _at_once).
        self._accumulate(m, lane, self._last(m, lane, pair, right, bits=18), control)

    def _product(self, m: Module, lane: int, tap: int, code):
        m.submodules[f"product_{lane}_{tap}"] = product = Product(a_bits=9, b_bits=8)
        m.d.comb += [product.a.eq(code), product.b.eq(self.weights[tap][lane])]
        return product.o

    def _last(self, m: Module, lane: int, total, product, *, bits: int):
        """``total`` and the last product, or in its place ``largest`` where that is the result; a cycle later."""
        m.submodules[f"add_{lane}"] = adder = MuxAdd(bits)
        whole = Signal(signed(bits), name=f"total_{lane}", reset_less=True)
        m.d.comb += [
            adder.a.eq(total),
            adder.c.eq(product),
            adder.d.eq(self.largest[lane]),
            adder.sel.eq(local(m, self.plan.maximum, name=f"maximum_{lane}")),
        ]
        m.d.sync += whole.eq(adder.o)
        return whole

    def _accumulate(self, m: Module, lane: int, value, control) -> None:
        """``control`` is wanted in the next cycle, beside the lane."""
        step, first = local(m, control, name=f"step_first_{lane}")
        m.submodules[f"accumulate_{lane}"] = adder = MuxAdd(32)
        total = Signal(signed(32), name=f"sum_{lane}", reset_less=True)
        m.d.comb += [adder.a.eq(value), adder.c.eq(total), adder.d.eq(self.bias[lane]), adder.sel.eq(first), self.sums[lane].eq(total)]
        with m.If(step):
            m.d.sync += total.eq(adder.o)
