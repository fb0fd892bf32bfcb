"""An adder that can be loaded, in one LUT a bit where the FPGA's carry cell allows it.

Yosys maps ``Mux(load, value, a + b)`` to a carry chain and a LUT for the multiplexer. With A = a, B = load, C = value, D = b the LUT4 in
front of an ECP5 carry bit (CCU2C, Lattice TN-02205) holds B ? C : A ^ D. Its generate term, the same LUT with C = D = 0, is a without
``load``, right wherever a = b, and 0 with it, so that no carry disturbs the value.
"""

from amaranth.hdl import Module, Mux
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.carry_chain import carry_chain
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
        carry_chain(m, init=_INIT, a=self.a, b=self.load, c=self.value, d=self.b, o=self.o)
        return m
