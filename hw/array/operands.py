"""What the rows take besides sums and residuals: it is the same for all rows, so it is made once and goes down."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.array.drain_select import LATENCY as SELECT_LATENCY
from tercel.hw.array.feed import DRAIN_LAYOUT
from tercel.hw.array.row_products import (
    CHUNK_BITS,
    COARSE,
    NARROW_LATENCY,
    PRODUCTS,
    factors_layout,
    shifted_left,
    shifts_product,
    wide_latency,
)
from tercel.hw.array.row_sums import LATENCY as SUMS_LATENCY
from tercel.hw.array.row_sums import bias_layout
from tercel.hw.array.slots import slot_layout
from tercel.hw.config import NARROW_BITS, Config, exponents
from tercel.hw.delay import delayed
from tercel.hw.interfaces import LinearReadSignature, parameter_layout, parameter_word
from tercel.hw.rescale import CLAMP_LAYOUT, clamp_of, rescale_latency
from tercel.hw.scale import Scale, shift_shape
from tercel.hw.wide_mux import WideMux


def wide_cycle(config: Config) -> int:
    """Cycle of a wide slot's product, from its selection."""
    return SUMS_LATENCY + wide_latency(config)


def static_layout() -> data.StructLayout:
    """What holds for all slots of an instruction; ``counting``: thresholds are counted."""
    return data.StructLayout({"gain": 1, "narrow": 1, "residual": 1, "counting": 1, "z_res": 8, "clamp": CLAMP_LAYOUT})


def operands_layout(config: Config) -> data.StructLayout:
    """The operands of a slot, each in the cycle in which a row needs it; in brackets how many cycles after the slot's selection.

    ``bias`` [0], ``odd``, ``odd_wide`` [1], ``factors``, ``amount`` and ``coarse`` (see :class:`RowProducts`), ``shift`` with lane 0's
    product, ``narrow_shifts`` with those of lanes 1 .. J-1. With a threshold memory ``limit``, ``never`` and ``more`` (see
    :class:`Rescale`).
    """
    fields = {
        "bias": bias_layout(config),
        "odd": unsigned(config.drain_lanes),
        "odd_wide": unsigned(1),
        "factors": factors_layout(config),
        "amount": unsigned(4 if shifts_product(config) else 0),
        "coarse": unsigned(1),
        "shift": shift_shape(sum_bits=32),
        "narrow_shifts": data.ArrayLayout(shift_shape(sum_bits=NARROW_BITS), config.drain_lanes - 1),
    }
    if config.threshold_depth:
        fields |= {"limit": signed(16), "never": unsigned(1), "more": unsigned(1)}
    return data.StructLayout(fields)


