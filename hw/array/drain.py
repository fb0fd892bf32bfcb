"""The drain: from the finished sums of a tile to codes in the scratchpad.

::

    last, tile -> SlotSequencer -+-> OperandFetch -> operands --+--> row 0: J lanes -> word -> bank 0
                                 +-> Selection ----> selection -+        residual codes -^
                                 +-> capture, write ------------+--> row 1, a cycle later ...

All that happens in row 0 happens in row p p cycles later, so the control is made once and moves down the rows in registers.
"""

from amaranth.hdl import Cat, Module, signed, unsigned
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from tercel.hw.array.cell import tree_levels
from tercel.hw.array.commit import CommitControl
from tercel.hw.array.drain_row import DrainRow, row_latency
from tercel.hw.array.drain_select import LATENCY as SELECT_LATENCY
from tercel.hw.array.drain_select import Selection
from tercel.hw.array.feed import RESIDUAL_WORD_BITS, act_layout, tile_layout
from tercel.hw.array.operands import OperandFetch
from tercel.hw.array.residual import ResidualCodes
from tercel.hw.array.slots import SlotSequencer
from tercel.hw.array.systolic import sums_latency, sums_layout
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.interfaces import BankWriteSignature, LinearReadSignature, parameter_word


def drain_latency(config: Config) -> int:
    """Cycles from the ``last`` of a tile to the cycle after its last write, besides the drain interval D of its instruction.

    The first ``last`` of an instruction comes at least D + this many cycles after the last ``last`` of the instruction before, D being
    the interval of the earlier one.
    """
    return tree_levels(config) + SELECT_LATENCY + row_latency(config) + config.pixels


class Drain(Component):
    """Requantizes the tiles of the array and writes them; as many cycles a tile as it has slots, no backpressure.

    The last write of a tile comes D + ``drain_latency`` - 1 cycles after its ``last``.

    Members
    -------
    last, tile, residual, residual_word : In
        Of the feed.
    acts : In(act_layout); sums : In(sums_layout)
        Of the array: the activations as row p gets them, p + 1 cycles after the feed, and the sums.
    parameter, threshold : Out(LinearReadSignature)
        ``threshold`` only with a threshold memory.
    write : Out(BankWriteSignature); write_space : Out(P)
        Row p writes bank p of scratchpad ``write_space[p]``, which is told with ``en``.
    finished : Out(1); done_index, done_post : Out(16), Out(4)
        Pulse in the cycle after the last write of an instruction, and which it was.
    """

    def __init__(self, config: Config):
        self.config = config
        members = {
            "last": In(1),
            "tile": In(tile_layout(config)),
            "residual": In(1),
            "residual_word": In(RESIDUAL_WORD_BITS),
            "acts": In(act_layout(config)),
            "sums": In(sums_layout(config)),
            "parameter": Out(LinearReadSignature(exact_log2(config.parameter_depth), parameter_word(config, config.drain_lanes))),
            "write": Out(BankWriteSignature(config)),
            "write_space": Out(config.pixels),
            "finished": Out(1),
            "done_index": Out(unsigned(16)),
            "done_post": Out(unsigned(4)),
        }
        if config.threshold_depth:
            members["threshold"] = Out(LinearReadSignature(exact_log2(config.threshold_depth), signed(16)))
        super().__init__(members)

    def elaborate(self, platform):
        """Control of row 0, then row by row what each needs, a cycle later than the row before."""
        m = Module()
        config, fields = self.config, self.tile.config
        m.submodules.sequencer = sequencer = SlotSequencer(config)
        m.submodules.operands = fetch = OperandFetch(config)
        m.submodules.selection = selection = Selection(config)
        m.submodules.commit = commit = CommitControl(config, latency=_to_slot(config) + SELECT_LATENCY + row_latency(config))
        # The sequencer starts in the cycle after ``last``; the residual codes are there at once, the sums only behind the adder tree.
        slot = delayed(m, sequencer.slot, _to_slot(config), name="slot")
        m.d.comb += [
            Cat(sequencer.last, commit.last).eq(self.last.replicate(2)),
            sequencer.tile.eq(self.tile),
            commit.tile.eq(self.tile),
            commit.slot.eq(sequencer.slot),
            *(block.fields.eq(fields) for block in (fetch, selection, commit)),
            *(block.slot.eq(slot) for block in (fetch, selection)),
        ]
        connect(m, fetch.parameter, flipped(self.parameter))
        if config.threshold_depth:
            connect(m, fetch.threshold, flipped(self.threshold))

        operands, static, select, finish = fetch.o, fetch.static, selection.o, commit.o
        output = sequencer.slot.output
        fill = Cat(self.residual & (self.residual_word == word) for word in range(config.words_per_tile))
        residual = Cat(fill, self.last)
        decisions, place = finish.decisions, finish.place
        for row in range(config.pixels):
            residual = delayed(m, residual, 1, name=f"residual_{row}")
            output = delayed(m, output, 1, name=f"output_{row}")
            static = delayed(m, static, 1, name=f"static_{row}")
            if row:
                select = delayed(m, select, 1, name=f"select_{row}")
                operands = delayed(m, operands, 1, name=f"operands_{row}")
                decisions = delayed(m, decisions, 1, name=f"decisions_{row}")
                place = delayed(m, place, 1, name=f"place_{row}")
            m.submodules[f"codes_{row}"] = codes = ResidualCodes(config)
            m.submodules[f"row_{row}"] = drain_row = DrainRow(config)
            m.d.comb += [
                codes.acts.eq(self.acts[row]),
                Cat(codes.fill, codes.last).eq(residual),
                codes.output.eq(output),
                drain_row.acc.eq(self.sums[row].acc),
                drain_row.asum.eq(self.sums[row].asum),
                drain_row.select.eq(select),
                drain_row.operands.eq(operands),
                drain_row.r.eq(delayed(m, codes.r, tree_levels(config), name=f"r_{row}")),
                drain_row.static.eq(static),
                drain_row.capture.eq(place.capture),
                drain_row.addr.eq(place.addr[row]),
                drain_row.number.eq(place.number),
                self.write.en[row].eq(decisions.write & place.valid[row]),
                self.write_space[row].eq(place.space),
                self.write.addr[row].eq(drain_row.write_addr),
                self.write.data[row].eq(drain_row.write_data),
            ]
        m.d.comb += [
            self.finished.eq(delayed(m, decisions.end, 2, name="end")),
            self.done_index.eq(delayed(m, self.tile.index, 1, name="index")),
            self.done_post.eq(delayed(m, self.tile.post, 1, name="post")),
        ]
        assert sums_latency(config) == 1 + _to_slot(config) + SELECT_LATENCY
        return m


def _to_slot(config: Config) -> int:
    """Cycles by which the slots are delayed, so that the selection meets the sums."""
    return tree_levels(config) - 1
