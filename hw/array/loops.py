"""The loop nest of an ARRAY instruction: which loops are at their last iteration."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.isa import LAYOUTS, Opcode

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

LAST_LAYOUT = data.StructLayout({loop: 1 for loop in LOOPS})


class LoopNest(Component):
    """Counts the steps of an instruction.

    ``load`` sets all loops to their first iteration; ``advance`` goes to the next step and after the last one of the instruction
    to the first again. The outputs describe the current step and change in the cycle after ``load`` or ``advance``.

    Members
    -------
    fields : In
        The instruction; constant from ``load`` to the last ``advance``.
    load, advance : In(1)
        Not in the same cycle.
    last : Out
        For each loop, whether it is at its last iteration.
    top : Out(1)
        Step of the top digit plane.
    opens : Out(1)
        First step of a plane.
    """

    fields: In(ARRAY_FIELDS)
    load: In(1)
    advance: In(1)
    last: Out(LAST_LAYOUT)
    top: Out(1)
    opens: Out(1)

    def elaborate(self, platform):
        """A down counter and its registered zero flag for each loop."""
        m = Module()
        carry = self.advance
        carries = {}
        for loop, field in LOOPS.items():
            limit = self.fields[field]
            count = Signal(limit.shape(), name=f"{loop}_count")
            last = self.last[loop]
            with m.If(self.load | carry):
                reload = self.load | last
                m.d.sync += [count.eq(Mux(reload, limit, count - 1)), last.eq(Mux(reload, limit == 0, count == 1))]
            carries[loop] = carry
            carry = carry & last
        with m.If(self.load | carries["output_group"]):
            m.d.sync += self.top.eq(1)
        with m.Elif(carries["plane"]):
            m.d.sync += self.top.eq(0)
        with m.If(self.load | self.advance):
            m.d.sync += self.opens.eq(self.load | carries["plane"])
        return m
