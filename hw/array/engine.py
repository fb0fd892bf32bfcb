"""The array engine: feeder, systolic array and drain."""

from amaranth.hdl import Module, ResetSignal, Signal, signed
from amaranth.lib import fifo
from amaranth.lib.wiring import Component, Out, connect, flipped
from amaranth.utils import exact_log2

from tercel.hw.array.drain import Drain
from tercel.hw.array.feed import weight_shape
from tercel.hw.array.feeder import EVENTS, IN_FLIGHT_MAX, Feeder
from tercel.hw.array.systolic import SystolicArray
from tercel.hw.config import Config
from tercel.hw.interfaces import (
    DONE_LAYOUT,
    BankReadSignature,
    BankWriteSignature,
    EngineSignature,
    LinearReadSignature,
    parameter_word,
)
from tercel.hw.local_register import local
from tercel.hw.reset_domain import reset_domain


class ArrayEngine(Component):
    """Runs ARRAY instructions; see :class:`Feeder` for timing and faults.

    Members
    -------
    start, done, idle, fault_valid, fault_code, fault_index, events
        Those of :class:`EngineSignature`; ``events`` are named by ``EVENTS`` of the feeder's module.
    read, weight : Out
        Array scratchpad and weight memory.
    parameter, threshold : Out
        Parameter and threshold memory; ``threshold`` only where the config has one.
    write, write_space : Out
        Words written, and with ``en`` for each bank into which scratchpad (0 array, 1 window); every write is accepted.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        members = dict(EngineSignature(len(EVENTS)).members)
        members |= {
            "read": Out(BankReadSignature(config)),
            "weight": Out(LinearReadSignature(exact_log2(config.weight_depth), weight_shape(config))),
            "parameter": Out(LinearReadSignature(exact_log2(config.parameter_depth), parameter_word(config, config.drain_lanes))),
            "write": Out(BankWriteSignature(config)),
            "write_space": Out(config.pixels),
        }
        if config.threshold_depth:
            members["threshold"] = Out(LinearReadSignature(exact_log2(config.threshold_depth), signed(16)))
        super().__init__(members)

    def elaborate(self, platform):
        """Wires, and a queue for finished instructions."""
        m = Module()
        feeder, array, drain = Feeder(self.config), SystolicArray(self.config), Drain(self.config)
        for name, part in (("feeder", feeder), ("array", array), ("drain", drain)):
            own_reset = local(m, ResetSignal(), name=f"{name}_reset")
            m.submodules[name] = reset_domain(m, own_reset, name=f"array_{name}")(part)
        # Deep enough for all instructions in flight: an instruction leaves with its transfer.
        m.submodules.finished = finished = fifo.SyncFIFOBuffered(width=DONE_LAYOUT.size, depth=IN_FLIGHT_MAX)

        connect(m, flipped(self.start), feeder.start)
        connect(m, feeder.read, flipped(self.read))
        connect(m, feeder.weight, flipped(self.weight))
        connect(m, feeder=feeder.feed, array=array.feed)
        connect(m, drain.parameter, flipped(self.parameter))
        if self.config.threshold_depth:
            connect(m, drain.threshold, flipped(self.threshold))
        connect(m, drain.write, flipped(self.write))

        report = Signal(DONE_LAYOUT)
        m.d.comb += [
            drain.last.eq(feeder.feed.last),
            drain.tile.eq(feeder.feed.tile),
            drain.residual.eq(feeder.feed.residual),
            drain.residual_word.eq(feeder.feed.residual_word),
            drain.acts.eq(array.acts),
            drain.sums.eq(array.sums),
            self.write_space.eq(drain.write_space),
            report.index.eq(drain.done_index),
            report.post.eq(drain.done_post),
            finished.w_en.eq(drain.finished),
            finished.w_data.eq(report),
            finished.r_en.eq(self.done.ready),
            self.done.valid.eq(finished.r_rdy),
            self.done.payload.eq(finished.r_data),
            feeder.finished.eq(self.done.valid & self.done.ready),
            self.idle.eq(feeder.idle),
            self.events.eq(feeder.events),
            self.fault_valid.eq(feeder.fault_valid),
            self.fault_code.eq(feeder.fault_code),
            self.fault_index.eq(feeder.fault_index),
        ]
        return m
