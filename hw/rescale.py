"""From a product to an output code: rounding shift, zero point, clamp or thresholds.

::

    wide    product -> >> 8, 16, 24, 32 -> >> 0, 4 -+
    narrow  product -> >> 16, 20, 24, 28 -----------+-> (>> 0, 2) + z_out - lo -> compare -> + lo -> y

The first shifts are those for a multiplier of 16 bits; see :func:`~tercel.hw.config.exponents`.
Shifting right by e - 1, adding 1 and dropping a bit rounds half up. The shifters keep only as many bits as a saturated result needs and
note whether the bits they drop say more than the sign. Four-way choices fit two LUTs a bit, and a two-way choice costs nothing in front of
an adder. The lower clamp is subtracted with the zero point, so that a negative number is one below it: a register cleared by the sign.
"""

from collections.abc import Sequence
from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import exponents
from tercel.hw.delay import delayed
from tercel.hw.mux_add import MuxAdd
from tercel.hw.scale import shift_shape
from tercel.hw.wide_mux import WideMux

CLAMP_LAYOUT = data.StructLayout({"zero": signed(10), "span": unsigned(9), "low": unsigned(8)})
"""Zero point and clamp of an instruction: z_out - lo, hi - lo and lo; to count thresholds z_out, 1 and 0."""


def clamp_of(*, z_out: Value, lo: Value, hi: Value) -> Value:
    """A :data:`CLAMP_LAYOUT` of three 9-bit fields, ``lo`` <= ``hi``; two subtractions deep."""
    return Cat((z_out - lo)[:10], (hi - lo)[:9], lo[:8])


def rescale_latency(*, sum_bits: int) -> int:
    """Cycles from the product to ``y``: 4 for narrow sums, 5 for wide ones."""
    return 4 + (sum_bits == 32)


