r"""The depthwise / pooling / matrix-vector engine.

::

    start -> Intake -> RowTable ----rows---+
                |        (ahead)           v
                +-> Plan -> Loops -> WindowFetch <-> window scratchpad
                                           v
                        Weights ----> Window --> Maximum
                 (record memory) \      v          |
                                   ----> Taps <-----+
                                          v
                 (parameter memory) -> Results -> Placement -> write

Behind the fetch nothing stalls: room for a word is claimed before its last operation starts.
"""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out, connect

from tercel.hw.config import Config
from tercel.hw.depthwise.fetch import WindowFetch
from tercel.hw.depthwise.intake import Intake
from tercel.hw.depthwise.loops import Loops
from tercel.hw.depthwise.maximum import Maximum
from tercel.hw.depthwise.place import Placement
from tercel.hw.depthwise.plan import Plan
from tercel.hw.depthwise.results import Results
from tercel.hw.depthwise.rows import RowTable
from tercel.hw.depthwise.taps import Taps
from tercel.hw.depthwise.weights import Weights, record_signature
from tercel.hw.depthwise.window import Window
from tercel.hw.interfaces import BANK_BITS, BankReadSignature, EngineSignature, LinearReadSignature, parameter_word, word_write_layout
from tercel.hw.isa import Fault

QUEUE_WORDS = 64
"""Output words between the loops and the write port: the pipeline's latency and some waiting for the port."""


class DepthwiseEngine(wiring.Component):
    """Runs DEPTHWISE instructions one after the other; the next one's row pointers are prepared while one runs.

    Members beside those of :class:`EngineSignature`: ``read`` of the window scratchpad; ``record``: nine tap words of K weights,
    tap t = 3*row + column at bit 8*K*t, or the three of a row; ``parameter``; ``write``: one output word at a time, with its ``next_bank``
    (see :class:`~tercel.hw.memory.scratchpad.Scratchpad`). Per busy cycle one
    event: ``emit``, the operation issued completes a window; ``fill``, it does not; ``conflict``, a bank is needed twice; ``full``, results
    wait for the write port; ``taps``, the window before is still being multiplied (3 taps a cycle); ``start``, anything else: beginning,
    end, and row pointers not ready.
    """

    EVENTS = ("emit", "fill", "conflict", "full", "taps", "start")

    def __init__(self, config: Config) -> None:
        if not config.depthwise:
            raise ValueError("config.depthwise must be true, not false (this config has no depthwise engine)")
        self._config = config
        super().__init__(
            {
                **EngineSignature(len(self.EVENTS)).members,
                "read": Out(BankReadSignature(config)),
                "record": Out(record_signature(config)),
                "parameter": Out(LinearReadSignature(16, parameter_word(config, config.lanes))),
                "write": Out(stream.Signature(word_write_layout(config))),
                "write_next_bank": Out(BANK_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        """Blocks and wires."""
        m = Module()
        config = self._config
        m.submodules.intake = intake = Intake()
        m.submodules.plan = plan = Plan(config)
        m.submodules.rows = rows = RowTable(config)
        m.submodules.loops = loops = Loops(config)
        m.submodules.fetch = fetch = WindowFetch(config)
        m.submodules.window = window = Window(config)
        m.submodules.weights = weights = Weights(config)
        m.submodules.maximum = maximum = Maximum(config)
        m.submodules.taps = taps = Taps(config)
        m.submodules.results = results = Results(config)
        m.submodules.place = place = Placement(config, depth=QUEUE_WORDS)

        connect(m, wiring.flipped(self.start), intake.start)
        connect(m, wiring.flipped(self.done), intake.done)
        connect(m, wiring.flipped(self.read), fetch.read)
        connect(m, wiring.flipped(self.record), weights.record)
        connect(m, wiring.flipped(self.parameter), results.parameter)
        connect(m, wiring.flipped(self.write), place.write)
        connect(m, loops.column, fetch.column)

        m.d.comb += rows.instruction.eq(intake.ahead)
        for block in (plan, loops, fetch, window, maximum, results, place):
            m.d.comb += block.instruction.eq(intake.current)
        for block in (loops, fetch, window, weights, maximum, taps, results):
            m.d.comb += block.plan.eq(plan.plan)
        m.d.comb += [
            rows.begin.eq(intake.walk),
            intake.walked.eq(rows.finished),
            loops.begin.eq(intake.begin),
            place.begin.eq(intake.begin),
            intake.finishing.eq(place.finishing),
            intake.finished.eq(place.finished),
            # Rows and room.
            rows.slot.eq(fetch.slot),
            rows.block.eq(fetch.block),
            fetch.row.eq(rows.row),
            rows.release.eq(fetch.release),
            loops.available.eq(rows.available),
            rows.taken.eq(loops.taken),
            loops.credit.eq(place.credit),
            place.claim.eq(loops.claim),
            # The stages behind the fetch.
            window.arrival.eq(fetch.arrival),
            window.data.eq(self.read.data),
            weights.request.eq(fetch.request),
            maximum.window.eq(window.window),
            maximum.taps.eq(window.taps),
            taps.window.eq(window.window),
            taps.weights.eq(weights.weights),
            taps.taps.eq(window.taps),
            taps.largest.eq(maximum.largest),
            taps.bias.eq(results.bias),
            results.taps.eq(window.taps),
            results.sums.eq(taps.sums),
            results.sums_valid.eq(taps.valid),
            place.word.eq(results.word),
            place.word_valid.eq(results.word_valid),
            self.write_next_bank.eq(place.write_next_bank),
            # Faults and counters.
            intake.range_fault.eq(fetch.range_fault | place.range_fault),
            fetch.frozen.eq(intake.fault),
            self.fault_valid.eq(intake.fault),
            self.fault_code.eq(Fault.SCRATCHPAD_RANGE),
            self.fault_index.eq(intake.fault_index),
            self.idle.eq(~intake.busy),
        ]
        step = loops.column.valid & loops.column.ready
        emit = step & loops.column.payload.taps.compute
        fill = step & ~emit
        conflict = ~step & fetch.conflict
        full = ~step & ~conflict & loops.full
        taps_busy = ~step & ~conflict & loops.running & loops.busy
        start = intake.busy & ~step & ~conflict & ~full & ~taps_busy
        events = Signal(len(self.EVENTS))
        m.d.comb += events.eq(Cat(emit, fill, conflict, full, taps_busy, start))
        m.d.comb += self.events.eq(events)
        return m
