"""Where the outputs, the residual words and the parameters of the current tile are."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.array.loops import ARRAY_FIELDS
from tercel.hw.array.pointer import POINTER
from tercel.hw.config import Config
from tercel.hw.isa import ADDR_BITS

THRESHOLDS_PER_CHANNEL = 16
"""Threshold words that a channel occupies."""


def threshold_addr_bits(config: Config) -> int:
    """Address bits of the threshold memory; 1 where there is none."""
    return exact_log2(config.threshold_depth) if config.threshold_depth else 1


class TileWalk(Component):
    """Follows tiles and output groups through the output and residual tensors, the parameters and the thresholds.

    The outputs belong to the current tile; they change in the cycle after ``restart``, ``advance`` or ``residual_advance``.

    Members
    -------
    fields : In
        The instruction, constant from 2 cycles before its first ``restart``.
    restart : In(1)
        Go to the first tile of the row whose pointers are ``output`` and ``residual``.
    advance, last_group : In(1)
        To the next tile, which is one of other pixels when ``last_group`` says that the current output group is the last. Not with
        ``restart``.
    residual_advance : In(1)
        To the next residual word. Not with ``advance``.
    bank, residual_bank : Out
        Banks of pixel 0.
    addr : Out
        Word 0 of pixel 0's outputs of the output group.
    residual_addr : Out
        The current residual word of pixel 0.
    parameter_addr, threshold_addr : Out
        First words of the output group; as wide as the memories are deep.
    count : Out
        Valid pixels of the tile, 0..P.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "fields": In(ARRAY_FIELDS),
                "restart": In(1),
                "output": In(POINTER),
                "residual": In(POINTER),
                "advance": In(1),
                "last_group": In(1),
                "residual_advance": In(1),
                "bank": Out(POINTER["bank"].shape),
                "addr": Out(ADDR_BITS),
                "residual_bank": Out(POINTER["bank"].shape),
                "residual_addr": Out(ADDR_BITS),
                "parameter_addr": Out(exact_log2(config.parameter_depth)),
                "threshold_addr": Out(threshold_addr_bits(config)),
                "count": Out(range(config.pixels + 1)),
            }
        )

    def elaborate(self, platform):
        """An accumulating register for each output; addresses of the tile's first output group beside those of the current."""
        m = Module()
        config, fields = self.config, self.fields

        tile_addr, next_tile_addr = Signal(ADDR_BITS), Signal(ADDR_BITS)
        residual_tile_addr, next_residual_tile_addr = Signal(ADDR_BITS), Signal(ADDR_BITS)
        m.d.comb += [
            next_tile_addr.eq(tile_addr + fields.out_pixel),
            next_residual_tile_addr.eq(residual_tile_addr + fields.res_pixel),
        ]
        with m.If(self.restart):
            m.d.sync += [
                self.bank.eq(self.output.bank),
                self.residual_bank.eq(self.residual.bank),
                tile_addr.eq(self.output.addr),
                self.addr.eq(self.output.addr),
                residual_tile_addr.eq(self.residual.addr),
                self.residual_addr.eq(self.residual.addr),
            ]
        with m.Elif(self.advance):
            with m.If(self.last_group):
                m.d.sync += [
                    tile_addr.eq(next_tile_addr),
                    self.addr.eq(next_tile_addr),
                    residual_tile_addr.eq(next_residual_tile_addr),
                    self.residual_addr.eq(next_residual_tile_addr),
                ]
            with m.Else():
                m.d.sync += self.addr.eq(self.addr + config.words_per_tile)
        with m.Elif(self.residual_advance):
            m.d.sync += self.residual_addr.eq(self.residual_addr + 1)

        with m.If(self.restart | (self.advance & self.last_group)):
            m.d.sync += [self.parameter_addr.eq(fields.parameter_addr), self.threshold_addr.eq(fields.threshold_addr)]
        with m.Elif(self.advance):
            m.d.sync += self.parameter_addr.eq(self.parameter_addr + config.drain_groups)
            with m.If(~fields.threshold_shared):
                m.d.sync += self.threshold_addr.eq(self.threshold_addr + THRESHOLDS_PER_CHANNEL * config.outputs)

        # Columns left, less 1, from the coming tile on.
        left = Signal(signed(15))
        first_count, first_left = Signal.like(self.count), Signal.like(left)
        m.d.sync += [first_count.eq(self._count(fields.out_width)), first_left.eq(fields.out_width - config.pixels)]
        with m.If(self.restart):
            m.d.sync += [self.count.eq(first_count), left.eq(first_left)]
        with m.Elif(self.advance & self.last_group):
            m.d.sync += [self.count.eq(self._count(left)), left.eq(left - config.pixels)]
        return m

    def _count(self, left):
        """Pixels of a tile when ``left`` + 1 columns are left."""
        return Mux(left < 0, 0, Mux(left >= self.config.pixels - 1, self.config.pixels, left + 1))
