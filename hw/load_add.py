"""An adder that can be loaded, in one LUT a bit where the FPGA's carry cell allows it.

Yosys maps ``Mux(load, value, a + b)`` to a carry chain and a LUT for the multiplexer. With A = a, B = load, C = value, D = b the LUT4 in
front of an ECP5 carry bit (CCU2C, Lattice TN-02205) holds B ? C : A ^ D. Its generate term, the same LUT with C = D = 0, is a without
``load``, right wherever a = b, and 0 with it, so that no carry disturbs the value.
"""

from amaranth.hdl import Const, Instance, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.mux_add import fpga_family

_INIT = sum(((index >> 2 if index & 2 else index ^ (index >> 3)) & 1) << index for index in range(16))
"""LUT4 contents: bit (D, C, B, A) holds B ? C : A ^ D."""


class LoadAdd(Component):
    """``o = value if load else a + b`` modulo ``2**width``; combinational.

    Parameters
    ----------
    width
        Bits of all operands and of the result, at least 2.

    Members
    -------
    a, b, value : In(width)
        The operands.
    load : In(1)
        Selects ``value``.
    o : Out(width)
        The result.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__({"a": In(width), "b": In(width), "value": In(width), "load": In(1), "o": Out(width)})

    def elaborate(self, platform):
        """Carry cells on an ECP5, an expression elsewhere."""
        m = Module()
        if fpga_family(platform) != "ecp5":
            m.d.comb += self.o.eq(Mux(self.load, self.value, self.a + self.b))
            return m
        carry = Const(0, 1)
        zero = Const(0, 1)
        for low in range(0, self.width, 2):
            high = low + 1 < self.width
            next_carry = Signal(name=f"carry_{low}")
            m.submodules[f"cell_{low}"] = Instance(
                "CCU2C",
                p_INIT0=Const(_INIT, 16),
                p_INIT1=Const(_INIT, 16),
                p_INJECT1_0="NO",
                p_INJECT1_1="NO",
                i_CIN=carry,
                i_A0=self.a[low],
                i_B0=self.load,
                i_C0=self.value[low],
                i_D0=self.b[low],
                i_A1=self.a[low + 1] if high else zero,
                i_B1=self.load,
                i_C1=self.value[low + 1] if high else zero,
                i_D1=self.b[low + 1] if high else zero,
                o_S0=self.o[low],
                o_S1=self.o[low + 1] if high else Signal(name="unused_sum"),
                o_COUT=next_carry,
            )
            carry = next_carry
        return m
