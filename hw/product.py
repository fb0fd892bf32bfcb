"""A signed product with a register behind it and, if wanted, before it, inside the multiplier where the FPGA has them there.

Yosys maps a product to a bare MULT18X18D of an ECP5 and leaves registers in the fabric; the way to the multiplier, through it and back
then takes most of 10 ns. The cell's own registers (Lattice TN-02205, sysDSP) cost nothing and cut that into three.
"""

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.delay import delayed
from tercel.hw.mux_add import fpga_family

_BITS = 18


class Product(Component):
    """``o`` is ``a * b`` of ``latency`` cycles ago, two or one; without reset.

    Parameters
    ----------
    a_bits, b_bits
        Bits of the operands, up to 18.
    operand_registers
        Registers before it: the second cycle.

    Members
    -------
    a : In(signed(a_bits)), b : In(signed(b_bits))
        The operands.
    o : Out(signed(a_bits + b_bits))
        Their product.
    """

    LATENCY = 2
    """With registers before it."""

    def __init__(self, *, a_bits: int, b_bits: int, operand_registers: bool = True):
        for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
            if not 1 <= bits <= _BITS:
                raise ValueError(f"{name} must be in 1..{_BITS}, not {bits!r} (a DSP multiplies {_BITS} bits)")
        self._operand_registers = operand_registers
        super().__init__({"a": In(signed(a_bits)), "b": In(signed(b_bits)), "o": Out(signed(a_bits + b_bits))})

    @property
    def latency(self) -> int:
        """Cycles from the operands to the product."""
        return self.LATENCY if self._operand_registers else 1

    def elaborate(self, platform):
        """A cell on an ECP5, an expression elsewhere."""
        m = Module()
        if fpga_family(platform) != "ecp5":
            a, b = (delayed(m, value, self.latency - 1, name=name) for name, value in (("a", self.a), ("b", self.b)))
            m.d.comb += self.o.eq(delayed(m, a * b, 1, name="o"))
            return m
        a, b, o = Signal(signed(_BITS)), Signal(signed(_BITS)), Signal(signed(2 * _BITS))
        m.d.comb += [a.eq(self.a), b.eq(self.b), self.o.eq(o)]
        parameters = {"CLK0_DIV": "ENABLED", "GSR": "DISABLED", "RESETMODE": "SYNC"}
        for register in ("INPUTA", "INPUTB", "OUTPUT") if self._operand_registers else ("OUTPUT",):
            parameters |= {f"REG_{register}_CLK": "CLK0", f"REG_{register}_CE": "CE0", f"REG_{register}_RST": "RST0"}
        ports = {"CLK0": ClockSignal(), "CE0": Const(1, 1), "RST0": Const(0, 1)}
        ports |= {"SIGNEDA": Const(1, 1), "SIGNEDB": Const(1, 1), "SOURCEA": Const(0, 1), "SOURCEB": Const(0, 1)}
        ports |= {f"{letter}{bit}": operand[bit] for letter, operand in (("A", a), ("B", b)) for bit in range(_BITS)}
        m.submodules.cell = Instance(
            "MULT18X18D",
            **{f"p_{name}": value for name, value in parameters.items()},
            **{f"i_{name}": value for name, value in ports.items()},
            **{f"o_P{bit}": o[bit] for bit in range(2 * _BITS)},
        )
        return m
