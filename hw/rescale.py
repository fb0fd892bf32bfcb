"""From a product to an output code: rounding shift, zero point, clamp or thresholds.

::

    wide    product -> >> 0, 16, 32, 48 -> >> 0, 4, 8, 12 -+
    narrow  product -> >> 0, 8, 16, 24, >> 0, 4 -----------+-> (>> 0, 2) + z_out - lo -> compare -> + lo -> y

Shifting right by e - 1, adding 1 and dropping a bit rounds half up. The shifters keep only as many bits as a saturated result needs and
note whether the bits they drop say more than the sign. Four-way choices fit two LUTs a bit, and a two-way choice costs nothing in front of
an adder. The lower clamp is subtracted with the zero point, so that a negative number is one below it: a register cleared by the sign.
"""

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.delay import delayed
from tercel.hw.mux_add import MuxAdd
from tercel.hw.scale import shift_layout
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
        18 or 32: the form of ``shift``, see :func:`shift_layout`.
    thresholds
        Count thresholds instead of clamping, on request.

    Members
    -------
    product : In(signed(product_bits))
        2 * v*M + residual, shifted right by what ``shift`` says is rounded half up.
    shift : In(shift_layout)
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

    def __init__(self, *, product_bits: int, sum_bits: int, thresholds: bool = False):
        self.sum_bits = sum_bits
        self.thresholds = thresholds
        members = {
            "product": In(signed(product_bits)),
            "shift": In(shift_layout(sum_bits=sum_bits)),
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
        shift = self.shift.shift
        first = Signal(signed(kept_bits + 14), reset_less=True)
        second = Signal(signed(kept_bits + 2), reset_less=True)
        next_first, cut_first = _shifted(m, self.product, shift[3:5], step=16, keep=len(first), name="first")
        m.d.sync += first.eq(next_first)
        shift_1 = delayed(m, shift[:3], 1, name="shift")
        next_second, cut_second = _shifted(m, first, shift_1[1:3], step=4, keep=len(second), name="second")
        m.d.sync += second.eq(next_second)
        return second, delayed(m, cut_first, 1, name="cut") | cut_second, delayed(m, shift_1[0], 1, name="shift_last")

    def _narrow(self, m: Module, kept_bits: int) -> tuple[Value, Value, Value]:
        """The same; where nothing is left of the product, it is cleared."""
        shift = self.shift.shift
        value = Signal(signed(kept_bits + 2), reset_less=True)
        coarse, cut_coarse = _shifted(m, self.product, shift[2:4], step=8, keep=kept_bits + 6, name="coarse")
        fine = Signal(signed(kept_bits + 2))
        m.d.comb += fine.eq(Mux(shift[1], coarse >> 4, coarse))
        cut_fine = Signal(reset_less=True)
        m.d.sync += [cut_fine.eq(~shift[1] & _not_sign(coarse[len(value) - 1 :])), value.eq(fine)]
        # Shifted by 30 instead of 28; the last shift drops the two lowest bits, and from the seventh on both are sign.
        with m.If(self.shift.more):
            m.d.sync += value[2:6].eq(coarse[8:12])
        with m.If(self.shift.nothing):
            m.d.sync += value.eq(0)
        return value, cut_coarse | cut_fine, delayed(m, shift[0], 1, name="shift_last")


def _shifted(m: Module, value: Value, select: Value, *, step: int, keep: int, name: str) -> tuple[Value, Value]:
    """The low ``keep`` bits of ``value`` shifted right by ``select`` (0..3) times ``step``.

    Also, a cycle later, whether the bits above those are more than sign.
    """
    m.submodules[f"shift_{name}"] = choice = WideMux(width=keep, count=4)
    m.d.comb += [choice.sel.eq(select), *(choice.inputs[index].eq(value >> step * index) for index in range(4))]
    edges = [min(step * index + keep, len(value)) - 1 for index in range(4)] + [len(value) - 1]
    flags = Signal(4, name=f"cut_{name}", reset_less=True)
    m.d.sync += flags.eq(Cat(_not_sign(value[low : high + 1]) for low, high in pairwise(edges)))
    late = delayed(m, select, 1, name=f"select_{name}")
    masks = [late == 0, late < 2, late < 3, Const(1, 1)]
    return choice.o.as_signed(), Cat(flag & mask for flag, mask in zip(flags, masks, strict=True)).any()


def _not_sign(bits: Value) -> Value:
    """Whether the bits are not all the same; a LUT4 for each three."""
    pieces = [bits[low : low + 4] for low in range(0, len(bits) - 1, 3)]
    return Cat(piece.any() & ~piece.all() for piece in pieces).any()
