"""A multiplexer of up to 16 words in half as many LUTs a bit where the FPGA has multiplexers behind its LUTs.

Yosys maps an 8:1 multiplexer to about eight LUT4 on an ECP5. The slices there have fixed multiplexers that join two LUTs (PFUMX), two
such pairs and two of those (L6MUX21), Lattice TN-02205; with a 2:1 multiplexer in each LUT4 they make 8:1 of four.
"""

from amaranth.hdl import Array, Const, Instance, Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.mux_add import fpga_family

_INIT = sum(((index >> 1 if index & 4 else index) & 1) << index for index in range(16))
"""LUT4 contents: bit (D, C, B, A) holds C ? B : A."""


def choosing_lut(*, low, high, select, o) -> Instance:
    """The ECP5's LUT with ``o = high if select else low``, a bit each."""
    return Instance("LUT4", p_INIT=Const(_INIT, 16), i_A=low, i_B=high, i_C=select, i_D=Const(0, 1), o_Z=o)


class WideMux(Component):
    """``o = inputs[sel]``; combinational.

    Parameters
    ----------
    width
        Bits of a word.
    count
        Number of words, at least 2. More than 16 give an expression on every FPGA.

    Members
    -------
    inputs : In
        The words.
    sel : In
        0..count-1; anything above selects the last word.
    o : Out(width)
        The selected word.
    """

    def __init__(self, *, width: int, count: int):
        self.width = width
        self.count = count
        super().__init__({"inputs": In(data.ArrayLayout(width, count)), "sel": In(range(count)), "o": Out(width)})

    def elaborate(self, platform):
        """A tree of cells for each bit on an ECP5, an expression elsewhere."""
        m = Module()
        # Selects past the last word choose it, so that the tree is complete.
        words = [self.inputs[min(index, self.count - 1)] for index in range(1 << len(self.sel))]
        if fpga_family(platform) != "ecp5" or len(words) not in (4, 8, 16):
            m.d.comb += self.o.eq(Array(words)[self.sel])
            return m
        for bit in range(self.width):
            nodes = [word[bit] for word in words]
            for level in range(len(self.sel)):
                nodes = [
                    self._join(m, nodes[index], nodes[index + 1], level=level, name=f"{bit}_{level}_{index}")
                    for index in range(0, len(nodes), 2)
                ]
            m.d.comb += self.o[bit].eq(nodes[0])
        return m

    def _join(self, m: Module, low, high, *, level: int, name: str):
        """The cell of a tree level: ``high`` where bit ``level`` of the select is set."""
        o = Signal(name=f"node_{name}")
        select = self.sel[level]
        if level == 0:
            cell = choosing_lut(low=low, high=high, select=select, o=o)
        elif level == 1:
            cell = Instance("PFUMX", i_ALUT=high, i_BLUT=low, i_C0=select, o_Z=o)
        else:
            cell = Instance("L6MUX21", i_D0=low, i_D1=high, i_SD=select, o_Z=o)
        m.submodules[f"cell_{name}"] = cell
        return o
