"""The window: three columns of three rows of words, as operands of the multipliers."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.depthwise.column import taps_layout
from tercel.hw.depthwise.fetch import WORDS, arrival_layout
from tercel.hw.depthwise.plan import INSTRUCTION, PLAN_LAYOUT
from tercel.hw.local_register import local
from tercel.hw.wide_mux import WideMux


def window_layout(config: Config) -> data.ArrayLayout:
    """Operand codes: tap 3*row + column, then lane."""
    return data.ArrayLayout(data.ArrayLayout(signed(9), config.lanes), 9)


LANES_MOVED = 4
"""Lanes that one register tells to move: few enough to lie together."""

LANES_CHOSEN = 2
"""Lanes for which one register chooses the banks, and one has the padding."""


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
        early = delayed(m, self.arrival, 1, name="early")
        choose = delayed(m, early, 1, name="choose")

        incoming = Signal(data.ArrayLayout(8 * lanes, WORDS), reset_less=True)
        chosen = Signal(incoming.shape())
        m.d.sync += incoming.eq(chosen)
        for lane in range(0, lanes, LANES_CHOSEN):
            banks = local(m, early.bank, name=f"bank_{lane}")
            pad = local(m, plan.pad[:8], name=f"pad_{lane}").replicate(LANES_CHOSEN)
            part = slice(8 * lane, 8 * (lane + LANES_CHOSEN))
            for word in range(WORDS):
                m.submodules[f"mux_{word}_{lane}"] = mux = WideMux(width=8 * LANES_CHOSEN, count=config.pixels + 1)
                m.d.comb += [mux.inputs[bank].eq(words[bank][part]) for bank in range(config.pixels)]
                m.d.comb += [mux.inputs[config.pixels].eq(pad), mux.sel.eq(banks[word]), chosen[word][part].eq(mux.o)]
        # Matrix-vector: every lane gets the byte of its tap.
        spread = []
        for row in range(3):
            m.submodules[f"byte_{row}"] = mux = WideMux(width=8, count=lanes)
            select = delayed(m, (early.byte + 3 * row)[: len(mux.sel)], 2, name=f"select_{row}")
            m.d.comb += [mux.inputs.as_value().eq(incoming[3]), mux.sel.eq(select)]
            spread.append(mux.o)
        window = Signal(self.window.shape(), reset_less=True)
        m.d.comb += [self.window.eq(window), self.taps.eq(delayed(m, choose.taps, 2, name="taps"))]
        # The moves, in registers beside the lanes.
        layout = data.StructLayout({"come": WORDS, "padded": WORDS, "head": 1, "two": 1})
        next_move = Signal(layout)
        m.d.comb += [
            next_move.come.eq(choose.come),
            next_move.padded.eq(Cat(choose.bank[word] == config.pixels for word in range(WORDS))),
            next_move.head.eq(choose.head),
            next_move.two.eq(choose.two),
        ]
        fixed_layout = data.StructLayout({"vector": 1, "pad": 1, "signed": 1})
        next_fixed = Signal(fixed_layout)
        m.d.comb += Value.cast(next_fixed).eq(Cat(plan.vector, plan.pad[8], self.instruction.in_signed))
        for lane in range(lanes):
            if lane % LANES_MOVED == 0:
                move, fixed = local(m, next_move, name=f"move_{lane}"), local(m, next_fixed, name=f"fixed_{lane}")
            for row in range(3):
                left, middle, right = (window[3 * row + column][lane] for column in range(3))
                (first, first_padded), (second, second_padded) = (
                    (incoming[word].word_select(lane, 8), move.padded[word]) for word in (row, 3 + row)
                )
                byte = Mux(fixed.vector, spread[row], second)
                with m.If(move.head):
                    m.d.sync += left.eq(Mux(move.two, right, middle))
                with m.If(move.come[row] | (move.head & ~move.two)):
                    m.d.sync += middle.eq(Mux(move.two, _code(first, first_padded, fixed), right))
                with m.If(move.come[3 + row]):
                    m.d.sync += right.eq(_code(byte, second_padded & ~fixed.vector, fixed))
        return m


def _code(byte, padded, fixed):
    """The nine bits of a byte: its own, or those of the padding, whose low eight it then has."""
    return Cat(byte, Mux(padded, fixed.pad, fixed.signed & byte[7]))
