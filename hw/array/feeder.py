"""The feeder: turns ARRAY instructions into one step of the array per cycle."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.array.bank_address import LATENCY as ADDRESS_LATENCY
from tercel.hw.array.bank_address import BankAddress
from tercel.hw.array.crossbar import LATENCY as ACT_LATENCY
from tercel.hw.array.crossbar import Crossbar
from tercel.hw.array.drain_timer import DrainTimer
from tercel.hw.array.feed import FeedSignature, weight_shape
from tercel.hw.array.input_walk import InputWalk
from tercel.hw.array.loops import ARRAY_FIELDS, LoopNest
from tercel.hw.array.pointer import RowPointers
from tercel.hw.array.step_control import StepControl
from tercel.hw.array.tile_descriptor import TileDescriptor
from tercel.hw.array.tile_walk import TileWalk
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.interfaces import START_LAYOUT, BankReadSignature, LinearReadSignature
from tercel.hw.isa import Fault
from tercel.hw.local_register import local
from tercel.hw.up_down import up_down

EVENTS = ("step", "conflict", "residual", "drain", "start")
"""What a cycle went to: a step; a further bank read of one; a residual word; waiting for the drain; instruction or row set-up."""

IN_FLIGHT_MAX = 4
"""Instructions from their start to their ``finished``."""

BITS_PER_COPY = 64
"""Of an instruction in the pipeline that share a register of their enable."""

LATENCY = ACT_LATENCY
"""Cycles from the issue of a step to ``feed``."""


class Feeder(Component):
    """Runs the loop nests of ARRAY instructions: reads activations, weights and residuals and gives them to the array.

    One step per cycle, also from tile to tile, but for: ``gcd(stride, P)`` cycles per step; N/K residual words before the last
    step of a tile; the last step of a tile waits until the one before is ``drain_interval`` cycles past (``drain_latency`` more for
    the first tile of an instruction). A new row takes 1 cycle, or as many as its predecessor was shorter than 5 more;
    a new instruction takes 5 cycles when it was there in time. An instruction is accepted when all steps of the one before it are issued.

    Every read and write of an instruction is checked against the depth of its scratchpad before it is performed. After a fault the
    feeder stops for good: steps before the faulting one still come out, that one and those behind do not, and the instruction
    stays unfinished.

    Members
    -------
    start : In stream
        Instructions with their index.
    finished : In(1)
        An instruction is finished, in order.
    idle : Out(1)
        Every instruction accepted is finished.
    fault_valid, fault_code, fault_index : Out
        Held.
    events : Out
        One of ``EVENTS`` in each cycle in which there is an instruction to feed and no fault.
    read : Out
        The array scratchpad.
    weight : Out
        The weight memory.
    feed : Out
        See :class:`FeedSignature`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(stream.Signature(START_LAYOUT)),
                "finished": In(1),
                "idle": Out(1, init=1),
                "fault_valid": Out(1),
                "fault_code": Out(4),
                "fault_index": Out(16),
                "events": Out(len(EVENTS)),
                "read": Out(BankReadSignature(config)),
                "weight": Out(LinearReadSignature(exact_log2(config.weight_depth), weight_shape(config))),
                "feed": Out(FeedSignature(config)),
            }
        )

    def elaborate(self, platform):
        """Control at cycle 0, then a token beside the data; ``stages[i]`` is the token i cycles after its issue."""
        m = Module()
        config = self.config
        m.submodules.control = control = StepControl(config)
        m.submodules.loops = loops = LoopNest()
        m.submodules.rows = rows = RowPointers(config)
        m.submodules.input_walk = input_walk = InputWalk(config)
        m.submodules.tile_walk = tile_walk = TileWalk(config)
        m.submodules.timer = timer = DrainTimer(config)
        m.submodules.addresses = addresses = BankAddress(config)
        m.submodules.crossbar = crossbar = Crossbar(config)
        m.submodules.descriptor = descriptor = TileDescriptor(config)

        # The instruction, and its copies that follow its first token down the pipeline.
        instruction_layout = data.StructLayout({"fields": ARRAY_FIELDS, "index": 16})
        current, early, late = (Signal(instruction_layout, name=name, reset_less=True) for name in ("current", "early", "late"))
        in_flight = Signal(range(IN_FLIGHT_MAX + 1))
        active, fresh, faulty, stopped = (Signal(name=name) for name in ("active", "fresh", "faulty", "stopped"))
        load, settled, loaded = Signal(), Signal(), Signal()
        fields, last = current.fields, loops.last

        ready = Signal(init=1)
        m.d.comb += [
            self.start.ready.eq(ready),
            load.eq(self.start.valid & self.start.ready),
            self.idle.eq(in_flight == 0),
        ]
        up_down(m, in_flight, up=load, down=self.finished)
        m.d.sync += [settled.eq(load), loaded.eq(settled)]
        with m.If(load):
            m.d.sync += active.eq(1)
        # ``load`` comes late in a cycle, from across the chip: all that can follows what is offered while nothing is active.
        with m.If(~active):
            m.d.sync += [current.fields.eq(self.start.payload.instruction[: ARRAY_FIELDS.size]), current.index.eq(self.start.payload.index)]
            m.d.sync += fresh.eq(1)

        # What this cycle does.
        decisions = control.decisions
        now, residual = decisions.feeder, decisions.addresses.residual
        running, issue = control.running, control.issue
        last_row_ends = now.tile & loops.end
        m.d.comb += [
            control.fields.eq(fields),
            control.active.eq(active),
            control.row_end.eq(loops.row_end),
            control.end.eq(loops.end),
            control.final.eq(loops.final),
            control.final_comes.eq(loops.coming),
            control.free_comes.eq(timer.coming),
            control.row_ready.eq(rows.ready),
            control.stop.eq(faulty | stopped),
            control.stopped.eq(stopped),
        ]
        with m.If(issue):
            m.d.sync += fresh.eq(0)
        with m.If(last_row_ends):
            m.d.sync += active.eq(0)
        # A register: much of the sequencer waits for it.
        m.d.sync += ready.eq(~load & (~active | last_row_ends) & (~in_flight[-1] | self.finished) & ~stopped & ~faulty)

        busy = (active | load) & ~stopped
        for number, event in enumerate((now.advance, control.conflict, now.residual, running & ~issue, ~running)):
            m.d.comb += self.events[number].eq(busy & event)

        m.d.comb += [
            loops.fields.eq(fields),
            loops.load.eq(local(m, settled, name="loops_load")),
            loops.advance.eq(decisions.loops.advance),
            loops.tile.eq(decisions.loops.tile),
            rows.start.eq(self.start.payload.instruction[: ARRAY_FIELDS.size]),
            rows.fields.eq(fields),
            rows.load.eq(~active),
            rows.next.eq(now.restart),
            input_walk.fields.eq(fields),
            input_walk.load.eq(loaded),
            input_walk.restart.eq(decisions.input_walk.restart),
            input_walk.input.eq(rows.input),
            input_walk.kernel_row.eq(rows.kernel_row),
            input_walk.running.eq(decisions.input_walk.running),
            input_walk.advance.eq(decisions.input_walk.advance),
            input_walk.tile.eq(decisions.input_walk.tile),
            input_walk.last.eq(last),
            input_walk.kernel_row_end.eq(loops.kernel_row_end),
            tile_walk.fields.eq(fields),
            tile_walk.restart.eq(decisions.tile_walk.restart),
            tile_walk.output.eq(rows.output),
            tile_walk.residual.eq(rows.residual),
            tile_walk.running.eq(decisions.tile_walk.running),
            tile_walk.advance.eq(decisions.tile_walk.tile),
            tile_walk.last_group.eq(last.output_group),
            tile_walk.residual_advance.eq(decisions.tile_walk.residual),
            timer.fields.eq(fields),
            timer.tile.eq(now.tile),
            timer.end.eq(loops.end),
        ]

        # The token of a step, a sub-cycle or a residual word.
        token_layout = data.StructLayout(
            {
                "access": 1,
                "begin": 1,
                "step": 1,
                "last": 1,
                "residual": 1,
            }
        )
        stages = [Signal(token_layout, name=f"token_{cycle}") for cycle in range(LATENCY + 1)]
        m.d.comb += [
            stages[0].access.eq(issue),
            stages[0].begin.eq(issue & fresh),
            stages[0].step.eq(now.advance),
            stages[0].last.eq(now.tile),
            stages[0].residual.eq(now.residual),
        ]
        # Known a cycle late: it takes a look at all addresses, and stops half of the feeder.
        for cycle in range(LATENCY):
            m.d.sync += stages[cycle + 1].eq(stages[cycle])
        with m.If(faulty | stopped):
            m.d.sync += stages[ADDRESS_LATENCY + 2].eq(0)
        # With the first token or before, but when no token of the instruction before is in the stages that look at it any more.
        self._follow(m, early, current, delayed(m, loaded, 1, name="loaded"), name="early")
        self._follow(m, late, early, stages[ADDRESS_LATENCY - 1].begin, name="late")

        m.d.comb += [
            addresses.fields.eq(fields),
            addresses.travelling.eq(early.fields),
            addresses.access.eq(issue),
            addresses.bank.eq(Mux(residual, tile_walk.residual_bank, input_walk.bank)),
            addresses.addr.eq(Mux(residual, tile_walk.residual_addr, input_walk.addr)),
            addresses.before.eq(input_walk.before),
            addresses.row_inside.eq(input_walk.row_inside),
            addresses.count.eq(tile_walk.count),
            addresses.stride.eq(Mux(residual, 0, fields.stride)),
            addresses.sub_cycle.eq(control.sub_cycle),
            addresses.residual.eq(residual),
            self.read.en.eq(addresses.en),
            crossbar.fields.eq(late.fields),
            crossbar.bank.eq(addresses.bank),
            crossbar.out_bank.eq(tile_walk.bank),
            crossbar.stride.eq(addresses.stride),
            crossbar.sub_cycle.eq(control.sub_cycle),
            crossbar.residual.eq(residual),
            crossbar.tail.eq(last.group & ~residual),
            crossbar.inside.eq(addresses.inside),
            crossbar.data.eq(self.read.data),
            descriptor.fields.eq(fields),
            descriptor.early.eq(early.fields),
            descriptor.late.eq(late.fields),
            descriptor.late_index.eq(late.index),
            descriptor.bank.eq(tile_walk.bank),
            descriptor.addr.eq(tile_walk.addr),
            descriptor.count.eq(tile_walk.count),
            descriptor.parameter_addr.eq(tile_walk.parameter_addr),
            descriptor.threshold_addr.eq(tile_walk.threshold_addr),
            descriptor.end.eq(loops.end),
            descriptor.last.eq(stages[2].last),
            descriptor.take.eq(stages[LATENCY - 1].last),
        ]
        for bank in range(config.pixels):
            m.d.comb += [self.read.addr[bank].eq(addresses.bank_addr[bank]), self.read.addr_high[bank].eq(addresses.bank_addr_high[bank])]

        checked = stages[ADDRESS_LATENCY]
        fault_index = Signal(16, reset_less=True)
        m.d.sync += faulty.eq((checked.access & addresses.fault) | (checked.last & descriptor.fault))
        m.d.comb += [
            # Its own register for those across the chip.
            self.fault_valid.eq(local(m, stopped | faulty, name="fault_valid")),
            self.fault_code.eq(Mux(self.fault_valid, Fault.SCRATCHPAD_RANGE, Fault.NONE)),
            self.fault_index.eq(fault_index),
        ]
        with m.If(~stopped):
            m.d.sync += [stopped.eq(faulty), fault_index.eq(early.index)]

        out = stages[LATENCY]
        m.d.comb += [
            # Read in every cycle: an enable would have to reach every block of the largest memory.
            self.weight.en.eq(1),
            self.weight.addr.eq(delayed(m, input_walk.weight_addr, LATENCY - 3, name="weight_addr")),
            self.feed.weights.eq(delayed(m, self.weight.data, 1, name="weights")),
            self.feed.acts.eq(crossbar.acts),
            self.feed.shift.eq(delayed(m, loops.opens & ~loops.top, LATENCY, name="shift")),
            self.feed.sum.eq(delayed(m, loops.top, LATENCY, name="sum")),
            self.feed.residual_word.eq(delayed(m, control.residual_word, LATENCY, name="residual_word")),
            self.feed.offset.eq(late.fields.offset),
            self.feed.tile.eq(descriptor.tile),
            *(getattr(self.feed, name).eq(out[name]) for name in ("step", "last", "residual")),
        ]
        return m

    def _follow(self, m: Module, copy, instruction, comes, *, name: str):
        """``copy`` becomes ``instruction`` at the end of the cycle after ``comes``; an enable for all bits is too long a wire."""
        bits = Value.cast(instruction)
        for number, low in enumerate(range(0, len(bits), BITS_PER_COPY)):
            part = slice(low, min(low + BITS_PER_COPY, len(bits)))
            with m.If(local(m, comes, name=f"{name}_comes_{number}")):
                m.d.sync += Value.cast(copy)[part].eq(bits[part])
