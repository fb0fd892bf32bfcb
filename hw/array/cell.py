"""What one row of the systolic array is made of: cells, each with the sum of one output, and the sum of the row's activations.

::

    digits, acts -> sum of the lanes whose digit has bit 0 -+-> first - 2 * second -> + -> acc
                    sum of the lanes whose digit has bit 1 -+      (acc or acc*4) ^ |
                                                                                     +-> shadow (on ``last``)

A digit is a two's complement number of two bits, so the sum of digit * activation is the sum over the lanes with bit 0, less twice that
over those with bit 1. A carry cell adds two activations, each or none of them, without further LUTs.

Activations are 8 bits without a sign: a ninth bit would cost a carry cell (for two bits) in every second sum of the trees. So both sums are
in 0..255*K, of 8 + log2 K bits, and all that is signed is their difference, -510*K..255*K, of two bits more.
"""

from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.gated_add import GatedAdd
from tercel.hw.mux_add import MuxAdd
from tercel.hw.product import Product

SUM_BITS = 32


def tree_levels(config: Config) -> int:
    """Levels, and cycles, of the adder tree over K lanes."""
    return config.lanes.bit_length() - 1


class Cell(Component):
    """Sum of one output: K lanes a cycle.

    ``acts`` and ``digits`` of a step are followed by its control after ``tree_levels`` cycles; a cycle later ``shadow`` has the sum if it
    was the last. Any cycle may be a step.

    Members
    -------
    acts : In(K x 8); digits : In(K x 2)
        Field 0 selects 0, 1: x, 2: -2x (0 on a ternary machine), 3: -x. On a ternary machine a 2 must come as 0.
    step, shift, last : In(1)
        Control of the step in the accumulator; ``shift`` only with ``step``. A ``last`` without ``step`` leaves a sum of 0 to add to, and
        no ``shadow`` to speak of: so the array is reset.
    shadow : Out(signed(32))
        The sum of the last finished tile.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "acts": In(data.ArrayLayout(unsigned(8), config.lanes)),
                "digits": In(data.ArrayLayout(unsigned(2), config.lanes)),
                "step": In(1),
                "shift": In(1),
                "last": In(1),
                "shadow": Out(signed(SUM_BITS)),
            }
        )

    def elaborate(self, platform):
        """The first two additions in one cycle, a register behind each of the others, accumulator."""
        m = Module()
        lanes = self.config.lanes
        sums = []
        for bit in range(2):
            terms = []
            for lane in range(0, lanes, 2):
                m.submodules[f"pair_{bit}_{lane}"] = pair = GatedAdd(8)
                m.d.comb += [
                    pair.a.eq(self.acts[lane]),
                    pair.b.eq(self.acts[lane + 1]),
                    pair.with_a.eq(self.digits[lane][bit]),
                    pair.with_b.eq(self.digits[lane + 1][bit]),
                ]
                terms.append(pair.o)
            while len(terms) > 1:
                totals = [
                    Signal(len(terms[0]) + 1, name=f"sum_{bit}_{len(terms)}_{index}", reset_less=True)
                    for index in range(len(terms) // 2)
                ]
                m.d.sync += [total.eq(terms[2 * index] + terms[2 * index + 1]) for index, total in enumerate(totals)]
                terms = totals
            sums += terms
        step_sum = Signal(signed(len(sums[0]) + 2), reset_less=True)
        m.d.sync += step_sum.eq(Cat(sums[0][0], (sums[0] >> 1) - sums[1]).as_signed())

        acc, shadow = Signal(SUM_BITS, reset_less=True), Signal(signed(SUM_BITS), reset_less=True)
        m.submodules.adder = adder = MuxAdd(SUM_BITS)
        m.d.comb += [adder.a.eq(step_sum), adder.c.eq(acc), adder.d.eq(acc << 2), adder.sel.eq(self.shift), self.shadow.eq(shadow)]
        with m.If(self.step):
            m.d.sync += acc.eq(adder.o)
        with m.If(self.last):
            m.d.sync += [acc.eq(0), shadow.eq(adder.o)]
        return m


class ActivationSum(Component):
    """``offset`` times the sum of a row's activations, one cycle behind the row's cells.

    Members
    -------
    acts : In(K x 8)
        As in :class:`Cell`, at the same time.
    offset : In(signed(10))
        With ``step`` of the row's cells: how many times the activations count.
    step, last : In(1)
        As in :class:`Cell`, a cycle after those of the row's cells.
    shadow : Out(signed(32))
        The sum of the last finished tile.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "acts": In(data.ArrayLayout(unsigned(8), config.lanes)),
                "offset": In(signed(10)),
                "step": In(1),
                "last": In(1),
                "shadow": Out(signed(SUM_BITS)),
            }
        )

    def elaborate(self, platform):
        """Tree, product, accumulator."""
        m = Module()
        terms = list(self.acts)
        while len(terms) > 1:
            sums = [Signal(len(terms[0]) + 1, name=f"sum_{len(terms)}_{index}", reset_less=True) for index in range(len(terms) // 2)]
            m.d.sync += [total.eq(terms[2 * index] + terms[2 * index + 1]) for index, total in enumerate(sums)]
            terms = sums
        # The multiplier is signed.
        m.submodules.product = product = Product(a_bits=len(terms[0]) + 1, b_bits=len(self.offset), operand_registers=False)
        m.d.comb += [product.a.eq(terms[0]), product.b.eq(self.offset)]
        acc, shadow = Signal(signed(SUM_BITS), reset_less=True), Signal(signed(SUM_BITS), reset_less=True)
        total = Signal(signed(SUM_BITS))
        m.d.comb += [total.eq(acc + product.o), self.shadow.eq(shadow)]
        with m.If(self.step):
            m.d.sync += acc.eq(total)
        with m.If(self.last):
            m.d.sync += [acc.eq(0), shadow.eq(total)]
        return m