class OperandFetch(Component):
    """Reads parameters and thresholds and prepares them; one slot a cycle. The selection of a slot is 2 cycles after it.

    Members
    -------
    slot : In(slot_layout)
    fields : In(DRAIN_LAYOUT)
        The instruction's; held until its last slot has passed.
    parameter, threshold : Out(LinearReadSignature)
        ``threshold`` only with a threshold memory.
    o : Out(operands_layout)
    static : Out(static_layout)
        One cycle after ``fields``.
    """

    def __init__(self, config: Config):
        self.config = config
        members = {
            "slot": In(slot_layout(config)),
            "fields": In(DRAIN_LAYOUT),
            "parameter": Out(LinearReadSignature(exact_log2(config.parameter_depth), parameter_word(config, config.drain_lanes))),
            "o": Out(operands_layout(config)),
            "static": Out(static_layout()),
        }
        if config.threshold_depth:
            members["threshold"] = Out(LinearReadSignature(exact_log2(config.threshold_depth), signed(16)))
        super().__init__(members)

    def elaborate(self, platform):
        """Cycles from the slot: 0 address, 1 biases and choice of lane 0's channel, 2 scales, 3 residual factor; then delays."""
        m = Module()
        config, fields = self.config, self.fields
        lanes = config.drain_lanes
        static, o = Signal(self.static.shape(), reset_less=True), Signal(self.o.shape(), reset_less=True)
        m.d.comb += [self.static.eq(static), self.o.eq(o)]
        m.d.comb += [self.parameter.en.eq(self.slot.valid), self.parameter.addr.eq(self.slot.parameter_addr)]
        m.d.sync += [
            static.gain.eq(fields.gain),
            static.narrow.eq(fields.narrow),
            static.residual.eq(fields.residual),
            static.z_res.eq(fields.z_res),
            static.clamp.eq(clamp_of(z_out=fields.z_out, lo=fields.lo, hi=fields.hi)),
        ]
        if config.threshold_depth:
            with m.If(fields.thresholds != 0):
                m.d.sync += static.counting.eq(1)
                m.d.sync += [static.clamp.zero.eq(fields.z_out), static.clamp.span.eq(1), static.clamp.low.eq(0)]
            with m.Else():
                m.d.sync += static.counting.eq(0)

        # Biases, and the lowest bits of those that are halved.
        lane_2 = delayed(m, Mux(fields.narrow, 0, self.slot.output % lanes), 2, name="lane")
        odd_2 = Signal(lanes, reset_less=True)
        for lane in range(lanes):
            bias = self.parameter.data[lane].bias
            m.d.sync += [o.bias[lane].eq(Mux(fields.gain, bias >> 1, bias)), odd_2[lane].eq(bias[0])]
        # Lanes 2 and above have the residual's difference in wide slots, to which nothing is added.
        upper = odd_2[2:] & fields.narrow.replicate(max(0, lanes - 2))
        m.d.sync += [o.odd.eq(Cat(odd_2[:2], upper)), o.odd_wide.eq(odd_2.bit_select(lane_2, 1))]
        assert SELECT_LATENCY == 2

        channels = self._channels(m, lane_2)
        scales = []
        for lane, channel in enumerate(channels):
            m.submodules[f"scale_{lane}"] = scale = Scale(config, sum_bits=NARROW_BITS if lane else 32)
            e = Signal(5, name=f"e_{lane}")
            m.d.comb += [
                e.eq(fields.shift + channel.shift),
                scale.multiplier.eq(channel.multiplier if config.per_channel_multiplier else fields.multiplier),
                scale.e.eq(e if lane else Cat(e[:4], Mux(fields.narrow, self._narrow_bit_4(e[:4]), e[4]))),
            ]
            scales.append(delayed(m, scale.o, 1, name=f"scale_{lane}"))
        for lane in range(1, lanes):
            late = delayed(m, scales[lane].shift, SUMS_LATENCY + NARROW_LATENCY - 2, name=f"shift_{lane}")
            m.d.sync += o.narrow_shifts[lane - 1].eq(late)
        m.d.sync += o.shift.eq(delayed(m, scales[0].shift, wide_cycle(config) - 2, name="shift_0"))
        self._factors(m, o, channels[0], [scale.multiplier for scale in scales])
        if config.threshold_depth:
            self._threshold(m, o)
        return m

    def _narrow_bit_4(self, below: Value) -> Value:
        """Bit 4 of the one among the shifts of narrow sums that has ``below`` in its lowest four: lane 0 distinguishes more."""
        first = exponents(self.config.multiplier_bits, narrow=True).start
        return Const(1, 1) if first == 16 else below < first

    def _channels(self, m: Module, wanted) -> list:
        """Shift and, where there is one, multiplier of each lane's channel, 2 cycles after the slot. Lane 0 has that of lane ``wanted``."""
        config = self.config
        kept = data.StructLayout({name: field.shape for name, field in parameter_layout(config) if name != "bias"})
        # Straight from the memory, which is far and slow, to registers.
        channels = [Signal(kept, name=f"channel_{lane}", reset_less=True) for lane in range(config.drain_lanes)]
        for lane, channel in enumerate(channels):
            m.d.sync += channel.eq(Cat(self.parameter.data[lane][name] for name in kept.members))
        if config.drain_lanes == 1:
            return channels
        m.submodules.choice = choice = WideMux(width=kept.size, count=config.drain_lanes)
        m.d.comb += [
            *(choice.inputs[lane].eq(channel) for lane, channel in enumerate(channels)),
            choice.sel.eq(wanted),
        ]
        return [data.View(kept, choice.o), *channels[1:]]

    def _factors(self, m: Module, o, channel, multipliers) -> None:
        """``channel`` is lane 0's, 2 cycles after the slot; the multipliers, 3 cycles after it."""
        fields, factors = self.fields, o.factors
        # The residual is doubled with the product, where shift + s is even.
        total = fields.res_shift + channel.shift
        even = ~(fields.shift[0] ^ channel.shift[0])
        multiplier, amount = Signal(CHUNK_BITS, reset_less=True), Signal(4, reset_less=True)
        coarse = Signal(reset_less=True)
        m.d.sync += [
            multiplier.eq(Mux(even, fields.res_multiplier << 1, fields.res_multiplier)),
            amount.eq(total[:4] | total[5].replicate(4)),
            coarse.eq(total[4:].any()),
            o.coarse.eq(delayed(m, coarse, wide_latency(self.config) - 1, name="coarse")),
        ]
        assert COARSE == 16
        m.d.sync += factors[0].eq(multipliers[0])
        m.d.sync += factors[1].eq(Mux(fields.narrow, multipliers[1], multipliers[0]) if len(multipliers) > 1 else multipliers[0])
        if shifts_product(self.config):
            m.d.sync += [factors[2].eq(multiplier), o.amount.eq(delayed(m, amount, 2, name="amount"))]
            return
        residual = Signal(2 * CHUNK_BITS, reset_less=True)
        m.d.sync += residual.eq(shifted_left(m, multiplier, amount, width=CHUNK_BITS + 15, name="residual"))
        for index in range(2, len(factors)):
            part = residual.word_select(index - 2, CHUNK_BITS) if index < PRODUCTS else 0
            m.d.sync += factors[index].eq(Mux(fields.narrow, multipliers[index], part))

    def _threshold(self, m: Module, o) -> None:
        """Read late, so that nothing has to wait for the product."""
        due = SELECT_LATENCY + wide_cycle(self.config) + rescale_latency(sum_bits=32) - 2
        counting = self.static.counting
        read = data.StructLayout({"en": 1, "addr": self.slot.threshold_addr.shape(), "first": 1})
        slot = Signal(read)
        m.d.comb += [slot.en.eq(self.slot.valid), slot.addr.eq(self.slot.threshold_addr), slot.first.eq(self.slot.first)]
        slot = delayed(m, slot, due - 3, name="slot")
        threshold = Signal(signed(16), reset_less=True)
        m.d.comb += [self.threshold.en.eq(slot.en), self.threshold.addr.eq(slot.addr)]
        m.d.sync += [
            threshold.eq(self.threshold.data),
            o.limit.eq(Mux(counting, threshold, self.static.clamp.span)),
            o.never.eq(counting & (threshold == 32767)),
            o.more.eq(counting & ~delayed(m, slot.first, 2, name="first")),
        ]
