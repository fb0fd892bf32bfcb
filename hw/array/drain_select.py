"""From a row's finished sums to the requantizers' inputs.

The sums of lane j's outputs j, J + j, 2*J + j ... meet in pairs: a register behind a two-way choice for each pair, cleared unless its
pair is wanted, and an OR of the registers. That takes one LUT a bit for two sums, and one for four pairs.
"""

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.cell import SUM_BITS
from tercel.hw.array.feed import DRAIN_LAYOUT
from tercel.hw.array.slots import slot_layout
from tercel.hw.config import Config
from tercel.hw.delay import delayed

LATENCY = 2
"""Cycles from a slot to its selection."""


def pairs(config: Config) -> int:
    """Pairs of sums of a lane."""
    return (config.drain_groups + 1) // 2


def selection_layout(config: Config) -> data.StructLayout:
    """Which sums are wanted: the second of the pair; for lane 0 the pair, by lane and pair; for the other lanes the pair."""
    return data.StructLayout(
        {
            "odd": unsigned(1),
            "wide": data.ArrayLayout(unsigned(pairs(config)), config.drain_lanes),
            "narrow": unsigned(pairs(config)),
        }
    )


class Selection(Component):
    """Decodes a slot; ``LATENCY`` cycles.

    Members
    -------
    slot : In(slot_layout); fields : In(DRAIN_LAYOUT)
    o : Out(selection_layout)
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__({"slot": In(slot_layout(config)), "fields": In(DRAIN_LAYOUT), "o": Out(selection_layout(config))})

    def elaborate(self, platform):
        """One-hot codes of the output's pair, and of its lane."""
        m = Module()
        lanes = self.config.drain_lanes
        output = delayed(m, self.slot.output, LATENCY - 1, name="output")
        group = output // lanes
        lane = Mux(self.fields.narrow, 0, output % lanes)
        m.d.sync += self.o.odd.eq(group[0])
        for pair in range(pairs(self.config)):
            wanted = group >> 1 == pair
            m.d.sync += self.o.narrow[pair].eq(wanted)
            m.d.sync += [self.o.wide[number][pair].eq(wanted & (lane == number)) for number in range(lanes)]
        return m


class SumSelect(Component):
    """The sums of a slot, one cycle after its selection.

    Members
    -------
    acc : In(N x signed(32))
    select : In(selection_layout)
    wide : Out(signed(32))
        The sum for lane 0.
    narrow : Out((J-1) x signed(18))
        The sums for lanes 1 .. J-1.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "acc": In(data.ArrayLayout(signed(SUM_BITS), config.outputs)),
                "select": In(selection_layout(config)),
                "wide": Out(signed(SUM_BITS)),
                "narrow": Out(data.ArrayLayout(signed(18), config.drain_lanes - 1)),
            }
        )

    def elaborate(self, platform):
        """Pairs, then OR."""
        m = Module()
        lanes, groups = self.config.drain_lanes, self.config.drain_groups
        wide = 0
        for lane in range(lanes):
            narrow = 0
            for pair in range(pairs(self.config)):
                first = 2 * pair * lanes + lane
                chosen = self.acc[first]
                if 2 * pair + 1 < groups:
                    chosen = Mux(self.select.odd, self.acc[first + lanes], chosen)
                kept = Signal(SUM_BITS, name=f"wide_{lane}_{pair}")
                m.d.sync += kept.eq(Mux(self.select.wide[lane][pair], chosen, 0))
                wide |= kept
                if lane:
                    kept = Signal(18, name=f"narrow_{lane}_{pair}")
                    m.d.sync += kept.eq(Mux(self.select.narrow[pair], chosen, 0))
                    narrow |= kept
            if lane:
                m.d.comb += self.narrow[lane - 1].eq(narrow)
        m.d.comb += self.wide.eq(wide)
        return m
