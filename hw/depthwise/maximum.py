"""The largest code of the columns of a word, for pooling."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.depthwise.column import taps_layout
from tercel.hw.depthwise.plan import INSTRUCTION, PLAN_LAYOUT
from tercel.hw.depthwise.window import window_layout
from tercel.hw.local_register import local


class Maximum(wiring.Component):
    """The right column of one ``window`` after another; ``largest`` has those up to a window :attr:`LATENCY` cycles after it.

    -256 is no code and stands for taps that do not count; where there are no others, the result is ``z_in``. Outside maximum
    mode the result is 0.
    """

    LATENCY = 5

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "instruction": In(INSTRUCTION),
                "plan": In(PLAN_LAYOUT),
                "window": In(window_layout(config)),
                "taps": In(taps_layout(config)),
                "largest": Out(data.ArrayLayout(signed(9), config.lanes)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Three comparators a lane."""
        m = Module()
        taps = delayed(m, self.taps, 3, name="taps")
        largest = Signal(self.largest.shape(), reset_less=True)
        m.d.comb += self.largest.eq(largest)
        for lane in range(self._config.lanes):
            names = ("upper", "lower", "column", "running")
            upper, lower, column, running = (Signal(signed(9), name=f"{name}_{lane}", reset_less=True) for name in names)
            above = Signal(name=f"above_{lane}", reset_less=True)
            m.d.sync += above.eq(self.window[2][lane] > self.window[5][lane])
            top, middle, bottom = (delayed(m, self.window[tap][lane], 1, name=f"code_{tap}_{lane}") for tap in (2, 5, 8))
            m.d.sync += [
                upper.eq(Mux(above, top, middle)),
                lower.eq(bottom),
                column.eq(Mux(upper > lower, upper, lower)),
            ]
            with m.If(taps.compute & (taps.first | (column > running))):
                m.d.sync += running.eq(column)
            maximum = local(m, self.plan.maximum, name=f"maximum_{lane}")
            m.d.sync += largest[lane].eq(Mux(maximum, Mux(running == -256, self.instruction.z_in, running), 0))
        return m
