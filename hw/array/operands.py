"""What the rows' requantizers take besides sums and residuals: it is the same for all rows, so it is made once and goes down."""

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.array.feed import DRAIN_LAYOUT
from tercel.hw.array.slots import slot_layout
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.interfaces import LinearReadSignature, parameter_layout, parameter_word
from tercel.hw.requantize import FACTOR_BITS
from tercel.hw.scale import Scale, scale_layout
from tercel.hw.wide_mux import WideMux

LATENCY = 3
"""Cycles from a slot to its operands."""


def lane_layout(config: Config, *, sum_bits: int) -> data.StructLayout:
    """Bias and prepared scale of one lane."""
    return data.StructLayout({"bias": signed(sum_bits), "scale": scale_layout(config, sum_bits=sum_bits)})


def operands_layout(config: Config) -> data.StructLayout:
    """The operands of a slot: lane 0, the narrow lanes 1 .. J-1; ``count_first`` and ``threshold`` (or the clamp ``hi``) if there are any.

    ``factor`` is that of the slot before.
    """
    fields = {
        "wide": lane_layout(config, sum_bits=32),
        "narrow": data.ArrayLayout(lane_layout(config, sum_bits=18), config.drain_lanes - 1),
        "factor": unsigned(FACTOR_BITS + 1),
    }
    if config.threshold_depth:
        fields |= {"threshold": signed(16), "count_first": unsigned(1)}
    return data.StructLayout(fields)


class OperandFetch(Component):
    """Reads parameters and thresholds and prepares them; one slot a cycle, ``LATENCY`` cycles.

    Members
    -------
    slot : In(slot_layout)
    fields : In(DRAIN_LAYOUT)
        The instruction's; held until its last slot has passed.
    parameter, threshold : Out(LinearReadSignature)
        ``threshold`` only with a threshold memory.
    o : Out(operands_layout)
        ``factor`` is a cycle late.
    """

    def __init__(self, config: Config):
        self.config = config
        members = {
            "slot": In(slot_layout(config)),
            "fields": In(DRAIN_LAYOUT),
            "parameter": Out(LinearReadSignature(exact_log2(config.parameter_depth), parameter_word(config, config.drain_lanes))),
            "o": Out(operands_layout(config)),
        }
        if config.threshold_depth:
            members["threshold"] = Out(LinearReadSignature(exact_log2(config.threshold_depth), signed(16)))
        super().__init__(members)

    def elaborate(self, platform):
        """Cycle 0 address, 1 choice of lane 0's channel, 2 scales, 3 residual factor."""
        m = Module()
        config, fields = self.config, self.fields
        m.d.comb += [self.parameter.en.eq(self.slot.valid), self.parameter.addr.eq(self.slot.parameter_addr)]
        channels = Signal(parameter_word(config, config.drain_lanes), reset_less=True)
        m.d.sync += channels.eq(self.parameter.data)
        if config.drain_lanes > 1:
            output = delayed(m, self.slot.output, 1, name="output")
            m.submodules.choice = choice = WideMux(width=parameter_layout(config).size, count=config.drain_lanes)
            m.d.comb += [
                *(choice.inputs[lane].eq(self.parameter.data[lane]) for lane in range(config.drain_lanes)),
                choice.sel.eq(Mux(fields.narrow, 0, output % config.drain_lanes)),
            ]
            m.d.sync += channels[0].eq(choice.o)

        for lane in range(config.drain_lanes):
            channel = channels[lane]
            o = self.o.narrow[lane - 1] if lane else self.o.wide
            m.submodules[f"scale_{lane}"] = scale = Scale(config, sum_bits=18 if lane else 32)
            m.d.comb += [
                scale.multiplier.eq(channel.multiplier if config.per_channel_multiplier else fields.multiplier),
                scale.e.eq(fields.shift + channel.shift),
            ]
            m.d.sync += [o.scale.eq(scale.o), o.bias.eq(channel.bias)]

        # The residual is scaled for the doubled product of an even e: scale.e is even when shift + s is.
        amount = Signal(6, reset_less=True)
        total = fields.res_shift + channels[0].shift
        m.d.sync += amount.eq(Mux(total > 31, 31, total) + ~(fields.shift[0] ^ channels[0].shift[0]))
        m.d.sync += self.o.factor.eq(fields.res_multiplier << amount)

        if config.threshold_depth:
            m.d.comb += [self.threshold.en.eq(self.slot.valid), self.threshold.addr.eq(self.slot.threshold_addr)]
            threshold = Signal(signed(16), reset_less=True)
            m.d.sync += [
                threshold.eq(self.threshold.data),
                self.o.threshold.eq(Mux(fields.thresholds == 0, fields.hi, threshold)),
                self.o.count_first.eq(delayed(m, self.slot.first, LATENCY - 1, name="first")),
            ]
        return m
