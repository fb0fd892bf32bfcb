"""Where the outputs, the residual words and the parameters of the current tile are."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.array.loops import ARRAY_FIELDS
from tercel.hw.array.pointer import POINTER
from tercel.hw.config import Config
from tercel.hw.isa import ADDR_BITS
from tercel.hw.load_add import LoadAdd
from tercel.hw.mux_add import MuxAdd

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
    running : In(1)
        There is a current tile: ``advance`` and ``residual_advance`` may come, ``restart`` not.
    advance, last_group : In(1)
        To the next tile, which is one of other pixels when ``last_group`` says that the current output group is the last.
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
                "running": In(1),
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
        """An accumulating register for each output; where the coming tile of other pixels starts beside the addresses of the current."""
        m = Module()
        config, fields = self.config, self.fields

        with m.If(self.restart):
            m.d.sync += [self.bank.eq(self.output.bank), self.residual_bank.eq(self.residual.bank)]
        # For the choice of a value, which is followed by a carry chain; ``restart`` and ``advance`` only say when it is taken.
        other_pixels = ~self.running | self.last_group
        advances = self.restart | self.advance
        to_other_pixels = self.restart | (self.advance & self.last_group)
        self._walk(
            m,
            self.addr,
            first=self.output.addr,
            pixel=fields.out_pixel,
            step=config.words_per_tile,
            load=other_pixels,
            loads=to_other_pixels,
            moves=advances,
            name="output",
        )
        self._walk(
            m,
            self.residual_addr,
            first=self.residual.addr,
            pixel=fields.res_pixel,
            step=1,
            load=~self.residual_advance,
            loads=to_other_pixels,
            moves=to_other_pixels | self.residual_advance,
            name="residual",
        )
        m.submodules.parameters = parameters = LoadAdd(len(self.parameter_addr))
        m.submodules.thresholds = thresholds = LoadAdd(max(2, len(self.threshold_addr)))
        m.d.comb += [
            parameters.a.eq(self.parameter_addr),
            parameters.b.eq(config.drain_groups),
            parameters.value.eq(fields.parameter_addr),
            parameters.load.eq(other_pixels),
            thresholds.a.eq(self.threshold_addr),
            thresholds.b.eq(THRESHOLDS_PER_CHANNEL * config.outputs),
            thresholds.value.eq(fields.threshold_addr),
            thresholds.load.eq(other_pixels),
        ]
        with m.If(advances):
            m.d.sync += self.parameter_addr.eq(parameters.o)
        with m.If(self.restart | (self.advance & (self.last_group | ~fields.threshold_shared))):
            m.d.sync += self.threshold_addr.eq(thresholds.o)

        # Columns left, less 1, from the coming tile on.
        left = Signal(signed(15))
        first_count, first_left = Signal.like(self.count), Signal.like(left)
        m.d.sync += [first_count.eq(self._count(fields.out_width)), first_left.eq(fields.out_width - config.pixels)]
        with m.If(self.restart):
            m.d.sync += [self.count.eq(first_count), left.eq(first_left)]
        with m.Elif(self.advance & self.last_group):
            m.d.sync += [self.count.eq(self._count(left)), left.eq(left - config.pixels)]
        return m

    def _walk(self, m: Module, addr, *, first, pixel, step: int, load, loads, moves, name: str) -> None:
        """``addr`` moves on by ``step``, or with ``load`` to the pixels of a tile: ``first`` of the row, then ``pixel`` after ``pixel``.

        ``moves``: now; ``loads``: now and with ``load``.
        """
        coming, start = Signal(ADDR_BITS, name=f"{name}_coming", reset_less=True), Signal(ADDR_BITS, name=f"{name}_start")
        m.submodules[f"{name}_tile"] = tile = MuxAdd(ADDR_BITS)
        m.submodules[f"{name}_step"] = words = LoadAdd(ADDR_BITS)
        m.d.comb += [
            tile.a.eq(pixel),
            tile.c.eq(first),
            tile.d.eq(coming),
            tile.sel.eq(self.running),
            start.eq(Mux(self.running, coming, first)),
            words.a.eq(addr),
            words.b.eq(step),
            words.value.eq(start),
            words.load.eq(load),
        ]
        with m.If(loads):
            m.d.sync += coming.eq(tile.o)
        with m.If(moves):
            m.d.sync += addr.eq(words.o)

    def _count(self, left):
        """Pixels of a tile when ``left`` + 1 columns are left."""
        return Mux(left < 0, 0, Mux(left >= self.config.pixels - 1, self.config.pixels, left + 1))
