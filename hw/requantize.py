"""From a sum to an output code: bias, multiplication, residual, rounding shift, clamp or thresholds.

::

    cycle   0          1         2            3         4         5            6, 7            8          9        10
    acc -> <<gain -> + asum -> (vlo, vhi) -> *M ----> add ------------------> shift right -> + z_out -> (int16) -> compare -> y
    r   -> - z_res -> * factor -> (3 parts) ---> add ---> add to product --->   saturate

The product is one DSP in an 18-bit lane and two in a 32-bit one; a residual takes three more. Shifting right by e - 1, adding 1 and
dropping a bit rounds half up. The shifter keeps only as many bits as a saturated result needs and notes whether
the bits it drops say more than the sign.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.mux_add import MuxAdd
from tercel.hw.scale import Scale, scale_layout

FACTOR_BITS = 47
"""R * 2**31 fits."""


def requantizer_latency(*, sum_bits: int, residual: bool, thresholds: bool) -> int:
    """Cycles from the operands to ``y``: 7 for 18 bits, 1 more for 32, residual and thresholds each."""
    return 7 + (sum_bits == 32) + residual + thresholds


class ScaledRequantizer(Component):
    """One result a cycle, ``latency`` cycles after its operands; no handshake, nothing to stall.

    Members marked *static* belong to an instruction: they hold their value while results of it are on the way.

    Parameters
    ----------
    sum_bits
        18: sums are taken modulo 2**18 (as if ``narrow`` were set). 32: modulo 2**32, or 2**18 where ``narrow`` is set.
    residual
        Add ``(r - z_res) * factor``. Only with 32 bits.
    thresholds
        Count thresholds instead of clamping, on request. Only with 32 bits.

    Members
    -------
    acc, asum, bias : In(signed(sum_bits))
        v = (acc << gain) + bias + asum.
    gain : In(1), static
    narrow : In(1), static; only with 32 bits
    scale : In(scale_layout)
        Multiplier and shift.
    r : In(signed(9)); residual_enable : In(1)
        With ``residual``: the code, and whether to add it.
    factor : In(48)
        With ``residual``: ``R << min(k + s, 31)``, doubled if e is even; a cycle after the other operands.
    z_res : In(signed(9)), static; only with ``residual``
    z_out, lo, hi : In(signed(9)), static
    threshold : In(signed(16)); count_first : In(1); count_enable : In(1), static
        With ``thresholds``: with ``count_enable`` the result is the number of slots, since that with ``count_first``, whose p is
        greater than ``threshold``. Without ``count_enable``, ``threshold`` must be ``hi``: there is one comparator.
    y : Out(8)
        The low 8 bits of the output code.
    """

    def __init__(self, config: Config, *, sum_bits: int, residual: bool, thresholds: bool):
        if sum_bits not in (18, 32):
            raise ValueError(f"sum_bits must be 18 or 32, not {sum_bits!r} (a DSP multiplies 18 bits)")
        if sum_bits == 18 and (residual or thresholds):
            raise ValueError("sum_bits must be 32, not 18, with residual or thresholds (narrow results have neither)")
        self.config = config
        self.sum_bits = sum_bits
        self.residual = residual
        self.thresholds = thresholds
        members = {
            "acc": In(signed(sum_bits)),
            "asum": In(signed(sum_bits)),
            "bias": In(signed(sum_bits)),
            "gain": In(1),
            "scale": In(scale_layout(config, sum_bits=sum_bits)),
            "z_out": In(signed(9)),
            "lo": In(signed(9)),
            "hi": In(signed(9)),
            "y": Out(8),
        }
        if sum_bits == 32:
            members |= {"narrow": In(1)}
        if residual:
            members |= {"r": In(signed(9)), "factor": In(FACTOR_BITS + 1), "residual_enable": In(1), "z_res": In(signed(9))}
        if thresholds:
            members |= {"threshold": In(signed(16)), "count_enable": In(1), "count_first": In(1)}
        super().__init__(members)

    @property
    def latency(self) -> int:
        """See :func:`requantizer_latency`."""
        return requantizer_latency(sum_bits=self.sum_bits, residual=self.residual, thresholds=self.thresholds)

    @property
    def _shift_cycle(self) -> int:
        """Cycle in which the shifter sees the product."""
        return self.latency - 4 - self.thresholds

    def elaborate(self, platform):
        """Sum, product, residual, shift, clamp, one after the other."""
        m = Module()
        product = self._product(m, self._sum(m))
        kept, over = self._shift(m, product)
        self._clamp(m, kept, over, delayed(m, product[-1], 3, name="negative"))
        return m

    def _sum(self, m: Module) -> Signal:
        """The biased sum v, valid in cycle 2."""
        m.submodules.biased = biased = MuxAdd(self.sum_bits)
        m.d.comb += [biased.a.eq(self.bias), biased.c.eq(self.acc), biased.d.eq(self.acc << 1), biased.sel.eq(self.gain)]
        partial = Signal(self.sum_bits, reset_less=True)
        total = Signal(self.sum_bits)
        v = Signal(signed(self.sum_bits), reset_less=True)
        m.d.sync += [partial.eq(biased.o), v.eq(total)]
        m.d.comb += total.eq(partial + delayed(m, self.asum, 1, name="asum"))
        if self.sum_bits == 32:
            with m.If(self.narrow):
                m.d.sync += v.eq(total[:18].as_signed())
        return v

    def _product(self, m: Module, v: Signal) -> Signal:
        """The product v*M, residual added, valid in the cycle of the shifter."""
        bits = self.config.multiplier_bits + 1
        multiplier = _signed(delayed(m, self.scale.multiplier, 2, name="multiplier"))
        if self.sum_bits == 18:
            product = Signal(signed(18 + bits), reset_less=True)
            m.d.sync += product.eq(v * multiplier)
            return product
        low = Signal(unsigned(17 + bits), reset_less=True)
        high = Signal(signed(15 + bits), reset_less=True)
        m.d.sync += [low.eq(_signed(v[:17]) * multiplier), high.eq(v[17:].as_signed() * multiplier)]
        if not self.residual:
            product = Signal(signed(32 + bits), reset_less=True)
            m.d.sync += product.eq(Cat(low[:17], (high + low[17:])[: 15 + bits]))
            return product
        # The partial products of the residual have the weights 1, 2**17 and 2**34; those of the sum 1 and 2**17.
        difference = Signal(signed(10))
        with m.If(self.residual_enable):
            m.d.sync += difference.eq(self.r - self.z_res)
        with m.Else():
            m.d.sync += difference.eq(0)
        factors = [self.factor[low : low + 17] for low in (0, 17, 34)]
        parts = [Signal(signed(10 + len(factor)), name=f"part_{index}", reset_less=True) for index, factor in enumerate(factors)]
        m.d.sync += [part.eq(difference * _signed(factor)) for part, factor in zip(parts, factors, strict=True)]
        upper = Signal(signed(41), reset_less=True)
        m.d.sync += upper.eq(Cat(parts[1][:17], (parts[2] + (parts[1] >> 17))[:24]))
        low_sum = Signal(signed(19 + bits), reset_less=True)
        high_sum = Signal(signed(42), reset_less=True)
        m.d.sync += [low_sum.eq(low + delayed(m, parts[0], 1, name="part_0")), high_sum.eq(high + upper)]
        product = Signal(signed(59), reset_less=True)  # |v*M| < 2**48, |residual| < 2**57
        m.d.sync += product.eq(Cat(low_sum[:17], ((low_sum >> 17) + high_sum)[:42]))
        return product

    def _shift(self, m: Module, product: Signal) -> tuple[Signal, Signal]:
        """Product shifted right and cut to the bits a result can need; whether the cut changed it. Two cycles."""
        kept_bits = 18 if self.thresholds else 11
        scale = delayed(m, self.scale, self._shift_cycle, name="scale")
        late = delayed(m, scale, 1, name="scale_late")
        value, over = product, 0
        for level in (3, 2) if self.sum_bits == 18 else (4, 3, 2):
            value, cut = _shift_level(m, value, scale.shift[level], step=2 << level, keep=kept_bits + (2 << level) - 2)
            flags = Signal(len(cut), name=f"cut_{level}", reset_less=True)
            m.d.sync += flags.eq(cut)
            over |= ~late.shift[level] & flags.any()
        coarse = Signal(signed(len(value)), reset_less=True)
        m.d.sync += coarse.eq(value)
        value = coarse
        for level in (1, 0):
            value, cut = _shift_level(m, value, late.shift[level], step=2 << level, keep=kept_bits + (2 << level) - 2)
            over |= ~late.shift[level] & cut.any()
        kept = Signal(signed(kept_bits))
        kept_over = Signal(reset_less=True)
        m.d.sync += [kept.eq(value), kept_over.eq(over)]
        if self.sum_bits == 18:
            # Behind the 30 shifts there are 5 bits.
            with m.If(late.more):
                m.d.sync += kept[:4].eq(value[2:6])
            with m.If(late.nothing):
                m.d.sync += kept.eq(0)
        return kept, kept_over

    def _clamp(self, m: Module, kept: Signal, over: Signal, negative: Signal) -> None:
        """Rounding bit and zero point in one addition, then the comparisons."""
        p = Signal(signed(len(kept)), reset_less=True)
        m.d.sync += p.eq((kept + Cat(Const(1, 1), self.z_out).as_signed()) >> 1)
        over = delayed(m, over, 1, name="over")
        if not self.thresholds:
            above = Mux(over, ~negative, (self.hi - p)[-1])
            below = over | (p - self.lo)[-1]
            m.d.sync += self.y.eq(Mux(above, self.hi, Mux(below, self.lo, p)))
            return
        saturated = Signal(signed(16), reset_less=True)
        outside = over | (p[15:] != p[-1].replicate(len(p) - 15))
        below = Mux(over, negative, p[-1])
        m.d.sync += saturated.eq(Mux(outside, Cat((~below).replicate(15), below), p).as_signed())
        threshold = delayed(m, self.threshold, self.latency - 1, name="threshold")
        first = delayed(m, self.count_first, self.latency - 1, name="first")
        greater = Signal()
        count = Signal(4)
        clamped = Signal(8)
        m.d.comb += [greater.eq((threshold - saturated)[-1]), self.y.eq(clamped | count)]
        with m.If(self.count_enable):
            m.d.sync += [count.eq(Mux(first, 0, count) + greater), clamped.eq(0)]
        with m.Else():
            m.d.sync += [count.eq(0), clamped.eq(Mux(greater, self.hi, Mux((saturated - self.lo)[-1], self.lo, saturated)))]


def _signed(value: Value) -> Value:
    """An unsigned value as a signed one of one bit more: what a signed DSP multiplies."""
    return Cat(value, Const(0, 1)).as_signed()


def _shift_level(m: Module, value: Value, select: Value, *, step: int, keep: int) -> tuple[Signal, Value]:
    """The low ``keep`` bits of ``value``, shifted right by ``step`` if ``select``; flags that the bits cut off otherwise are not sign.

    One flag for three bits, a LUT4 each. A shifted value has no more than ``keep`` bits.
    """
    shifted = Signal(signed(min(keep, len(value))), name=f"shift_{step}")
    m.d.comb += shifted.eq(Mux(select, value >> step, value))
    above = [value[low : low + 4] for low in range(keep - 1, len(value) - 1, 3)]
    return shifted, Cat(bits.any() & ~bits.all() for bits in above)


class Requantizer(Component):
    """A :class:`ScaledRequantizer` with plain operands.

    Members as there, but for

    Members
    -------
    multiplier : In(multiplier_bits); e : In(6)
        M and the total right shift, 1..63.
    factor : In(47)
        With ``residual``: ``R << min(k + s, 31)``, with the other operands.
    """

    def __init__(self, config: Config, *, sum_bits: int, residual: bool, thresholds: bool):
        self.config = config
        self._scaled = ScaledRequantizer(config, sum_bits=sum_bits, residual=residual, thresholds=thresholds)
        members = dict(self._scaled.signature.members)
        del members["scale"]
        members |= {"multiplier": In(config.multiplier_bits), "e": In(6)}
        if residual:
            members["factor"] = In(FACTOR_BITS)
        super().__init__(members)

    @property
    def latency(self) -> int:
        """As in :class:`ScaledRequantizer`."""
        return self._scaled.latency

    def elaborate(self, platform):
        """Prepares the operands."""
        m = Module()
        m.submodules.scaled = scaled = self._scaled
        m.submodules.scale = scale = Scale(self.config, sum_bits=scaled.sum_bits)
        for name, member in self.signature.members.items():
            if member.flow is In and name not in ("multiplier", "e", "factor"):
                m.d.comb += getattr(scaled, name).eq(getattr(self, name))
        m.d.comb += [scale.multiplier.eq(self.multiplier), scale.e.eq(self.e), scaled.scale.eq(scale.o), self.y.eq(scaled.y)]
        if scaled.residual:
            m.d.sync += scaled.factor.eq(Mux(self.e[0], self.factor, Cat(Const(0, 1), self.factor)))
        return m
