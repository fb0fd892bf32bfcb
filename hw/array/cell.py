"""What one row of the systolic array is made of: cells, each with the sum of one output, and the sum of the row's activations.

::

    digits, acts -> select (K terms) -> adder tree, a register behind each level -> + -> acc
                                                                   (acc or acc*4) ^ |
                                                                                    +-> shadow (on ``last``)

A digit -1 or -2 selects ~x or ~2x; the 1 it lacks is the carry-in of some adder: the tree has K - 1 of them and the accumulator
is the K-th.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.mux_add import MuxAdd

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
    acts : In(K x signed(9)); digits : In(K x 2)
        Field 0 selects 0, 1: x, 2: -2x (0 on a ternary machine), 3: -x. On a ternary machine a 2 must come as 0.
    step, shift, last : In(1)
        Control of the step in the accumulator; ``shift`` and ``last`` only with ``step``.
    shadow : Out(signed(32))
        The sum of the last finished tile.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "acts": In(data.ArrayLayout(signed(9), config.lanes)),
                "digits": In(data.ArrayLayout(unsigned(2), config.lanes)),
                "step": In(1),
                "shift": In(1),
                "last": In(1),
                "shadow": Out(signed(SUM_BITS)),
            }
        )

    def elaborate(self, platform):
        """Select, tree, accumulator."""
        m = Module()
        terms = [self._term(self.acts[lane], self.digits[lane]) for lane in range(self.config.lanes)]
        carries = [self.digits[lane][1] for lane in range(self.config.lanes)]
        level = 0
        while len(terms) > 1:
            sums = []
            for index in range(0, len(terms), 2):
                carry = delayed(m, carries.pop(), level, name=f"carry_{level}_{index}")
                total = Signal(signed(len(terms[0]) + 1), name=f"sum_{level}_{index}", reset_less=True)
                low, high = (Cat(Const(1, 1), terms[index]).as_signed(), Cat(carry, terms[index + 1]).as_signed())
                m.d.sync += total.eq((low + high) >> 1)
                sums.append(total)
            terms = sums
            level += 1
        carry = delayed(m, carries.pop(), level, name="carry_last")

        acc = Signal(SUM_BITS)
        m.submodules.adder = adder = MuxAdd(SUM_BITS + 1)
        m.d.comb += [
            adder.a.eq(Cat(Const(1, 1), terms[0]).as_signed()),
            adder.c.eq(Cat(carry, acc)),
            adder.d.eq(Cat(carry, Const(0, 2), acc)),
            adder.sel.eq(self.shift),
        ]
        with m.If(self.step):
            m.d.sync += acc.eq(adder.o[1:])
        with m.If(self.last):
            m.d.sync += [acc.eq(0), self.shadow.eq(adder.o[1:])]
        return m

    def _term(self, act, digit):
        """The selected multiple of an activation; the 1 that a negative one lacks is the digit's upper bit."""
        if self.config.digit_set == "ternary":
            return Cat(digit[0] & (act[bit] ^ digit[1]) for bit in range(9)).as_signed()
        return Cat(
            Mux(digit[1], ~Mux(digit[0], upper, lower), digit[0] & upper)
            for upper, lower in zip([*act, act[8]], [Const(0, 1), *act], strict=True)
        ).as_signed()


class ActivationSum(Component):
    """``offset`` times the sum of a row's activations, one cycle behind the row's cells.

    Members
    -------
    acts : In(K x signed(9))
        As in :class:`Cell`, at the same time.
    sum, offset : In(1), In(signed(10))
        With ``step`` of the row's cells: the activations count, ``offset`` times.
    step, last : In(1)
        One cycle after those of the row's cells.
    shadow : Out(signed(32))
        The sum of the last finished tile.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "acts": In(data.ArrayLayout(signed(9), config.lanes)),
                "sum": In(1),
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
            sums = [
                Signal(signed(len(terms[0]) + 1), name=f"sum_{len(terms)}_{index}", reset_less=True) for index in range(len(terms) // 2)
            ]
            m.d.sync += [total.eq(terms[2 * index] + terms[2 * index + 1]) for index, total in enumerate(sums)]
            terms = sums
        product = Signal(signed(10 + len(terms[0])))
        m.d.sync += product.eq(Mux(self.sum, terms[0] * self.offset, 0))
        acc = Signal(signed(SUM_BITS))
        total = Signal(signed(SUM_BITS))
        m.d.comb += total.eq(acc + product)
        with m.If(self.step):
            m.d.sync += acc.eq(total)
        with m.If(self.last):
            m.d.sync += [acc.eq(0), self.shadow.eq(total)]
        return m
