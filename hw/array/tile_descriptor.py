"""The description of a finished tile, row by row, and the check of its writes."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.array.bank_address import LATENCY as ADDRESS_LATENCY
from tercel.hw.array.crossbar import LATENCY as ACT_LATENCY
from tercel.hw.array.feed import DRAIN_LAYOUT, drain_interval, tile_layout
from tercel.hw.array.loops import ARRAY_FIELDS
from tercel.hw.array.pointer import POINTER
from tercel.hw.array.tile_walk import threshold_addr_bits
from tercel.hw.config import Config
from tercel.hw.delay import delayed, delayed_arrivals
from tercel.hw.isa import ADDR_BITS


class TileDescriptor(Component):
    """Carries the tile along with its last step; tiles are at least a narrow drain interval apart.

    Inputs belong to the cycle of the step's issue. ``fault`` follows by the ``LATENCY`` of :class:`BankAddress`, ``tile`` by that of
    :class:`Crossbar`.

    Members
    -------
    fields, early, late, late_index : In
        The instruction: at the issue; in the three cycles after; 6 cycles after and in the cycle of ``take``, with its index.
    bank, addr, count : In
        Output pointer of pixel 0 for the output group, and valid pixels.
    parameter_addr, threshold_addr, end : In
        As in the tile.
    last : In(1)
        The step issued two cycles ago was the last of its tile.
    fault : Out(1)
        Some word of some valid pixel is at or past the depth.
    take : In(1)
        The tile comes out in the next cycle; ``tile.index``, ``post`` and ``config`` change with it.
    tile : Out
        See :func:`tile_layout`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "fields": In(ARRAY_FIELDS),
                "early": In(ARRAY_FIELDS),
                "late": In(ARRAY_FIELDS),
                "late_index": In(16),
                "bank": In(POINTER["bank"].shape),
                "addr": In(ADDR_BITS),
                "count": In(range(config.pixels + 1)),
                "parameter_addr": In(exact_log2(config.parameter_depth)),
                "threshold_addr": In(threshold_addr_bits(config)),
                "end": In(1),
                "last": In(1),
                "fault": Out(1),
                "take": In(1),
                "tile": Out(tile_layout(config)),
            }
        )

    def elaborate(self, platform):
        """Two addresses, before and after the banks wrap round; each row takes one of them at the end."""
        m = Module()
        config = self.config
        pixels = config.pixels
        layout = data.StructLayout(
            {
                "bank": self.bank.shape(),
                "count": self.count.shape(),
                "parameter_addr": self.parameter_addr.shape(),
                "threshold_addr": self.threshold_addr.shape(),
                "end": 1,
            }
        )
        entry = Signal(layout)
        m.d.comb += [entry[name].eq(getattr(self, name)) for name in layout.members]
        entry_2 = delayed(m, entry, 2, name="entry")
        addr_1 = delayed(m, self.addr, 1, name="addr")

        # Pixels before the banks wrap round, and after.
        near_2, far_2 = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        m.d.sync += [near_2.eq(addr_1), far_2.eq(addr_1 + self.early.out_pixel)]
        near_used, far_used = entry_2.count != 0, entry_2.bank + entry_2.count > pixels
        near_out_3, far_out_3 = Signal(), Signal()
        m.d.sync += [near_out_3.eq(near_used & self._out_of_range(near_2)), far_out_3.eq(far_used & self._out_of_range(far_2))]
        m.d.sync += self.fault.eq(near_out_3 | far_out_3)
        assert ADDRESS_LATENCY == 4

        late = data.StructLayout({"entry": layout, "near": ADDR_BITS, "far": ADDR_BITS})
        late_2 = Signal(late)
        m.d.comb += [late_2.entry.eq(entry_2), late_2.near.eq(near_2), late_2.far.eq(far_2)]
        interval = drain_interval(config, narrow=True, thresholds=0)
        late_7 = delayed_arrivals(m, late_2, self.last, ACT_LATENCY - 3, interval=interval, name="late")
        entry_7, near_7, far_7 = late_7.entry, late_7.near, late_7.far
        tile = Signal(self.tile.shape(), reset_less=True)
        m.d.comb += self.tile.eq(tile)
        for row in range(pixels):
            m.d.sync += tile.addr[row].eq(Mux(row < entry_7.bank, far_7, near_7))
        with m.Switch(entry_7.bank):
            for bank in range(pixels):
                with m.Case(bank):
                    m.d.sync += [tile.valid[row].eq((row - bank) % pixels < entry_7.count) for row in range(pixels)]
        m.d.sync += [
            tile.parameter_addr.eq(entry_7.parameter_addr),
            tile.threshold_addr.eq(entry_7.threshold_addr),
            tile.end.eq(entry_7.end),
        ]
        with m.If(self.take):
            m.d.sync += [
                tile.space.eq(self.late.out_space),
                tile.index.eq(self.late_index),
                tile.post.eq(self.late.post),
            ]
            m.d.sync += [tile.config[name].eq(self.late[name]) for name in DRAIN_LAYOUT.members]
        return m

    def _out_of_range(self, addr):
        """Whether the first or the last of a pixel's words at ``addr`` is at or past the depth, two cycles after the issue."""
        config = self.config

        def over(depth: int):
            if not depth:
                return 0
            bits = exact_log2(depth)
            last = (addr + (config.words_per_tile - 1))[:ADDR_BITS]
            return addr[bits:].any() | last[bits:].any()

        return Mux(self.early.out_space, over(config.window_depth), over(config.array_depth))
