"""Products of the taps, their sum, and the sum over the windows of a word."""

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


def taps_latency(config: Config) -> int:
    """Cycles from a last window to its sums."""
    return Product.LATENCY + (3 if config.depthwise_taps == RECORD_TAPS else 4)


class Taps(wiring.Component):
    """K sums of nine products, every cycle or every third.

    ::

        cycle  0              1, 2           3                         4            5
        window, weights -> products -> 3 sums of 3 ---------------> sum of 3 -> accumulate -> sums
        0..2: a row     -> products -> sum of 3, 3..5 -> accumulate 4..6 -> sums

    ``sums`` is valid with ``valid``, :func:`taps_latency` cycles after a window whose ``taps`` say ``compute`` and ``last``. With 3 taps a
    cycle the ``window`` holds for two cycles more, and ``weights`` has one row after the other.

    In maximum mode ``largest`` of a last window is the sum; weights must then be 0. It takes as long with 3 taps a cycle, with 9
    ``Maximum.LATENCY`` - 2 cycles more.
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
                "sums": Out(data.ArrayLayout(signed(32), config.lanes)),
                "valid": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Control, then products and adders, lane by lane."""
        m = Module()
        late = delayed(m, self.taps, Maximum.LATENCY - Product.LATENCY, name="late")
        if self._config.depthwise_taps == RECORD_TAPS:
            control = Signal(taps_layout(self._config))
            m.d.comb += control.eq(self.taps)
            with m.If(self.plan.maximum):
                m.d.comb += [control.eq(late), control.first.eq(1)]
            control = delayed(m, control, taps_latency(self._config) - 2, name="control")
            valid = delayed(m, control.compute & control.last, 1, name="valid")
            m.d.sync += self.valid.eq(valid)
            for lane in range(self._config.lanes):
                self._at_once(m, lane, Cat(control.compute, control.first))
        else:
            row = Signal(2)
            m.d.comb += row.eq(row_of_window(m, self.taps.compute))
            control = self._row_control(m, late)
            for lane in range(self._config.lanes):
                self._by_row(m, lane, row, control)
        return m

    def _at_once(self, m: Module, lane: int, control) -> None:
        """The sum of one lane, of nine products a cycle."""
        products = [self._product(m, lane, tap, self.window[tap][lane]) for tap in range(RECORD_TAPS)]
        thirds = [
            self._sum(m, lane, products[ROW_TAPS * row : ROW_TAPS * row + ROW_TAPS], row=row, largest=row == 2) for row in range(3)
        ]
        # A product is at most 2**17, both operands at their lowest: three of them need 20 bits, nine 22.
        m.submodules[f"add_{lane}_3"] = adder = MuxAdd(22)
        total = Signal(signed(22), name=f"total_{lane}", reset_less=True)
        m.d.comb += [adder.a.eq(thirds[0] + thirds[1]), adder.c.eq(thirds[2])]
        m.d.sync += total.eq(adder.o)
        self._accumulate(m, lane, total, control)

    def _row_control(self, m: Module, late) -> Value:
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
        with m.If(self.plan.maximum):
            m.d.comb += [control.step.eq(late.compute), control.first.eq(1), control.end.eq(late.compute & late.last)]
        control = delayed(m, control, Product.LATENCY, name="control")
        m.d.sync += self.valid.eq(delayed(m, control.end, 1, name="end"))
        return Cat(control.step, control.first)

    def _by_row(self, m: Module, lane: int, row, control) -> None:
        """The sum of one lane, of three products a cycle."""
        products = [
            self._product(m, lane, column, Array(self.window[ROW_TAPS * index + column][lane] for index in range(3))[row])
            for column in range(ROW_TAPS)
        ]
        self._accumulate(m, lane, self._sum(m, lane, products, row=0, largest=True), control)

    def _product(self, m: Module, lane: int, tap: int, code):
        m.submodules[f"product_{lane}_{tap}"] = product = Product(a_bits=9, b_bits=10)
        m.d.comb += [product.a.eq(code), product.b.eq(self.weights[tap][lane])]
        return product.o

    def _sum(self, m: Module, lane: int, products, *, row: int, largest: bool):
        """The sum of a row's products, a cycle later; ``largest`` takes the last one's place where it is the result."""
        left, middle, right = products
        # A cell of its own for the second addition: yosys would turn sums of three into larger carry-save trees.
        m.submodules[f"add_{lane}_{row}"] = adder = MuxAdd(20)
        third = Signal(signed(20), name=f"third_{lane}_{row}", reset_less=True)
        m.d.comb += [
            adder.a.eq(left + middle),
            adder.c.eq(right),
            adder.d.eq(self.largest[lane] if largest else 0),
            adder.sel.eq(local(m, self.plan.maximum, name=f"maximum_{lane}") if largest else 0),
        ]
        m.d.sync += third.eq(adder.o)
        return third

    def _accumulate(self, m: Module, lane: int, value, control) -> None:
        """``control`` is wanted in the next cycle, beside the lane."""
        step, first = local(m, control, name=f"step_first_{lane}")
        m.submodules[f"accumulate_{lane}"] = adder = MuxAdd(32)
        total = Signal(signed(32), name=f"sum_{lane}", reset_less=True)
        m.d.comb += [adder.a.eq(value), adder.c.eq(total), adder.d.eq(0), adder.sel.eq(first), self.sums[lane].eq(total)]
        with m.If(step):
            m.d.sync += total.eq(adder.o)
