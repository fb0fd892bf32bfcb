"""A register that synthesis leaves alone: a copy of a value near those who use it.

Yosys merges flip-flops with the same input into one, from which wires then lead all over the chip. Cells of the FPGA it does not merge.
"""

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.mux_add import fpga_family


class LocalRegister(Component):
    """``o`` is ``i`` of the cycle before; without reset.

    Parameters
    ----------
    width
        Bits.

    Members
    -------
    i : In(width), o : Out(width)
        The value and its copy.
    """

    def __init__(self, width: int):
        self.width = width
        super().__init__({"i": In(width), "o": Out(width)})

    def elaborate(self, platform):
        """A cell a bit on an ECP5, a register elsewhere."""
        m = Module()
        if fpga_family(platform) != "ecp5":
            register = Signal(self.width, reset_less=True)
            m.d.sync += register.eq(self.i)
            m.d.comb += self.o.eq(register)
            return m
        parameters = {"CEMUX": "1", "CLKMUX": "CLK", "GSR": "DISABLED", "LSRMUX": "LSR", "REGSET": "RESET"}
        for bit in range(self.width):
            m.submodules[f"cell_{bit}"] = Instance(
                "TRELLIS_FF",
                **{f"p_{name}": value for name, value in parameters.items()},
                i_CLK=ClockSignal(),
                i_LSR=Const(0, 1),
                i_DI=self.i[bit],
                o_Q=self.o[bit],
            )
        return m


def local(m: Module, value, *, name: str):
    """``value`` as it was a cycle ago, in its own shape, from a :class:`LocalRegister` that becomes the submodule ``name``."""
    value = value if hasattr(value, "shape") else Value.cast(value)
    m.submodules[name] = register = LocalRegister(len(Value.cast(value)))
    copy = Signal(value.shape(), name=name)
    m.d.comb += [register.i.eq(value), Value.cast(copy).eq(register.o)]
    return copy
