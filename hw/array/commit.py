"""What becomes of the codes of a slot, worked out at the time of row 0."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.feed import DRAIN_LAYOUT, drain_interval, tile_layout
from tercel.hw.array.slots import OUTPUT_BITS, slot_layout
from tercel.hw.config import Config
from tercel.hw.delay import delayed, delayed_arrivals
from tercel.hw.isa import ADDR_BITS


def commit_layout(config: Config) -> data.StructLayout:
    """The end of a slot.

    ``capture``: the bytes of the output word that the slot's codes are. ``write``: the word is complete now; it is word ``number`` of each
    ``valid`` pixel, ``addr`` (by row) that of word 0, in scratchpad ``space``. ``end``: it is the instruction's last.
    """
    place = {
        "capture": unsigned(config.lanes),
        "number": unsigned(OUTPUT_BITS),
        "space": unsigned(1),
        "valid": unsigned(config.pixels),
        "addr": data.ArrayLayout(unsigned(ADDR_BITS), config.pixels),
    }
    return data.StructLayout({"decisions": data.StructLayout({"write": 1, "end": 1}), "place": data.StructLayout(place)})


class CommitControl(Component):
    """Delays slots and the tiles they belong to by ``latency`` cycles, and decodes them.

    Parameters
    ----------
    latency
        Cycles from ``slot`` to ``o``, at least 1.

    Members
    -------
    last, tile : In
        Of the feed, one cycle before the tile's first slot.
    slot : In(slot_layout)
    fields : In(DRAIN_LAYOUT)
        The instruction's; held until its last slot has come out.
    o : Out(commit_layout)
    """

    def __init__(self, config: Config, *, latency: int):
        self.config = config
        self.latency = latency
        super().__init__(
            {
                "last": In(1),
                "tile": In(tile_layout(config)),
                "slot": In(slot_layout(config)),
                "fields": In(DRAIN_LAYOUT),
                "o": Out(commit_layout(config)),
            }
        )

    def elaborate(self, platform):
        """A delay line for the slot; the tile, of which there is a new one only every few cycles, takes as few registers as it can."""
        m = Module()
        config, narrow = self.config, self.fields.narrow
        lanes, drain_lanes = config.lanes, config.drain_lanes
        travels = data.StructLayout({name: field.shape for name, field in tile_layout(config) if name in ("valid", "addr", "space", "end")})
        tile = Signal(travels)
        m.d.comb += [tile[name].eq(self.tile[name]) for name in travels.members]
        interval = drain_interval(config, narrow=True, thresholds=0)
        tile = delayed_arrivals(m, tile, self.last, self.latency, interval=interval, name="tile")
        output = delayed(m, self.slot.output, self.latency - 1, name="output")
        complete = delayed(m, self.slot.valid & self.slot.complete, self.latency - 1, name="complete")
        final = delayed(m, self.slot.final, self.latency - 1, name="final")

        place = Signal(self.o.place.shape(), reset_less=True)
        decisions = Signal(self.o.decisions.shape(), reset_less=True)
        m.d.comb += [self.o.place.eq(place), self.o.decisions.eq(decisions)]
        block = output % lanes // drain_lanes
        lane = output % drain_lanes
        for byte in range(lanes):
            here = (block == byte // drain_lanes) & (narrow | (lane == byte % drain_lanes))
            m.d.sync += place.capture[byte].eq(complete & here)
        m.d.sync += [
            decisions.write.eq(complete & (block == lanes // drain_lanes - 1) & (narrow | (lane == drain_lanes - 1))),
            decisions.end.eq(complete & final & tile.end),
            place.number.eq(output // lanes),
            *(place[name].eq(tile[name]) for name in ("valid", "addr", "space")),
        ]
        return m
