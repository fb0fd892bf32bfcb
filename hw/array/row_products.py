"""From a row's biased sums to the products that are shifted: four multipliers a row serve both kinds of slot.

::

    multiplier        0               1               2, 3
    narrow slot       v * M, lane 0   v * M, lane 1   v * M, lanes 2, 3 (and one for each further lane)
    wide slot         low v * M       high v * M      d * low factor, d * high factor

d is the residual code less its zero point. A machine with fewer lanes has multipliers of its own for the products that no lane lends.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.cell import SUM_BITS
from tercel.hw.array.row_sums import NARROW_BITS
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.mux_add import MuxAdd
from tercel.hw.scale import as_factor

PRODUCTS = 4
"""Of a wide slot."""

CHUNK_BITS = 17
"""Of the low factor and of the low part of a wide sum: what a signed DSP multiplies besides a sign."""

COARSE = 16
"""Bits by which the product of the residual is shifted where its shift is that or more; the factor has the rest."""

RESIDUAL_BITS = 42
"""Of difference * factor: 10 and 33 signed bits."""

WIDE_BITS = 59
"""Of a wide slot's product: |v*M| < 2**48, |residual| < 2**57, both doubled."""

WIDE_LATENCY = 4
"""Cycles from ``wide`` to its product."""


def narrow_latency(lane: int) -> int:
    """Cycles from the sum of a lane other than 0 to its product."""
    return 2 if lane == 1 else 1


def factors_layout(config: Config) -> data.ArrayLayout:
    """The right operand of each multiplier."""
    return data.ArrayLayout(unsigned(CHUNK_BITS), max(PRODUCTS, config.drain_lanes))


class RowProducts(Component):
    """The products of a slot.

    Members
    -------
    wide : In(signed(32)), narrow_sums : In(J x signed(18))
        As :class:`RowSums` gives them.
    difference : In(signed(10))
        Residual code less its zero point, with ``wide``.
    factors : In(factors_layout)
        0 and 1 a cycle after the sums, 2 and above with them in narrow slots, and in wide ones a cycle later.
    coarse : In(1)
        Three cycles after ``wide``: shift the residual by ``COARSE``.
    narrow, residual : In(1)
        The kind of slot, and whether there is a residual; hold while slots of their instruction are on the way.
    product : Out(signed(59))
        Of lane 0, ``WIDE_LATENCY`` cycles after ``wide``.
    narrow_products : Out(J x signed)
        Of the others; see :func:`narrow_latency`.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "wide": In(signed(SUM_BITS)),
                "narrow_sums": In(data.ArrayLayout(signed(NARROW_BITS), config.drain_lanes)),
                "difference": In(signed(10)),
                "factors": In(factors_layout(config)),
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
        left = [Signal(signed(NARROW_BITS), name=f"left_{index}", reset_less=True) for index in range(2)]
        high_part = self.wide[CHUNK_BITS:].as_signed()
        m.d.sync += [
            left[0].eq(Cat(self.wide[:CHUNK_BITS], self.wide[CHUNK_BITS] & self.narrow)),
            left[1].eq(Mux(self.narrow, self.narrow_sums[1], high_part) if lanes > 1 else high_part),
        ]
        left += [self.narrow_sums[lane] for lane in range(2, lanes)]
        if len(left) < PRODUCTS:
            left += [delayed(m, self.difference, 1, name="difference")] * (PRODUCTS - len(left))
        products = []
        for index, value in enumerate(left):
            product = Signal(signed(len(value) + CHUNK_BITS), name=f"product_{index}", reset_less=True)
            m.d.sync += product.eq(value * as_factor(self.factors[index]))
            products.append(product)
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
        added = Signal(signed(RESIDUAL_BITS))
        with m.If(self.residual):
            m.d.sync += added.eq(Cat(products[2][:CHUNK_BITS], (products[3] + (products[2] >> CHUNK_BITS))[: RESIDUAL_BITS - CHUNK_BITS]))
        with m.Else():
            m.d.sync += added.eq(0)
        m.submodules.add_residual = add_residual = MuxAdd(WIDE_BITS)
        m.d.comb += [
            add_residual.a.eq(scaled),
            add_residual.c.eq(added),
            add_residual.d.eq(added << COARSE),
            add_residual.sel.eq(self.coarse),
        ]
        m.d.sync += self.product.eq(add_residual.o)
        return m


def narrow_product_bits(config: Config) -> int:
    """Of v * 2*M."""
    return NARROW_BITS + config.multiplier_bits + 1
