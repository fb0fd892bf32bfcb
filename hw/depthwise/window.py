"""The window: three columns of three rows of words, as operands of the multipliers."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.depthwise.column import taps_layout
from tercel.hw.depthwise.fetch import WORDS, arrival_layout
from tercel.hw.depthwise.plan import INSTRUCTION, PLAN_LAYOUT
from tercel.hw.wide_mux import WideMux


def window_layout(config: Config) -> data.ArrayLayout:
    """Operand codes: tap 3*row + column, then lane."""
    return data.ArrayLayout(data.ArrayLayout(signed(9), config.lanes), 9)


class Window(wiring.Component):
    """Brings the words of the banks into the window.

    ``data`` follows ``arrival`` by 1 cycle, as it comes from the banks; ``window`` and ``taps`` by :attr:`LATENCY`. Words
    pass two registers on the way: one behind the memories, one behind the bank multiplexers.
    """

    LATENCY = 4

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "instruction": In(INSTRUCTION),
                "plan": In(PLAN_LAYOUT),
                "arrival": In(arrival_layout(config)),
                "data": In(data.ArrayLayout(8 * config.lanes, config.pixels)),
                "window": Out(window_layout(config)),
                "taps": Out(taps_layout(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Bank multiplexers, then the window with its moves."""
        m = Module()
        config, plan = self._config, self.plan
        lanes = config.lanes
        words = delayed(m, self.data, 1, name="words")
        choose = delayed(m, self.arrival, 2, name="choose")

        pad = Cat(plan.pad[:8] for _ in range(lanes))
        incoming = Signal(data.ArrayLayout(8 * lanes, WORDS), reset_less=True)
        muxes = [WideMux(width=8 * lanes, count=config.pixels + 1) for _ in range(WORDS)]
        for word, mux in enumerate(muxes):
            m.submodules[f"mux_{word}"] = mux
            m.d.comb += [mux.inputs[bank].eq(words[bank]) for bank in range(config.pixels)]
            m.d.comb += [mux.inputs[config.pixels].eq(pad), mux.sel.eq(choose.bank[word])]
            m.d.sync += incoming[word].eq(mux.o)
        # Matrix-vector: every lane gets the byte of its tap.
        spread = Signal(data.ArrayLayout(8, 3), reset_less=True)
        for row in range(3):
            m.submodules[f"byte_{row}"] = mux = WideMux(width=8, count=lanes)
            m.d.comb += [mux.inputs.as_value().eq(muxes[3].o), mux.sel.eq(choose.byte + 3 * row)]
            m.d.sync += spread[row].eq(mux.o)
        arrival = delayed(m, choose, 1, name="arrival")
        padding = Signal(WORDS, reset_less=True)
        m.d.sync += padding.eq(Cat(choose.bank[word] == config.pixels for word in range(WORDS)))

        def code(byte, padded):
            return Cat(byte, Mux(padded, plan.pad[8], self.instruction.in_signed & byte[7]))

        window = Signal(self.window.shape(), reset_less=True)
        m.d.comb += [self.window.eq(window), self.taps.eq(delayed(m, arrival.taps, 1, name="taps"))]
        for row in range(3):
            left, middle, right = (window[3 * row + column] for column in range(3))
            a, b = row, 3 + row
            with m.If(arrival.head):
                m.d.sync += left.eq(Mux(arrival.two, right, middle))
            for lane in range(lanes):
                first, second = (incoming[word].word_select(lane, 8) for word in (a, b))
                with m.If(arrival.come[a] | (arrival.head & ~arrival.two)):
                    m.d.sync += middle[lane].eq(Mux(arrival.two, code(first, padding[a]), right[lane]))
                with m.If(arrival.come[b]):
                    byte = Mux(plan.vector, spread[row], second)
                    m.d.sync += right[lane].eq(code(byte, padding[b] & ~plan.vector))
        return m
