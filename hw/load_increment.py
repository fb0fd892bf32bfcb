"""An incrementer that can be loaded, in one LUT a bit where the FPGA's carry cell allows it.

Yosys maps ``Mux(load, value, a + 1)`` to a carry chain and a LUT for the multiplexer. In an ECP5 carry cell (CCU2C, Lattice TN-02205)
the multiplexer fits into the LUT4 in front of each carry bit. The cell's generate term is the same LUT with inputs C = D = 0, here ``a``
and not ``load``, and matters only where the LUT gives 0: there it is 0 as well, as an incrementer needs.
"""

from amaranth.hdl import Const, Instance, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.carry_chain import carry_chain
from tercel.hw.mux_add import fpga_family

_INIT = sum((((index >> 2) if index & 2 else index) & 1) << index for index in range(16))
"""LUT4 contents: bit (D, C, B, A) holds B ? C : A."""


class LoadIncrement(Component):
    """``o = value if load else a + 1`` modulo ``2**width``; combinational.

    Parameters
    ----------
    width
        Bits, at least 2.

    Members
    -------
    a, value : In(width)
        The operands.
    load : In(1)
        Selects ``value``.
    o : Out(width)
        The result.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__({"a": In(width), "value": In(width), "load": In(1), "o": Out(width)})

    def elaborate(self, platform):
        """Carry cells on an ECP5, an expression elsewhere."""
        m = Module()
        if fpga_family(platform) != "ecp5":
            m.d.comb += self.o.eq(Mux(self.load, self.value, self.a + 1))
            return m
        one, zero = Const(1, 1), Const(0, 1)
        # The first cell makes the carry: its second LUT gives 0 and its generate term is ~A.
        carry = Signal(name="carry_in")
        m.submodules.cell_in = Instance(
            "CCU2C",
            p_INIT0=Const(0, 16),
            p_INIT1=Const(1, 16),
            p_INJECT1_0="NO",
            p_INJECT1_1="NO",
            i_CIN=zero,
            **{f"i_{pin}0": zero for pin in "ABCD"},
            i_A1=self.load,
            i_B1=zero,
            i_C1=one,
            i_D1=zero,
            o_S0=Signal(name="unused_first"),
            o_S1=Signal(name="unused_second"),
            o_COUT=carry,
        )
        carry_chain(m, init=_INIT, a=self.a, b=self.load, c=self.value, d=[zero] * self.width, o=self.o, carry=carry)
        return m
