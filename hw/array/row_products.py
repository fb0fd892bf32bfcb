"""From a row's biased sums to the products that are shifted: the same multipliers serve both kinds of slot.

::

    multiplier        0               1               2, 3
    narrow slot       v * M, lane 0   v * M, lane 1   v * M, lanes 2, 3 (and one for each further lane)
    wide slot         low v * M       high v * M      d * low factor, d * high factor

d is the residual code less its zero point. A machine with fewer than four lanes would need multipliers of its own for d: it has one, for d
times the unshifted factor, and shifts the product.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.cell import SUM_BITS
from tercel.hw.config import NARROW_BITS, Config
from tercel.hw.delay import delayed
from tercel.hw.mux_add import MuxAdd
from tercel.hw.product import Product
from tercel.hw.scale import as_factor
from tercel.hw.wide_mux import WideMux

NARROW_LATENCY = Product.LATENCY
"""Cycles from a narrow sum to its product."""

PRODUCTS = 4
"""Of a wide slot where the factor of the residual is shifted."""

CHUNK_BITS = 17
"""Of the low factor and of the low part of a wide sum: what a signed DSP multiplies besides a sign."""

COARSE = 16
"""Bits by which the product of the residual is shifted where its shift is that or more; the factor has the rest."""

RESIDUAL_BITS = 41
"""Of difference * factor: |difference| < 2**8, factor < 2**32."""

WIDE_BITS = 58
"""Of a wide slot's product: |v*M| < 2**48, |residual| < 2**56, both doubled."""


def shifts_product(config: Config) -> bool:
    """Whether the residual's product is shifted, not its factor: lanes too few to lend it two multipliers."""
    return config.drain_lanes < PRODUCTS


def wide_latency(config: Config) -> int:
    """Cycles from ``wide`` to its product; the factor's shift takes one of them."""
    return 4 if shifts_product(config) else 5


def factors_layout(config: Config) -> data.ArrayLayout:
    """The right operand of each multiplier."""
    return data.ArrayLayout(unsigned(CHUNK_BITS), 3 if shifts_product(config) else config.drain_lanes)


class RowProducts(Component):
    """The products of a slot.

    Members
    -------
    wide : In(signed(32)), narrow_sums : In(J x signed(18))
        As :class:`RowSums` gives them.
    difference : In(signed(9))
        Residual code less its zero point, with ``wide``.
    factors : In(factors_layout)
        With the sums; those of lanes 2 and above a cycle later in wide slots.
    amount : In(4)
        Where the product is shifted, two cycles after ``wide``: by how much.
    coarse : In(1)
        A cycle before ``product``: shift the residual by ``COARSE``.
    narrow, residual : In(1)
        The kind of slot, and whether there is a residual; hold while slots of their instruction are on the way.
    product : Out(signed(58))
        Of lane 0, :func:`wide_latency` cycles after ``wide``.
    narrow_products : Out(J x signed)
        Of the others, ``NARROW_LATENCY`` cycles after their sums.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "wide": In(signed(SUM_BITS)),
                "narrow_sums": In(data.ArrayLayout(signed(NARROW_BITS), config.drain_lanes)),
                "difference": In(signed(9)),
                "factors": In(factors_layout(config)),
                "amount": In(4),
                "coarse": In(1),
                "narrow": In(1),
                "residual": In(1),
                "product": Out(signed(WIDE_BITS)),
                "narrow_products": Out(data.ArrayLayout(signed(narrow_product_bits(config)), config.drain_lanes)),
            }
        )

    def elaborate(self, platform):
        """Multipliers, then the parts of a wide product."""
        m = Module()
        lanes = self.config.drain_lanes
        low_part = Cat(self.wide[:CHUNK_BITS], self.wide[CHUNK_BITS] & self.narrow).as_signed()
        high_part = self.wide[CHUNK_BITS:].as_signed()
        left = [low_part, Mux(self.narrow, self.narrow_sums[1], high_part) if lanes > 1 else high_part]
        # In wide slots the operands from here on come a cycle later, unless the product is shifted.
        left += [self.difference] if shifts_product(self.config) else [self.narrow_sums[lane] for lane in range(2, lanes)]
        products = []
        for index, value in enumerate(left):
            m.submodules[f"product_{index}"] = product = Product(a_bits=len(value), b_bits=CHUNK_BITS + 1)
            m.d.comb += [product.a.eq(value), product.b.eq(as_factor(self.factors[index]))]
            products.append(product.o)
        m.d.comb += [self.narrow_products[lane].eq(products[lane]) for lane in range(1, lanes)]

        low, high = products[:2]
        m.submodules.add_high = add_high = MuxAdd(SUM_BITS)
        scaled = Signal(signed(SUM_BITS + CHUNK_BITS), reset_less=True)
        m.d.comb += [
            add_high.a.eq(low >> CHUNK_BITS),
            add_high.c.eq(0),
            add_high.d.eq(high),
            add_high.sel.eq(~self.narrow),
        ]
        m.d.sync += scaled.eq(Cat(low[:CHUNK_BITS], add_high.o))
        added = Signal(signed(RESIDUAL_BITS), reset_less=True)
        with m.If(self.residual):
            if shifts_product(self.config):
                m.d.sync += added.eq(shifted_left(m, products[2], self.amount, width=RESIDUAL_BITS, name="residual"))
            else:
                high_sum = (products[3] + (products[2] >> CHUNK_BITS))[: RESIDUAL_BITS - CHUNK_BITS]
                m.d.sync += added.eq(Cat(products[2][:CHUNK_BITS], high_sum))
        with m.Else():
            m.d.sync += added.eq(0)
        m.submodules.add_residual = add_residual = MuxAdd(WIDE_BITS)
        m.d.comb += [
            add_residual.a.eq(delayed(m, scaled, wide_latency(self.config) - 4, name="scaled")),
            add_residual.c.eq(added),
            add_residual.d.eq(added << COARSE),
            add_residual.sel.eq(self.coarse),
        ]
        m.d.comb += self.product.eq(delayed(m, add_residual.o.as_signed(), 1, name="product"))
        return m


def shifted_left(m: Module, value: Value, amount: Value, *, width: int, name: str) -> Value:
    """``value`` shifted left by ``amount`` (0..15), modulo ``2**width``; in its signedness."""
    bits = min(width, len(value) + 3)
    m.submodules[f"shift_{name}_1"] = fine = WideMux(width=bits, count=4)
    m.submodules[f"shift_{name}_4"] = coarse = WideMux(width=width, count=4)
    m.d.comb += [fine.sel.eq(amount[:2]), coarse.sel.eq(amount[2:])]
    between = fine.o.as_signed() if value.shape().signed else fine.o
    for index in range(4):
        m.d.comb += [fine.inputs[index].eq(value << index), coarse.inputs[index].eq(between << 4 * index)]
    return coarse.o.as_signed() if value.shape().signed else coarse.o


def narrow_product_bits(config: Config) -> int:
    """Of v * 2*M."""
    return NARROW_BITS + config.multiplier_bits + 1
