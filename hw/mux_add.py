"""An adder with a multiplexer on one operand, in one LUT a bit where the FPGA's carry cell allows it.

Yosys maps ``a + Mux(sel, d, c)`` to a LUT for the multiplexer and a carry cell for the adder. An ECP5 carry cell (CCU2C) has a
LUT4 in front of each carry bit; its generate term is the same LUT with inputs C = D = 0. With A = a, B = sel, C = c, D = d
the propagate term a ^ (sel ? d : c) has just that property (for c = d = 0 it is a, the right generate term), so the multiplexer
costs nothing. Lattice TN-02205 (ECP5 PLC) describes the cell.
"""

from amaranth.hdl import Module, Mux
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.carry_chain import carry_chain

_INIT = sum(((index & 1) ^ (((index >> 3) & 1) if index & 2 else ((index >> 2) & 1))) << index for index in range(16))
"""LUT4 contents: bit (D, C, B, A) holds A ^ (B ? D : C)."""


def fpga_family(platform: object) -> str | None:
    """``"ecp5"`` when elaborating for such a part, else ``None`` (simulation, or a family without special cells here)."""
    return "ecp5" if str(getattr(platform, "device", "")).startswith("LFE5") else None


class Ecp5:
    """Stands for an ECP5 part when Verilog is emitted outside a board's platform."""

    device = "LFE5"


class MuxAdd(Component):
    """``o = a + (d if sel else c)`` modulo ``2**width``; combinational.

    Parameters
    ----------
    width
        Bits of all operands and of the sum, at least 2.

    Members
    -------
    a, c, d : In(width)
        The operands.
    sel : In(1)
        Selects ``d``.
    o : Out(width)
        The sum.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__({"a": In(width), "c": In(width), "d": In(width), "sel": In(1), "o": Out(width)})

    def elaborate(self, platform):
        """Carry cells on an ECP5, an expression elsewhere."""
        m = Module()
        if fpga_family(platform) != "ecp5":
            m.d.comb += self.o.eq(self.a + Mux(self.sel, self.d, self.c))
            return m
        carry_chain(m, init=_INIT, a=self.a, b=self.sel, c=self.c, d=self.d, o=self.o)
        return m
