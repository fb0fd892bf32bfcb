"""The weights of a window: a record, or ones for an average, and zero for taps that do not count; or row by row of the record."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.depthwise.column import row_of_window, taps_layout
from tercel.hw.depthwise.plan import PLAN_LAYOUT
from tercel.hw.interfaces import LinearReadSignature
from tercel.hw.local_register import local
from tercel.hw.memory.space import RECORD_ROW_BITS, RECORD_TAPS

LANES_CLEARED = 2
"""Lanes for which one register sets or clears weights: few enough to lie together, and enough to fill tiles, which share a reset."""


def weights_layout(config: Config) -> data.ArrayLayout:
    """Operand weights: tap 3*row + column, or column of a row, then lane."""
    return data.ArrayLayout(data.ArrayLayout(signed(8), config.lanes), config.depthwise_taps)


def record_signature(config: Config) -> LinearReadSignature:
    """How the engine reads records: all nine tap words, or the three of the row that the two lowest bits of the address name."""
    row_bits = RECORD_ROW_BITS if config.depthwise_taps < RECORD_TAPS else 0
    return LinearReadSignature(16 + row_bits, config.depthwise_taps * 8 * config.lanes)


class Weights(wiring.Component):
    """``weights`` follows ``request`` by :attr:`LATENCY` cycles; the record is read 1 cycle after the request.

    With 3 taps a cycle the second and the third row follow in the next two cycles, in which no other request may come.
    """

    LATENCY = 5

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "plan": In(PLAN_LAYOUT),
                "request": In(taps_layout(config)),
                "record": Out(record_signature(config)),
                "weights": Out(weights_layout(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Memory, a register behind it, one at the lanes that an average sets to 1, and one that omitted taps clear."""
        m = Module()
        lanes, taps, plan = self._config.lanes, self._config.depthwise_taps, self.plan
        request = delayed(m, self.request, 1, name="request")
        in_vector = (1 << min(lanes, 8)) - 1
        if taps == RECORD_TAPS:
            m.d.comb += [self.record.en.eq(request.compute), self.record.addr.eq(request.record)]
            in_kernel = Cat(request.rows[tap // 3] & request.columns[tap % 3] for tap in range(taps))
        else:
            row = Signal(2)
            late, now = Signal(request.shape(), reset_less=True), Signal(request.shape())
            m.d.sync += late.eq(now)
            m.d.comb += [now.eq(Mux(request.compute, request, late)), row.eq(row_of_window(m, request.compute))]
            m.d.comb += [self.record.en.eq(1), self.record.addr.eq(Cat(row, now.record))]
            in_kernel = Mux(now.rows.bit_select(row, 1), now.columns, 0)
            in_vector = Array(Const(in_vector >> 3 * index & 7, 3) for index in range(3))[row]
        omitted = Signal(taps, reset_less=True)
        m.d.sync += omitted.eq(~Mux(plan.maximum, 0, Mux(plan.vector, in_vector, in_kernel)))
        # What sets and clears lies in registers beside the lanes, and acts through the synchronous reset of flip-flops: no LUT.
        groups = range(0, lanes, LANES_CLEARED)
        late_omitted = delayed(m, omitted, 1, name="late_omitted")
        words = delayed(m, Value.cast(self.record.data), 1, name="words")
        clear = [local(m, late_omitted, name=f"omitted_{first}") for first in groups]
        ones = [local(m, plan.average, name=f"average_{first}") for first in groups]
        # A flip-flop of an ECP5 that a signal sets also starts as 1; were this 0, a LUT would take the place of the set.
        present = Signal(self.weights.shape(), init=[[1] * lanes] * taps, reset_less=True)
        weights = Signal(self.weights.shape(), reset_less=True)
        m.d.comb += self.weights.eq(weights)
        for tap in range(taps):
            for lane in range(lanes):
                group = lane // LANES_CLEARED
                m.d.sync += [
                    present[tap][lane].eq(Mux(ones[group], 1, words.word_select(tap * lanes + lane, 8))),
                    weights[tap][lane].eq(Mux(clear[group][tap], 0, present[tap][lane])),
                ]
        return m
