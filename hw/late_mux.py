"""A 2:1 multiplexer with an input that comes late in a cycle: one LUT from it to the result.

Synthesis takes all registers for equally near. What it makes of a handshake with another block may have the wire from afar at the bottom
of two or three LUTs that lie apart. A cell of the FPGA it does not take apart: everything else is worked out in front of it.
"""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.mux_add import fpga_family
from tercel.hw.wide_mux import choosing_lut


class LateMux(Component):
    """``o = high if select else low``; combinational.

    Parameters
    ----------
    width
        Bits.

    Members
    -------
    select : In(1), high, low : In(width)
        The inputs; any may come late.
    o : Out(width)
        ``high`` or ``low``.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__({"select": In(1), "high": In(width), "low": In(width), "o": Out(width)})

    def elaborate(self, platform):
        """A cell a bit on an ECP5, an expression elsewhere."""
        m = Module()
        if fpga_family(platform) != "ecp5":
            m.d.comb += self.o.eq(Mux(self.select, self.high, self.low))
            return m
        for bit in range(self.width):
            m.submodules[f"cell_{bit}"] = choosing_lut(low=self.low[bit], high=self.high[bit], select=self.select, o=self.o[bit])
        return m


def late_mux(m: Module, select, high, low, *, width: int = 1, name: str) -> Signal:
    """``high`` if ``select``, else ``low``, from a :class:`LateMux` that becomes the submodule ``name``."""
    m.submodules[name] = cells = LateMux(width)
    m.d.comb += [cells.select.eq(select), cells.high.eq(Value.cast(high)), cells.low.eq(Value.cast(low))]
    return cells.o
