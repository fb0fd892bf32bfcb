"""When the next tile may be finished: the drain has no backpressure, the feeder keeps the distance."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.drain import drain_latency
from tercel.hw.array.feed import drain_interval
from tercel.hw.array.loops import ARRAY_FIELDS
from tercel.hw.config import Config


class DrainTimer(Component):
    """Counts the cycles since the last step of the tile before.

    Members
    -------
    fields : In
        The instruction of ``tile``, constant from 2 cycles before.
    tile, end : In(1)
        The last step of a tile is issued; it is the last tile of the instruction.
    free : Out(1)
        The last step of the next tile may be issued.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__({"fields": In(ARRAY_FIELDS), "tile": In(1), "end": In(1), "free": Out(1, init=1)})

    def elaborate(self, platform):
        """A down counter with a registered zero flag; the intervals are registers beside the instruction."""
        m = Module()
        config, fields = self.config, self.fields
        narrow = drain_interval(config, narrow=True, thresholds=0)
        plain = drain_interval(config, narrow=False, thresholds=0)
        longest = drain_interval(config, narrow=False, thresholds=15 if config.threshold_depth else 0)
        interval = Signal(range(longest + 1))
        left = Signal(range(longest + drain_latency(config)))
        m.d.sync += interval.eq(Mux(fields.narrow, narrow, plain * Mux(fields.thresholds == 0, 1, fields.thresholds)))
        with m.If(self.tile):
            m.d.sync += [
                left.eq(interval + Mux(self.end, drain_latency(config), 0) - 1),
                self.free.eq((interval == 1) & ~self.end),
            ]
        with m.Elif(~self.free):
            m.d.sync += [left.eq(left - 1), self.free.eq(left == 1)]
        return m
