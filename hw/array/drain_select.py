"""Which of a row's finished sums a slot wants: lane j's outputs j, J + j, 2*J + j ... are counted in pairs."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

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
    """The pair of each lane, the second sum of it, and the lanes that lane 0 takes: of a narrow slot itself, of a wide one that wanted."""
    return data.StructLayout({"odd": unsigned(1), "pair": range(pairs(config)), "wide": unsigned(config.drain_lanes)})


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
        """The output's number, and a one-hot code of its lane."""
        m = Module()
        lanes = self.config.drain_lanes
        output = delayed(m, self.slot.output, LATENCY - 1, name="output")
        group = output // lanes
        lane = Mux(self.fields.narrow, 0, output % lanes)
        chosen = Signal(self.o.shape(), reset_less=True)
        m.d.sync += [chosen.odd.eq(group[0]), chosen.pair.eq(group >> 1)]
        m.d.sync += [chosen.wide[number].eq(lane == number) for number in range(lanes)]
        m.d.comb += self.o.eq(chosen)
        return m
