"""The loop nest of an instruction as a stream of column operations.

=============  ==============================================  ==================================================
slide          group, row, [fill: A B], x: B or A B            one operation an output, one more a row
gather         group, row, x, row block, column block: A B, B  two operations a 3x3 block
maximum        group, row, x, row block, column: B             one operation a column of up to three rows
vector         group, step, half: B B B                        three operations a record: the word's bytes go to 9 taps
=============  ==============================================  ==================================================

With 3 taps a cycle a window is multiplied for two cycles after its last operation, in which there is none. A maximum takes one such
cycle an output, for the requantizers' second half.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tercel.hw.config import Config
from tercel.hw.depthwise.column import column_layout
from tercel.hw.depthwise.countdown import Countdown
from tercel.hw.depthwise.plan import INSTRUCTION, PLAN_LAYOUT
from tercel.hw.depthwise.pointer import DELTA, POINTER, PointerAdd
from tercel.hw.isa import ADDR_BITS
from tercel.hw.local_register import local
from tercel.hw.memory.space import RECORD_TAPS
from tercel.hw.mux_add import MuxAdd


class Loops(wiring.Component):
    """Walks the loops; an operation a cycle while ``column`` is ready, the rows are there and results have room.

    ``begin`` starts an instruction in the next cycle; ``instruction`` and ``plan`` hold until all its operations are done.
    ``available``: in the next cycle there are the rows of an output row; ``taken`` takes them. ``credit``: in the next cycle there is room
    for one more word; ``claim`` takes it.
    ``full``: an operation waits for that room. ``busy``: it waits for the taps. ``running`` falls after the last operation.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "instruction": In(INSTRUCTION),
                "plan": In(PLAN_LAYOUT),
                "begin": In(1),
                "running": Out(1),
                "available": In(1),
                "taken": Out(1),
                "credit": In(1),
                "claim": Out(1),
                "full": Out(1),
                "busy": Out(1),
                "column": Out(stream.Signature(column_layout(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        """Counters, the operation they say, and pointers."""
        m = Module()
        i, plan, o = self.instruction, self.plan, self.column.payload
        double = i.stride[0]

        # Loop counters, outside in; phase counts the operations of an inner unit.
        loops = []
        for name, last in (
            ("group", i.groups),
            ("row", plan.row_last),
            ("x", plan.x_last),
            ("block", plan.block_last),
            ("inner", plan.inner_last),
        ):
            m.submodules[name] = loop = Countdown(len(last))
            m.d.comb += [loop.last.eq(last), loop.start.eq(self.begin)]
            loops.append(loop)
        _, _, xs, blocks, inners = loops
        # Its last value is known a cycle before.
        phase, phase_end = Signal(2), Signal(reset_less=True)
        # So are the ends of the loops: ``step``, which comes late, meets one register of each loop that it moves.
        ends = [Signal(name=f"{name}_end", reset_less=True) for name in ("inner", "unit", "line", "plane", "last")]
        inner_end, unit_end, line_end, plane_end, last_end = ends
        step = self.column.valid & self.column.ready

        # The operation.
        columns = Mux(inners.end | plan.maximum, plan.columns_last, 7)
        # Whether the operation has two columns, and the step to the next one's, are ready when it begins.
        two, next_two, delta = Signal(reset_less=True), Signal(), Signal(DELTA, reset_less=True)
        with m.If(self.begin | line_end | (phase_end & ~plan.slide)):
            m.d.comb += next_two.eq(plan.pairs)
        with m.Elif(phase_end):
            m.d.comb += next_two.eq(plan.pairs_later)
        next_phase_end = Signal()
        with m.If(self.begin):
            m.d.comb += next_phase_end.eq(plan.maximum)
        with m.Elif(phase_end):
            m.d.comb += next_phase_end.eq(plan.maximum | (plan.slide & ~line_end))
        with m.Else():
            m.d.comb += next_phase_end.eq(~plan.vector | phase[0])
        m.submodules.far = far = MuxAdd(ADDR_BITS)
        m.d.comb += [far.a.eq(i.in_pixel), far.c.eq(plan.step.near), far.d.eq(plan.step_two.addr), far.sel.eq(next_two)]
        with m.If(self.begin | step):
            m.d.sync += [
                phase_end.eq(next_phase_end),
                two.eq(next_two),
                delta.bank.eq(Mux(next_two, plan.step_two.bank, plan.step.bank)),
                delta.near.eq(Mux(next_two, plan.step_two.addr, plan.step.near)),
                delta.far.eq(far.o),
            ]
        next_end = next_phase_end
        for loop, carry, end in zip(reversed(loops), (phase_end, *ends[:-1]), ends, strict=True):
            m.d.comb += loop.step.eq(step & carry)
            next_end &= Mux(self.begin | carry, loop.then_end, loop.end)
            with m.If(self.begin | step):
                m.d.sync += end.eq(next_end)
        next_column = plan.columns_last[2] | ~xs.end & (double | plan.columns_last[1] | ~xs.soon)
        with m.If(plan.slide):
            with m.If(phase == 0):
                m.d.comb += [o.need_a.eq(1), o.need_b.eq(plan.columns_last[1] | (~double & ~xs.end))]
            with m.Else():
                m.d.comb += [o.need_a.eq(plan.columns_last[1]), o.need_b.eq(next_column)]
        with m.Elif(plan.maximum | plan.vector):
            m.d.comb += o.need_b.eq(1)
        with m.Else():
            m.d.comb += [o.need_a.eq(1), o.need_b.eq(Mux(phase == 0, columns[1], columns[2]))]

        place, number = Signal(POINTER, reset_less=True), Signal(signed(16), reset_less=True)
        names = ("record", "record_base", "parameter")
        record, record_base, parameter = (Signal(len(o.taps.record), name=name, reset_less=True) for name in names)
        group, block, slot = Signal(10, reset_less=True), Signal(3), Signal()
        m.d.comb += [
            o.two.eq(two),
            o.place.eq(place),
            o.column.eq(number),
            o.slot.eq(slot),
            o.block.eq(block),
            o.row_end.eq(line_end),
            o.byte.eq(Cat(phase, 0, ~inners.first)),
            o.taps.compute.eq(phase_end),
            o.taps.first.eq(inners.first & blocks.first & (~plan.vector | xs.first)),
            o.taps.last.eq(unit_end & (~plan.vector | xs.end)),
            o.taps.rows.eq(Mux(blocks.end, plan.rows_last, 7)),
            o.taps.columns.eq(columns),
            o.taps.record.eq(record),
            o.taps.parameter.eq(parameter),
        ]

        # Flow. Whether there is an operation is a register: ``step`` enables all of this, and decides much.
        available, credit = Signal(), Signal(reset_less=True)
        next_running, next_busy, waiting = Signal(), Signal(), Signal()
        m.d.comb += [
            next_running.eq(self.begin | self.running & ~(step & last_end)),
            waiting.eq(next_running & self.available & ~next_busy),
            self.full.eq(self.running & available & ~credit & ~self.busy),
            self.claim.eq(step & o.taps.last),
            self.taken.eq(step & line_end),
        ]
        m.d.sync += [
            self.running.eq(next_running),
            self.busy.eq(next_busy),
            available.eq(self.available),
            credit.eq(self.credit),
            self.column.valid.eq(waiting & self.credit),
        ]

        if self._config.depthwise_taps < RECORD_TAPS:
            # It counts with the operations, so that conflicts in the fetch do not bring windows closer together.
            once_more = Signal()
            m.d.comb += next_busy.eq(self.busy)
            with m.If(self.column.ready):
                m.d.comb += next_busy.eq(once_more)
                m.d.sync += once_more.eq(0)
            with m.If(step & phase_end):
                m.d.comb += next_busy.eq(~plan.maximum | unit_end)
                m.d.sync += once_more.eq(~plan.maximum)

        # Column pointers, relative to the row: of the next column, and of the output's first.
        x_place, x_number = Signal(POINTER, reset_less=True), Signal(signed(16), reset_less=True)
        m.submodules.column = column = PointerAdd(self._config)
        m.submodules.across = across = PointerAdd(self._config)
        # The bank comes first in an addition; it does not change while there are operations.
        step_x_bank = local(m, plan.step_x.bank, name="step_x_bank")
        m.d.comb += [
            column.a.eq(place),
            column.b.eq(delta),
            across.a.eq(x_place),
            across.b.bank.eq(step_x_bank),
            across.b.near.eq(plan.step_x.near),
            across.b.far.eq(plan.step_x.far),
        ]
        x_number_next = x_number + i.stride + 1
        next_group = group + 1
        start = Signal(POINTER)
        with m.If(~plan.vector):
            m.d.comb += start.addr.eq(Mux(plane_end, next_group, group))

        with m.If(step):
            with m.If(phase_end):
                # A slide goes on in phase 2: after its first output, one operation each.
                m.d.sync += [
                    phase.eq(Mux(plan.slide, 2, 0)),
                    record.eq(Mux(unit_end & ~plan.vector & ~plane_end, record_base, record + 1)),
                ]
            with m.Else():
                m.d.sync += phase.eq(phase + 1)
            with m.If(inner_end):
                m.d.sync += block.eq(Mux(unit_end, 0, block + 1))
            with m.If(line_end):
                m.d.sync += [phase.eq(0), slot.eq(~slot)]
            with m.If(plane_end):
                m.d.sync += [group.eq(next_group), record_base.eq(record + 1), parameter.eq(parameter + ~plan.average)]

            m.d.sync += [place.eq(column.o), number.eq(number + Mux(two, i.dilation_x << 1, i.dilation_x))]
            with m.If(inner_end & ~plan.slide):
                m.d.sync += [place.eq(x_place), number.eq(x_number)]
            with m.If(unit_end & ~plan.slide):
                m.d.sync += [place.eq(across.o), number.eq(x_number_next)]
            with m.If(line_end):
                m.d.sync += [place.eq(start), number.eq(i.x_start)]
            # A slide does not use the place of its output.
            with m.If(unit_end):
                m.d.sync += [x_place.eq(Mux(line_end, start, across.o)), x_number.eq(Mux(line_end, i.x_start, x_number_next))]
        with m.If(self.begin):
            m.d.sync += [
                group.eq(0),
                place.eq(0),
                number.eq(i.x_start),
                x_place.eq(0),
                x_number.eq(i.x_start),
                record.eq(i.record_addr),
                record_base.eq(i.record_addr),
                parameter.eq(i.parameter_addr),
            ]
        return m
