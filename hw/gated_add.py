"""The sum of two unsigned operands, each of which may be left out, in one LUT a bit where the FPGA's carry cell allows it.

Yosys maps ``(a if with_a else 0) + (b if with_b else 0)`` to two LUTs and a carry cell a bit. With A = a, B = with_a, C = b,
D = with_b the LUT4 in front of an ECP5 carry bit has the propagate term (A & B) ^ (C & D), and its generate term, the same LUT with
C = D = 0, is A & B: right wherever both addends are equal.
"""

from amaranth.hdl import Cat, Module, Mux, unsigned
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.carry_chain import carry_chain
from tercel.hw.mux_add import fpga_family

_INIT = sum((((index & 1) & (index >> 1 & 1)) ^ ((index >> 2 & 1) & (index >> 3))) << index for index in range(16))
"""LUT4 contents: bit (D, C, B, A) holds (A & B) ^ (C & D)."""


class GatedAdd(Component):
    """``o = (a if with_a else 0) + (b if with_b else 0)``; combinational.

    Parameters
    ----------
    width
        Bits of the operands.

    Members
    -------
    a, b : In(width)
        The operands.
    with_a, with_b : In(1)
        Whether they count.
    o : Out(width + 1)
        The sum.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__({"a": In(width), "b": In(width), "with_a": In(1), "with_b": In(1), "o": Out(unsigned(width + 1))})

    def elaborate(self, platform):
        """Carry cells on an ECP5, an expression elsewhere."""
        m = Module()
        if fpga_family(platform) != "ecp5":
            m.d.comb += self.o.eq(Mux(self.with_a, self.a, 0) + Mux(self.with_b, self.b, 0))
            return m
        a, b = (Cat(operand, 0) for operand in (self.a, self.b))
        carry_chain(m, init=_INIT, a=a, b=self.with_a, c=b, d=[self.with_b] * (self.width + 1), o=self.o)
        return m
