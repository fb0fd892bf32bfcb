"""The loop nest of an ARRAY instruction: which loops are at their last iteration."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.isa import LAYOUTS, Opcode
from tercel.hw.load_add import LoadAdd

ARRAY_FIELDS = LAYOUTS[Opcode.ARRAY]

LOOPS = {
    "group": "groups",
    "column": "kernel_width",
    "kernel_row": "kernel_height",
    "plane": "digits",
    "output_group": "output_groups",
    "tile": "tiles",
    "row": "rows",
}
"""Loops from the innermost out, and the field that holds their count less 1."""

INNERMOST = ("group", "column", "kernel_row", "plane")
"""The loops inside an output group."""

LAST_LAYOUT = data.StructLayout({loop: 1 for loop in LOOPS})


class LoopNest(Component):
    """Counts the steps of an instruction.

    ``load`` sets all loops to their first iteration; ``advance`` goes to the next step and after the last one of the instruction
    to the first again. The outputs describe the current step and change in the cycle after ``load`` or ``advance``.

    Members
    -------
    fields : In
        The instruction; constant from the cycle before ``load`` to the last ``advance``.
    load, advance : In(1)
        Not in the same cycle.
    tile : In(1)
        ``advance`` in a ``final`` step.
    last : Out
        For each loop, whether it is at its last iteration.
    kernel_row_end : Out(1)
        Last step of a kernel row: column and group are at their last iteration.
    row_end, end : Out(1)
        Last output group of the last tile of a row, and of the last row.
    final : Out(1)
        Last step of a tile: all loops inside an output group are at their last iteration.
    coming : Out(1)
        What ``final`` is after ``advance``.
    top : Out(1)
        Step of the top digit plane.
    opens : Out(1)
        First step of a plane.
    """

    fields: In(ARRAY_FIELDS)
    load: In(1)
    advance: In(1)
    tile: In(1)
    last: Out(LAST_LAYOUT)
    kernel_row_end: Out(1)
    row_end: Out(1)
    end: Out(1)
    final: Out(1)
    coming: Out(1)
    top: Out(1)
    opens: Out(1)

    def elaborate(self, platform):
        """For each loop a down counter and, in registers, whether it is at its last iteration and whether it will be after one more."""
        m = Module()
        single, short, soon = (
            {loop: Signal(name=f"{loop}_{name}", reset_less=True) for loop in LOOPS} for name in ("single", "short", "soon")
        )
        carry = Const(1, 1)
        for loop, field in LOOPS.items():
            limit, last = self.fields[field], self.last[loop]
            count = Signal(limit.shape(), name=f"{loop}_count")
            reload = self.load | last
            # Not the product of the loops inside, which would come late.
            carry = self.row_end if loop == "row" else carry
            moves = (self.advance if loop in INNERMOST else self.tile) & carry
            m.d.sync += [single[loop].eq(limit == 0), short[loop].eq(limit <= 1)]
            m.submodules[loop] = counter = LoadAdd(len(count))
            m.d.comb += [counter.a.eq(count), counter.b.eq(-1), counter.value.eq(limit), counter.load.eq(reload)]
            with m.If(self.load | moves):
                m.d.sync += [
                    count.eq(counter.o),
                    last.eq(Mux(self.load, single[loop], soon[loop])),
                    soon[loop].eq(Mux(reload, short[loop], count == 2)),
                ]
            if loop == "plane":
                plane_starts = carry
            carry = Const(1, 1) if loop == INNERMOST[-1] else carry & last
        # All inner loops but the group's at their last iteration: in this column, and in the next.
        last = self.last
        others, others_come = Signal(name="others", reset_less=True), Signal()
        m.d.comb += [
            others_come.eq(
                soon["column"]
                & Mux(last.column, soon["kernel_row"], last.kernel_row)
                & Mux(last.column & last.kernel_row, soon["plane"], last.plane)
            ),
            self.coming.eq(soon["group"] & Mux(last.group, others_come, others)),
        ]
        row_end_comes = Signal()
        m.d.comb += row_end_comes.eq(soon["output_group"] & Mux(last.output_group, soon["tile"], last.tile))
        with m.If(self.load | self.tile):
            m.d.sync += [
                self.row_end.eq(Mux(self.load, single["output_group"] & single["tile"], row_end_comes)),
                self.end.eq(
                    Mux(
                        self.load,
                        single["output_group"] & single["tile"] & single["row"],
                        row_end_comes & Mux(self.row_end, soon["row"], last.row),
                    )
                ),
            ]
        with m.If(self.load | (self.advance & last.group)):
            m.d.sync += others.eq(Mux(self.load, Cat(single[loop] for loop in INNERMOST[1:]).all(), others_come))
        with m.If(self.load | self.advance):
            m.d.sync += [
                self.kernel_row_end.eq(
                    Mux(self.load, single["group"] & single["column"], soon["group"] & Mux(last.group, soon["column"], last.column))
                ),
                self.final.eq(Mux(self.load, Cat(single[loop] for loop in INNERMOST).all(), self.coming)),
                self.opens.eq(self.load | plane_starts),
                self.top.eq(self.load | self.final | (self.top & ~plane_starts)),
            ]
        return m
