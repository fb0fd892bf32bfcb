"""Gives a component with any number of ports five pins, so that it can be placed and routed by itself."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out


class PinWrapper(Component):
    """Every input bit of ``inner`` comes from a register that is loaded from a shift register, every output bit goes to a register
    and through a tree of XOR.

    Nothing of ``inner`` is optimised away, and no path of it ends at a pin. (Fed by the shift register itself, input
    registers of ``inner`` would be merged with it.)

    Members
    -------
    i : In(1)
        Shifted in.
    load : In(1)
        Gives the shift register's content to ``inner``.
    o : Out(1)
        XOR of all outputs.
    """

    def __init__(self, inner: Component) -> None:
        super().__init__({"i": In(1), "load": In(1), "o": Out(1)})
        self._inner = inner
        members = [(member.flow, value) for _, member, value in inner.signature.flatten(inner)]
        self._inputs = [value.as_value() if hasattr(value, "as_value") else value for flow, value in members if flow == In]
        self._outputs = [value.as_value() if hasattr(value, "as_value") else value for flow, value in members if flow == Out]

    @property
    def input_bits(self) -> int:
        """Width of the shift register."""
        return sum(len(value) for value in self._inputs)

    @property
    def own(self) -> dict[str, int]:
        """Flip-flops and LUTs of the wrapper itself, to be subtracted."""
        bits = sum(len(value) for value in self._outputs)
        luts, flip_flops = 0, 2 * self.input_bits + bits
        while bits > 1:
            bits = -(-bits // 4)
            luts += bits
            flip_flops += bits
        return {"LUT4": luts, "FF": flip_flops}

    def elaborate(self, platform: object) -> Module:
        """Shift register, held inputs, ``inner``, registers, tree with a register at each level."""
        m = Module()
        m.submodules.inner = self._inner
        # Resets might become logic, which would count for ``inner``.
        shift = Signal(self.input_bits, reset_less=True)
        held = Signal(self.input_bits, reset_less=True)
        m.d.sync += shift.eq(Cat(self.i, shift))
        with m.If(self.load):
            m.d.sync += held.eq(shift)
        position = 0
        for value in self._inputs:
            m.d.comb += value.eq(held[position : position + len(value)])
            position += len(value)
        level = Signal(sum(len(value) for value in self._outputs), name="outputs", reset_less=True)
        m.d.sync += level.eq(Cat(*self._outputs))
        while len(level) > 1:
            following = Signal(-(-len(level) // 4), name=f"xor_{len(level)}", reset_less=True)
            m.d.sync += following.eq(Cat(level[first : first + 4].xor() for first in range(0, len(level), 4)))
            level = following
        m.d.comb += self.o.eq(level)
        return m
