"""The order in which a finished tile goes through the requantizers, at the time of row 0.

A *slot* is a cycle's work of each row. Narrow: J outputs, G slots a tile. Wide: one output, in as many slots as it has thresholds.
"""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.array.feed import tile_layout
from tercel.hw.array.tile_walk import THRESHOLDS_PER_CHANNEL
from tercel.hw.config import Config
from tercel.hw.load_add import LoadAdd
from tercel.hw.mux_add import MuxAdd

OUTPUT_BITS = 5


def slot_layout(config: Config) -> data.StructLayout:
    """One slot.

    ``output``: the output of lane 0; in a narrow slot lane j has ``output`` + j. ``first``, ``complete``: the first slot of its
    outputs, and the one after which their codes are known. ``final``: the last slot of the tile. ``parameter_addr``, ``threshold_addr``:
    words to read.
    """
    fields = {
        "valid": unsigned(1),
        "output": unsigned(OUTPUT_BITS),
        "first": unsigned(1),
        "complete": unsigned(1),
        "final": unsigned(1),
        "parameter_addr": unsigned(exact_log2(config.parameter_depth)),
    }
    if config.threshold_depth:
        fields["threshold_addr"] = unsigned(exact_log2(config.threshold_depth))
    return data.StructLayout(fields)


class SlotSequencer(Component):
    """Walks through the slots of a tile, one a cycle, from the cycle after its ``last`` on.

    Tiles come at least as many cycles apart as they have slots.

    Members
    -------
    last : In(1); tile : In(tile_layout)
        Of the feed.
    slot : Out(slot_layout)
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__({"last": In(1), "tile": In(tile_layout(config)), "slot": Out(slot_layout(config))})

    def elaborate(self, platform):
        """Counters over outputs and thresholds."""
        m = Module()
        config, slot, fields = self.config, self.slot, self.tile.config
        step = Mux(fields.narrow, config.drain_lanes, 1)
        next_word = Signal()
        # Only ``valid`` decides, so only that is reset.
        valid, state = Signal(), Signal(slot.shape(), reset_less=True)
        m.d.comb += [
            slot.valid.eq(valid),
            slot.output.eq(state.output),
            slot.parameter_addr.eq(state.parameter_addr),
            slot.final.eq(slot.complete & (slot.output + step == config.outputs)),
            next_word.eq(fields.narrow | (slot.output % config.drain_lanes == config.drain_lanes - 1)),
        ]
        if config.threshold_depth:
            # Registers say whether a slot is its outputs' first or last: half of the drain's registers follow them.
            left = Signal(4, reset_less=True)
            channel_addr = Signal(slot.threshold_addr.shape(), reset_less=True)
            m.submodules.next_threshold = next_threshold = MuxAdd(len(channel_addr))
            to_channel = self.last | slot.complete
            # ``last`` comes from across the chip, so it waits for no addition.
            next_addr = Mux(self.last, self.tile.threshold_addr, next_threshold.o)
            m.d.comb += [
                slot.threshold_addr.eq(state.threshold_addr),
                slot.first.eq(state.first),
                slot.complete.eq(state.complete),
                next_threshold.a.eq(Mux(slot.complete, Mux(fields.threshold_shared, 0, THRESHOLDS_PER_CHANNEL), 1)),
                next_threshold.c.eq(slot.threshold_addr),
                next_threshold.d.eq(channel_addr),
                next_threshold.sel.eq(slot.complete),
            ]
            m.d.sync += [
                state.threshold_addr.eq(next_addr),
                state.first.eq(to_channel),
                state.complete.eq(left == 0),
                left.eq(left - 1),
            ]
            with m.If(to_channel):
                m.d.sync += [state.complete.eq(fields.thresholds <= 1), left.eq(fields.thresholds - 2), channel_addr.eq(next_addr)]
        else:
            m.d.comb += [slot.first.eq(1), slot.complete.eq(1)]
        m.submodules.next_parameter = next_parameter = LoadAdd(len(slot.parameter_addr))
        m.d.comb += [
            next_parameter.a.eq(slot.parameter_addr),
            next_parameter.b.eq(1),
            next_parameter.value.eq(self.tile.parameter_addr),
            next_parameter.load.eq(self.last),
        ]
        with m.If(self.last | (slot.complete & next_word)):
            m.d.sync += state.parameter_addr.eq(next_parameter.o)
        with m.If(slot.complete):
            m.d.sync += state.output.eq(slot.output + step)
        with m.If(slot.final):
            m.d.sync += valid.eq(0)
        with m.If(self.last):
            m.d.sync += [valid.eq(1), state.output.eq(0)]
        return m