class Rescale(Component):
    """One code a cycle, ``rescale_latency`` cycles after its product.

    Parameters
    ----------
    product_bits
        Width of the product.
    sum_bits
        18 or 32: the form of ``shift``, see :func:`shift_shape`.
    multiplier_bits
        Of M: which shifts there are.
    thresholds
        Count thresholds instead of clamping, on request.

    Members
    -------
    product : In(signed(product_bits))
        2 * v*M + residual, shifted right by what ``shift`` says is rounded half up.
    shift : In(shift_shape)
        With ``product``.
    clamp : In(CLAMP_LAYOUT)
        Holds while results of its instruction are on the way.
    limit : In(signed(16)), never : In(1), more : In(1), counting : In(1)
        With ``thresholds``, ``rescale_latency`` - 2 cycles after ``product``, but for ``counting``, which holds like ``clamp``. With
        ``counting``, 1 is added to ``y`` (to 0 without ``more``) if p is greater than ``limit``; ``never`` must be set for 32767, which
        no p exceeds. Without it, ``limit`` must be the clamp's span.
    y : Out(8)
        The low 8 bits of the output code.
    """

    def __init__(self, *, product_bits: int, sum_bits: int, multiplier_bits: int, thresholds: bool = False):
        self.sum_bits = sum_bits
        self.multiplier_bits = multiplier_bits
        self.thresholds = thresholds
        members = {
            "product": In(signed(product_bits)),
            "shift": In(shift_shape(sum_bits=sum_bits)),
            "clamp": In(CLAMP_LAYOUT),
            "y": Out(8),
        }
        if thresholds:
            members |= {"limit": In(signed(16)), "never": In(1), "more": In(1), "counting": In(1)}
        super().__init__(members)

    def elaborate(self, platform):
        """Shift, add, compare, add: a register behind each."""
        m = Module()
        kept_bits = 18 if self.thresholds else 11
        if self.sum_bits == 32:
            value, cut, late = self._wide(m, kept_bits)
        else:
            value, cut, late = self._narrow(m, kept_bits)

        # The last shift and the addition.
        m.submodules.add_zero = add_zero = MuxAdd(kept_bits + 1)
        u = Signal(signed(kept_bits), reset_less=True)
        over = Signal(reset_less=True)
        negative = delayed(m, self.product[-1], rescale_latency(sum_bits=self.sum_bits) - 2, name="negative")
        m.d.comb += [
            add_zero.a.eq(Cat(Const(1, 1), self.clamp.zero).as_signed()),
            add_zero.c.eq(value[:kept_bits].as_signed()),
            add_zero.d.eq(value >> 2),
            add_zero.sel.eq(late),
        ]
        m.d.sync += [
            u.eq(add_zero.o[1:]),
            over.eq(cut | (~late & _not_sign(value[kept_bits - 1 :]))),
        ]

        # The comparisons.
        above, kept = Signal(reset_less=True), Signal(8, reset_less=True)
        below = Mux(over, negative, u[-1])
        if self.thresholds:
            greater = (self.limit - u)[-1]
            m.d.sync += above.eq(~self.never & Mux(over, ~negative, greater))
            below |= self.counting
        else:
            borrow = (self.clamp.span - u[:9])[9]
            m.d.sync += above.eq(Mux(over, ~negative, ~u[10] & (u[9] | borrow)))
        with m.If(below):
            m.d.sync += kept.eq(0)
        with m.Else():
            m.d.sync += kept.eq(u[:8])

        m.submodules.add_low = add_low = MuxAdd(8)
        m.d.comb += [
            add_low.a.eq(self.clamp.low),
            add_low.c.eq(kept),
            add_low.d.eq(self.clamp.span),
            add_low.sel.eq(above),
        ]
        if self.thresholds:
            more = delayed(m, self.more, 1, name="more")
            m.d.comb += add_low.a.eq(Cat(self.clamp.low[:4] | (self.y[:4] & more.replicate(4)), self.clamp.low[4:]))
        m.d.comb += self.y.eq(delayed(m, add_low.o, 1, name="y"))
        return m

    def _wide(self, m: Module, kept_bits: int) -> tuple[Value, Value, Value]:
        """The shifted product but for the last shift by 0 or 2, whether what was cut is more than sign, and the last shift's select."""
        first = Signal(signed(kept_bits + 6), reset_less=True)
        second = Signal(signed(kept_bits + 2), reset_less=True)
        next_first, cut_first = self._first_shift(m, self.shift[2:4], step=8, keep=len(first))
        m.d.sync += first.eq(next_first)
        by_4, by_2 = (delayed(m, self.shift[bit], 1, name=f"shift_{bit}") for bit in (1, 0))
        cut_second = Signal(reset_less=True)
        m.d.sync += [second.eq(Mux(by_4, first >> 4, first)), cut_second.eq(~by_4 & _not_sign(first[len(second) - 1 :]))]
        return second, delayed(m, cut_first, 1, name="cut") | cut_second, delayed(m, by_2, 1, name="shift_last")

    def _narrow(self, m: Module, kept_bits: int) -> tuple[Value, Value, Value]:
        """The same."""
        value = Signal(signed(kept_bits + 2), reset_less=True)
        shifted, cut = self._first_shift(m, self.shift[1:3], step=4, keep=len(value))
        m.d.sync += value.eq(shifted)
        return value, cut, delayed(m, self.shift[0], 1, name="shift_last")

    def _first_shift(self, m: Module, select: Value, *, step: int, keep: int) -> tuple[Value, Value]:
        """The product shifted right by the multiple of ``step`` among the exponents that ``select`` is part of; see :func:`_shifted`."""
        choices = exponents(self.multiplier_bits, narrow=self.sum_bits == 18)[::step]
        return _shifted(m, self.product, select, amounts=sorted(choices, key=lambda amount: amount // step % 4), keep=keep)


def _shifted(m: Module, value: Value, select: Value, *, amounts: Sequence[int], keep: int) -> tuple[Value, Value]:
    """The low ``keep`` bits of ``value`` shifted right by one of four ``amounts``.

    Also, a cycle later, whether the bits above those are more than sign.
    """
    m.submodules.shift_first = choice = WideMux(width=keep, count=4)
    m.d.comb += [choice.sel.eq(select), *(choice.inputs[index].eq(value >> amount) for index, amount in enumerate(amounts))]
    # What lies above what the least shift keeps, in pieces; each next shift keeps one of them.
    ascending = sorted(amounts)
    edges = [min(amount + keep, len(value)) - 1 for amount in ascending] + [len(value) - 1]
    flags = Signal(4, name="cut_first", reset_less=True)
    m.d.sync += flags.eq(Cat(_not_sign(value[low : high + 1]) for low, high in pairwise(edges)))
    late = delayed(m, select, 1, name="select_first")
    masks = [Cat(late == index for index, amount in enumerate(amounts) if amount <= piece).any() for piece in ascending]
    return choice.o.as_signed(), Cat(flag & mask for flag, mask in zip(flags, masks, strict=True)).any()


def _not_sign(bits: Value) -> Value:
    """Whether the bits are not all the same; a LUT4 for each three."""
    pieces = [bits[low : low + 4] for low in range(0, len(bits) - 1, 3)]
    return Cat(piece.any() & ~piece.all() for piece in pieces).any()
