"""What the feeder does in each cycle: a step, a further bank read of one, a residual word, a new row, or nothing."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.banks import MAX_STRIDE, sub_cycle_shape, sub_cycles
from tercel.hw.array.feed import RESIDUAL_WORD_BITS
from tercel.hw.array.loops import ARRAY_FIELDS
from tercel.hw.config import Config
from tercel.hw.local_register import local

DECISIONS = data.StructLayout({"running": 1, "advance": 1, "tile": 1, "residual": 1, "restart": 1})
"""What happens in a cycle. ``running``: there is a current step; ``advance``: to the next step; ``tile``: and from the last one of a
tile; ``residual``: a residual word; ``restart``: to the first step of the coming row, never with ``running``."""

COPIES = ("feeder", "loops", "input_walk", "tile_walk", "addresses")
"""Who has the decisions in registers of their own."""


class StepControl(Component):
    """Decides what happens a cycle ahead: hundreds of registers follow, all over the feeder.

    Members
    -------
    fields : In
        The instruction, constant from 3 cycles before its first ``restart``.
    active : In(1)
        There is an instruction; its loops are set.
    row_end, end, final, final_comes : In(1)
        What the loop nest says of the current step; ``final`` after ``advance``.
    free_comes : In(1)
        In the next cycle the drain timer lets the last step of a tile pass.
    row_ready : In(1)
        In the next cycle the pointers are those of the coming row.
    stop : In(1)
        There is no current step in the cycle after the next, nor ever again.
    stopped : In(1)
        One cycle after ``stop``.
    running : Out(1)
        There is a current step.
    issue : Out(1)
        A step, a further read of one or a residual word.
    conflict : Out(1)
        A read of a step that is not its last.
    sub_cycle : Out
        Number of the current step's read.
    residual_word : Out
        Number of the current residual word.
    decisions : Out
        What happens, once for each of ``COPIES``; without reset, but 0 a few cycles into one.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "fields": In(ARRAY_FIELDS),
                "active": In(1),
                "row_end": In(1),
                "end": In(1),
                "final": In(1),
                "final_comes": In(1),
                "free_comes": In(1),
                "row_ready": In(1),
                "stop": In(1),
                "stopped": In(1),
                "running": Out(1),
                "issue": Out(1),
                "conflict": Out(1),
                "sub_cycle": Out(sub_cycle_shape(config)),
                "residual_word": Out(RESIDUAL_WORD_BITS),
                "decisions": Out(data.StructLayout(dict.fromkeys(COPIES, DECISIONS))),
            }
        )

    def elaborate(self, platform):
        """The next values of all that a step waits for, and from them the decisions."""
        m = Module()
        coming = Signal(DECISIONS)
        m.d.comb += [self.decisions[name].eq(local(m, coming, name=name)) for name in COPIES]
        now = self.decisions.feeder
        ends = self._reads(m, now)
        pending = self._residual(m, now)

        row_ends, next_running, next_final, held = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            row_ends.eq(now.tile & self.row_end),
            next_running.eq(~self.stopped & (now.restart | (self.running & ~row_ends))),
            next_final.eq(Mux(now.advance, self.final_comes, self.final)),
            held.eq(pending | ~self.free_comes),
            coming.running.eq(next_running),
            coming.advance.eq(next_running & ends & ~(next_final & held)),
            coming.tile.eq(next_running & ends & next_final & ~held),
            coming.residual.eq(next_running & next_final & pending),
            coming.restart.eq(self.active & self.row_ready & ~next_running & ~(now.tile & self.end) & ~self.stop),
        ]
        m.d.sync += self.running.eq(next_running)
        m.d.comb += self.issue.eq(now.advance | now.residual | self.conflict)
        return m

    def _reads(self, m: Module, now):
        """Counts the reads of a step; whether that of the next cycle will be the last."""
        counts = [sub_cycles(self.config, stride=stride) for stride in range(1, MAX_STRIDE + 1)]
        if max(counts) == 1:
            return 1
        final, next_final = Signal(), Signal()
        next_sub_cycle = Signal.like(self.sub_cycle)
        m.d.comb += [
            self.conflict.eq(self.running & ~now.residual & ~final),
            next_sub_cycle.eq(Mux(now.advance, 0, self.sub_cycle + self.conflict)),
            next_final.eq(next_sub_cycle == Array(count - 1 for count in counts)[self.fields.stride]),
        ]
        m.d.sync += [self.sub_cycle.eq(next_sub_cycle), final.eq(next_final)]
        return next_final

    def _residual(self, m: Module, now):
        """Counts the residual words of a tile; whether one has to come before its last step, as of the next cycle."""
        words = self.config.words_per_tile
        pending, next_pending = Signal(), Signal()
        word = Signal(range(words))
        with m.If(now.residual):
            m.d.sync += word.eq(Mux(word == words - 1, 0, word + 1))
        remaining = pending & ~(now.residual & (word == words - 1))
        m.d.comb += [next_pending.eq(Mux(now.restart | now.tile, self.fields.residual, remaining)), self.residual_word.eq(word)]
        m.d.sync += pending.eq(next_pending)
        return next_pending
