r"""From a row's finished sums to the biased sums v of its lanes.

::

    acc of output j or J + j (..) + bias -> 18 bits -> (<< gain) + asum -> v of lane j
                                       \-> 32 bits, 0 unless wanted -> OR of all lanes -> (<< gain) + asum -> v of a wide slot

Both two-way choices lie in front of an adder and cost nothing there; a lane adds its own outputs' biases in wide slots too. Twice a sum
plus its bias is twice (the sum plus half the bias) plus the bias's lowest bit.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.cell import SUM_BITS
from tercel.hw.array.drain_select import pairs, selection_layout
from tercel.hw.config import NARROW_BITS, Config
from tercel.hw.delay import delayed
from tercel.hw.mux_add import MuxAdd
from tercel.hw.wide_mux import WideMux

LATENCY = 2
"""Cycles from the selection to the sums."""


def bias_layout(config: Config) -> data.ArrayLayout:
    """The biases of all lanes, halved where the gain is 2."""
    return data.ArrayLayout(signed(SUM_BITS), config.drain_lanes)


class RowSums(Component):
    """The sums v of a slot.

    Members
    -------
    acc : In(N x signed(32)); select : In(selection_layout); bias : In(bias_layout)
        The row's sums, what the slot wants of them, and its biases.
    asum : In(signed(32)); odd : In(J), odd_wide : In(1)
        A cycle later: the sum of activations; with a gain of 2 the lowest bit of each lane's bias, and of that of a wide slot's output.
    gain, narrow : In(1)
        Hold while slots of their instruction are on the way.
    difference : In(signed(9))
        In wide slots: ``narrow[2]`` and above are this, a cycle later.
    wide : Out(signed(32)), narrow_sums : Out(J x signed(18))
        ``LATENCY`` cycles after ``acc``: v of a wide slot (of lane 0 in a narrow one, of which the low 18 bits count); v of the lanes of
        a narrow slot, of which lane 0's is ``wide``.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "acc": In(data.ArrayLayout(signed(SUM_BITS), config.outputs)),
                "select": In(selection_layout(config)),
                "bias": In(bias_layout(config)),
                "asum": In(signed(SUM_BITS)),
                "odd": In(config.drain_lanes),
                "odd_wide": In(1),
                "gain": In(1),
                "narrow": In(1),
                "difference": In(signed(9)),
                "wide": Out(signed(SUM_BITS)),
                "narrow_sums": Out(data.ArrayLayout(signed(NARROW_BITS), config.drain_lanes)),
            }
        )

    def elaborate(self, platform):
        """A lane's first addition serves both kinds of slot."""
        m = Module()
        lanes = self.config.drain_lanes
        wanted = []
        narrow = []
        for lane in range(lanes):
            first, second = self._candidates(m, lane)
            m.submodules[f"add_bias_{lane}"] = add_bias = MuxAdd(SUM_BITS)
            m.d.comb += [
                add_bias.a.eq(self.bias[lane]),
                add_bias.c.eq(first),
                add_bias.d.eq(second),
                add_bias.sel.eq(self.select.odd),
            ]
            kept = Signal(SUM_BITS, name=f"wide_{lane}", reset_less=True)
            # A single lane is always wanted.
            with m.If(self.select.wide[lane] if lanes > 1 else 1):
                m.d.sync += kept.eq(add_bias.o)
            with m.Else():
                m.d.sync += kept.eq(0)
            wanted.append(kept)
            if lane:
                kept = Signal(NARROW_BITS, name=f"narrow_{lane}", reset_less=True)
                if lane < 2:
                    m.d.sync += kept.eq(add_bias.o)
                else:
                    # Beside the sum of a wide slot only its difference counts.
                    with m.If(self.narrow):
                        m.d.sync += kept.eq(add_bias.o)
                    with m.Else():
                        m.d.sync += kept.eq(0)
                narrow.append(kept)

        either = wanted[0]
        for kept in wanted[1:]:
            either = either | kept
        wide = self._scaled(m, either, self.asum, self.odd_wide, name="wide")
        m.d.comb += self.wide.eq(delayed(m, wide.as_signed(), 1, name="wide"))
        mixed = Mux(self.narrow, self.asum[:NARROW_BITS], self.difference)[:NARROW_BITS]
        for lane, kept in enumerate(narrow, start=1):
            addend = self.asum[:NARROW_BITS] if lane == 1 else mixed
            total = self._scaled(m, kept, addend, self.odd[lane], name=f"narrow_{lane}")
            m.d.comb += self.narrow_sums[lane].eq(delayed(m, total.as_signed(), 1, name=f"narrow_{lane}"))
        return m

    def _candidates(self, m: Module, lane: int):
        """The two sums of the lane among which the slot's lowest bit chooses."""
        config = self.config
        outputs = [self.acc[output] for output in range(lane, config.outputs, config.drain_lanes)]
        if len(outputs) == 1:
            return outputs[0], outputs[0]
        if len(outputs) == 2:
            return outputs
        candidates = []
        for odd in range(2):
            m.submodules[f"pair_{lane}_{odd}"] = choice = WideMux(width=SUM_BITS, count=pairs(config))
            sums = outputs[odd::2]
            m.d.comb += choice.sel.eq(self.select.pair)
            m.d.comb += [choice.inputs[pair].eq(sums[min(pair, len(sums) - 1)]) for pair in range(pairs(config))]
            candidates.append(choice.o)
        return candidates

    def _scaled(self, m: Module, value, addend, odd, *, name: str):
        """``value`` or its double and ``odd``, plus ``addend``."""
        m.submodules[f"add_asum_{name}"] = adder = MuxAdd(len(value))
        m.d.comb += [adder.a.eq(addend), adder.c.eq(value), adder.d.eq(Cat(odd, value)), adder.sel.eq(self.gain)]
        return adder.o
