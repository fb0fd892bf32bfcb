"""The weights of a window: a record, its codes turned into g*d + h, and zero for taps that do not count."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.depthwise.column import taps_layout
from tercel.hw.depthwise.plan import INSTRUCTION, PLAN_LAYOUT
from tercel.hw.interfaces import LinearReadSignature
from tercel.hw.mux_add import MuxAdd


def weights_layout(config: Config) -> data.ArrayLayout:
    """Operand weights: tap 3*row + column, then lane."""
    return data.ArrayLayout(data.ArrayLayout(signed(10), config.lanes), 9)


class Weights(wiring.Component):
    """``weights`` follows ``request`` by :attr:`LATENCY` cycles; the record is read 1 cycle after the request."""

    LATENCY = 4

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "instruction": In(INSTRUCTION),
                "plan": In(PLAN_LAYOUT),
                "request": In(taps_layout(config)),
                "record": Out(LinearReadSignature(16, 9 * 8 * config.lanes)),
                "weights": Out(weights_layout(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Memory, code register, adder, weight register."""
        m = Module()
        lanes, plan = self._config.lanes, self.plan
        request = delayed(m, self.request, 1, name="request", reset_less=False)
        m.d.comb += [self.record.en.eq(request.compute), self.record.addr.eq(request.record)]
        late = delayed(m, request, 1, name="late", reset_less=False)
        counts = Signal(9)
        codes = Signal(data.ArrayLayout(data.ArrayLayout(signed(8), lanes), 9))
        m.d.sync += codes.eq(Mux(plan.average, 0, self.record.data))
        in_kernel = Cat(late.rows[tap // 3] & late.columns[tap % 3] for tap in range(9))
        m.d.sync += counts.eq(Mux(plan.maximum, 0, Mux(plan.vector, (1 << min(lanes, 8)) - 1, in_kernel)))
        for tap in range(9):
            for lane in range(lanes):
                m.submodules[f"weight_{tap}_{lane}"] = weight = MuxAdd(10)
                m.d.comb += [
                    weight.a.eq(plan.offset),
                    weight.c.eq(codes[tap][lane]),
                    weight.d.eq(codes[tap][lane] << 1),
                    weight.sel.eq(self.instruction.gain),
                ]
                m.d.sync += self.weights[tap][lane].eq(Mux(counts[tap], weight.o.as_signed(), 0))
        return m
