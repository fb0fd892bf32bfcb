"""A row's residual codes: collected while the tile before is still being requantized, handed out one a slot."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.slots import OUTPUT_BITS
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.wide_mux import WideMux


class ResidualCodes(Component):
    """Two register files of N codes: one is filled, the other one used.

    Members
    -------
    acts : In(K x 8); fill : In(N/K)
        With bit w of ``fill``, the codes of outputs w*K ... of the next tile.
    last : In(1)
        The tile starts: its codes are used from the next cycle on.
    output : In(5)
        The output wanted.
    r : Out(8)
        Its code, one cycle later.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "acts": In(data.ArrayLayout(unsigned(8), config.lanes)),
                "fill": In(config.words_per_tile),
                "last": In(1),
                "output": In(OUTPUT_BITS),
                "r": Out(8),
            }
        )

    def elaborate(self, platform):
        """Word by word in, all over at once, code by code out."""
        m = Module()
        codes = [Signal(8, name=f"code_{output}", reset_less=True) for output in range(self.config.outputs)]
        used = [Signal(8, name=f"used_{output}", reset_less=True) for output in range(self.config.outputs)]
        for output, code in enumerate(codes):
            word, lane = divmod(output, self.config.lanes)
            with m.If(self.fill[word]):
                m.d.sync += code.eq(self.acts[lane])
        with m.If(self.last):
            m.d.sync += [target.eq(code) for target, code in zip(used, codes, strict=True)]
        m.submodules.select = select = WideMux(width=8, count=self.config.outputs)
        m.d.comb += [select.sel.eq(self.output), *(select.inputs[output].eq(code) for output, code in enumerate(used))]
        m.d.comb += self.r.eq(delayed(m, select.o, 1, name="r"))
        return m
