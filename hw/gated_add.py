"""The sum of two operands, each of which may be left out, in one LUT a bit where the FPGA's carry cell allows it.

Yosys maps ``(a if with_a else 0) + (b if with_b else 0)`` to two LUTs and a carry cell a bit. With A = a, B = with_a, C = b,
D = with_b the LUT4 in front of an ECP5 carry bit has the propagate term (A & B) ^ (C & D), and its generate term, the same LUT with
C = D = 0, is A & B: right wherever both addends are equal.
"""

from amaranth.hdl import Const, Instance, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out

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
    a, b : In(signed(width))
        The operands.
    with_a, with_b : In(1)
        Whether they count.
    o : Out(signed(width + 1))
        The sum.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__(
            {"a": In(signed(width)), "b": In(signed(width)), "with_a": In(1), "with_b": In(1), "o": Out(signed(width + 1))}
        )

    def elaborate(self, platform):
        """Carry cells on an ECP5, an expression elsewhere."""
        m = Module()
        if fpga_family(platform) != "ecp5":
            m.d.comb += self.o.eq(Mux(self.with_a, self.a, 0) + Mux(self.with_b, self.b, 0))
            return m
        carry = Const(0, 1)
        sign = self.width - 1
        for low in range(0, self.width + 1, 2):
            next_carry = Signal(name=f"carry_{low}")
            first, second = min(low, sign), min(low + 1, sign)
            m.submodules[f"cell_{low}"] = Instance(
                "CCU2C",
                p_INIT0=Const(_INIT, 16),
                p_INIT1=Const(_INIT, 16),
                p_INJECT1_0="NO",
                p_INJECT1_1="NO",
                i_CIN=carry,
                i_A0=self.a[first],
                i_B0=self.with_a,
                i_C0=self.b[first],
                i_D0=self.with_b,
                i_A1=self.a[second],
                i_B1=self.with_a,
                i_C1=self.b[second],
                i_D1=self.with_b,
                o_S0=self.o[low],
                o_S1=self.o[low + 1] if low < self.width else Signal(name="unused_sum"),
                o_COUT=next_carry,
            )
            carry = next_carry
        return m
