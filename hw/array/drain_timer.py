"""When the next tile may be finished: the drain has no backpressure, the feeder keeps the distance."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.drain import drain_latency
from tercel.hw.array.feed import drain_interval
from tercel.hw.array.loops import ARRAY_FIELDS
from tercel.hw.config import Config
from tercel.hw.load_add import LoadAdd


class DrainTimer(Component):
    """Counts the cycles since the last step of the tile before.

    Members
    -------
    fields : In
        The instruction of ``tile``, constant from 3 cycles before.
    tile, end : In(1)
        The last step of a tile is issued; it is the last tile of the instruction.
    free, coming : Out(1)
        The last step of the next tile may be issued; ``coming``: in the next cycle.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__({"fields": In(ARRAY_FIELDS), "tile": In(1), "end": In(1), "free": Out(1, init=1), "coming": Out(1)})

    def elaborate(self, platform):
        """A down counter, and registers that say it is about to end; the intervals are registers beside the instruction."""
        m = Module()
        config, fields = self.config, self.fields
        narrow = drain_interval(config, narrow=True, thresholds=0)
        plain = drain_interval(config, narrow=False, thresholds=0)
        longest = drain_interval(config, narrow=False, thresholds=15 if config.threshold_depth else 0)
        # Less 1: what is left after a tile, and after the last one of an instruction.
        interval = Signal(range(longest), reset_less=True)
        last_interval = Signal(range(longest + drain_latency(config)), reset_less=True)
        left, soon = Signal(last_interval.shape()), Signal()
        m.d.sync += [
            interval.eq(Mux(fields.narrow, narrow, plain * Mux(fields.thresholds == 0, 1, fields.thresholds)) - 1),
            last_interval.eq(interval + drain_latency(config)),
        ]
        m.submodules.counter = counter = LoadAdd(len(left))
        m.d.comb += [
            counter.a.eq(left),
            counter.b.eq(-1),
            counter.value.eq(Mux(self.end, last_interval, interval)),
            counter.load.eq(self.tile),
        ]
        # The count goes on below 0, which does not matter: ``free`` stays until the next tile.
        m.d.sync += [left.eq(counter.o), soon.eq(Mux(self.tile, ~self.end & (interval == 1), left == 2))]
        at_once = ~self.end & (interval == 0) if narrow == 1 else 0
        m.d.comb += self.coming.eq(Mux(self.tile, at_once, self.free | soon))
        m.d.sync += self.free.eq(self.coming)
        return m
