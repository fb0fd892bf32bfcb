"""From a 32-bit sum to an output code: multiplication, rounding shift, clamp.

::

    cycle   0                 1        2        3 .. 7
    v -> (low, high) -> * M -----> add ---> Rescale -> y

The product takes two DSPs: of the low 17 bits of the sum, and of the high 15.
"""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.product import Product
from tercel.hw.rescale import CLAMP_LAYOUT, Rescale, rescale_latency
from tercel.hw.scale import Scale, as_factor

LATENCY = 3 + rescale_latency(sum_bits=32)
"""Cycles from the operands to ``y``."""


class Requantizer(Component):
    """One result a cycle, ``LATENCY`` cycles after its operands; no handshake, nothing to stall.

    Members
    -------
    v : In(signed(32))
        The sum, with its bias.
    multiplier : In(multiplier_bits); e : In(5)
        M and the total right shift, modulo 32: see :func:`~tercel.hw.config.exponents`.
    clamp : In(CLAMP_LAYOUT)
        Holds while results of its instruction are on the way.
    y : Out(8)
        The low 8 bits of the output code.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "v": In(signed(32)),
                "multiplier": In(config.multiplier_bits),
                "e": In(5),
                "clamp": In(CLAMP_LAYOUT),
                "y": Out(8),
            }
        )

    def elaborate(self, platform):
        """Partial products, product."""
        m = Module()
        bits = self.config.multiplier_bits + 1
        m.submodules.scale = scale = Scale(self.config, sum_bits=32)
        m.d.comb += [scale.multiplier.eq(self.multiplier), scale.e.eq(self.e)]
        parts = []
        for name, part in (("low", as_factor(self.v[:17])), ("high", self.v[17:].as_signed())):
            m.submodules[name] = multiply = Product(a_bits=len(part), b_bits=bits + 1)
            m.d.comb += [multiply.a.eq(part), multiply.b.eq(as_factor(scale.o.multiplier))]
            parts.append(multiply.o)
        low, high = parts
        product = Signal(signed(32 + bits), reset_less=True)
        m.d.sync += product.eq(Cat(low[:17], (high + (low >> 17))[: 15 + bits]))
        m.submodules.rescale = rescale = Rescale(product_bits=len(product), sum_bits=32, multiplier_bits=self.config.multiplier_bits)
        m.d.comb += [
            rescale.product.eq(product),
            rescale.shift.eq(delayed(m, scale.o.shift, 3, name="shift")),
            rescale.clamp.eq(self.clamp),
            self.y.eq(rescale.y),
        ]
        return m
