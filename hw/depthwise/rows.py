"""The row walk: pointers of the input rows of one output row after another, ahead of their use."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tercel.hw.config import Config
from tercel.hw.depthwise.column import ROW_LAYOUT
from tercel.hw.depthwise.countdown import Countdown
from tercel.hw.depthwise.plan import INSTRUCTION
from tercel.hw.depthwise.pointer import DELTA, POINTER, PointerAdd, wrap_address
from tercel.hw.interfaces import wrap_limit
from tercel.hw.isa import ADDR_BITS, Mode
from tercel.hw.mux_add import MuxAdd

_SLOTS = 2
_BLOCKS = 8


class RowTable(wiring.Component):
    """Row pointers of two output rows: one being used, one being written.

    Entry (slot, block) of table i is kernel row 3*block + i. A kernel of h rows takes 2*h cycles an output row. ``begin`` starts
    an instruction, whose fields hold until ``finished``; ``slot`` and ``block`` select the three ``row`` outputs in the same cycle.
    ``available``: the next output row can be read in the next cycle; ``taken`` takes it (in the order written, slots alternate);
    ``release`` frees the oldest slot taken.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "instruction": In(INSTRUCTION),
                "begin": In(1),
                "finished": Out(1),
                "slot": In(1),
                "block": In(3),
                "row": Out(data.ArrayLayout(ROW_LAYOUT, 3)),
                "available": Out(1),
                "taken": In(1),
                "release": In(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Three tables and the walk that fills them."""
        m = Module()
        i = self.instruction
        vector = i.mode == Mode.MATRIX_VECTOR

        # Place of the kernel row in hand and of its output row: bank, address, image row.
        bank, row_bank = Signal(4, reset_less=True), Signal(4, reset_less=True)
        addr, row_addr = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        line, row_line = Signal(signed(16), reset_less=True), Signal(signed(16), reset_less=True)
        third, block, slot = Signal(2), Signal(3), Signal(1)
        loops = []
        for name, last in (("kernel", Mux(vector, 0, i.kernel_height)), ("row", Mux(vector, 0, i.rows)), ("group", i.groups)):
            m.submodules[name] = loop = Countdown(len(last))
            m.d.comb += loop.last.eq(last)
            loops.append(loop)
        kernel, rows, groups = loops

        # Entries are written a cycle late, which is when the row they complete can be taken; they are read a cycle after that.
        write, written = Signal(), Signal(3, reset_less=True)
        entry, row = Signal(range(_SLOTS * _BLOCKS), reset_less=True), Signal(ROW_LAYOUT, reset_less=True)
        m.d.sync += [
            entry.eq(slot * _BLOCKS + block),
            row.place.bank.eq(bank),
            row.place.addr.eq(addr),
            row.inside.eq(vector | ((line >= 0) & (line < i.in_height))),
        ]
        for index in range(3):
            m.submodules[f"table_{index}"] = table = Memory(shape=ROW_LAYOUT, depth=_SLOTS * _BLOCKS, init=[])
            write_port, read_port = table.write_port(), table.read_port(domain="comb")
            m.d.sync += written[index].eq(write & (third == index))
            m.d.comb += [
                write_port.addr.eq(entry),
                write_port.data.eq(row),
                write_port.en.eq(written[index]),
                read_port.addr.eq(self.slot * _BLOCKS + self.block),
                self.row[index].eq(read_port.data),
            ]

        free, filled = Signal(2, init=_SLOTS), Signal(2)
        commit = write & kernel.end
        m.d.sync += [
            free.eq(free + self.release - commit),
            filled.eq(filled + commit - self.taken),
        ]
        m.d.comb += self.available.eq(commit | filled[1] | (filled[0] & ~self.taken))

        # The operands of the next sum: this kernel row's pointer and its delta, or the output row's for the last one.
        base, delta = Signal(POINTER, reset_less=True), Signal(DELTA, reset_less=True)
        sum_bank, sum_addr = Signal(4, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        m.submodules.add = add = PointerAdd(self._config)
        m.submodules.far = far = MuxAdd(ADDR_BITS)
        m.d.comb += [add.a.eq(base), add.b.eq(delta), far.a.eq(i.in_pixel), far.c.eq(i.in_ky_addr), far.d.eq(i.in_row_addr)]
        soon = Mux(kernel.end, kernel.last == 0, kernel.soon)
        next_line = Mux(kernel.end, row_line + i.stride + 1, line + i.dilation_y)
        # The first sum is wrapped 2 cycles after ``begin``.
        limit, span = Signal(ADDR_BITS + 1, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        m.d.sync += [limit.eq(wrap_limit(i.in_limit)), span.eq(i.in_span)]
        wrapped = wrap_address(sum_addr, limit=limit, span=span)

        def restart() -> list:
            return [
                bank.eq(i.in_bank),
                row_bank.eq(i.in_bank),
                addr.eq(i.in_addr),
                row_addr.eq(i.in_addr),
                base.bank.eq(i.in_bank),
                base.addr.eq(i.in_addr),
                line.eq(i.y_start),
                row_line.eq(i.y_start),
            ]

        def operand(end) -> list:
            return [
                delta.bank.eq(Mux(end, i.in_row_bank, i.in_ky_bank)),
                delta.near.eq(Mux(end, i.in_row_addr, i.in_ky_addr)),
                delta.far.eq(far.o),
            ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [*restart(), *operand(kernel.last == 0)]
                m.d.comb += [far.sel.eq(kernel.last == 0), *(loop.start.eq(1) for loop in loops)]
                with m.If(self.begin):
                    m.next = "WRITE"
            with m.State("WRITE"), m.If((free != 0) | ~kernel.first):
                m.d.comb += write.eq(1)
                m.d.sync += [sum_bank.eq(add.o.bank), sum_addr.eq(add.o.addr), line.eq(next_line)]
                m.next = "WRAP"
            with m.State("WRAP"):
                m.d.sync += [bank.eq(sum_bank), addr.eq(wrapped), third.eq(third + 1), *operand(soon)]
                m.d.sync += [base.bank.eq(Mux(kernel.soon, row_bank, sum_bank)), base.addr.eq(Mux(kernel.soon, row_addr, wrapped))]
                m.d.comb += [far.sel.eq(soon), kernel.step.eq(1), rows.step.eq(kernel.end), groups.step.eq(kernel.end & rows.end)]
                m.next = "WRITE"
                with m.If(third == 2):
                    m.d.sync += [third.eq(0), block.eq(block + 1)]
                with m.If(kernel.end):
                    m.d.sync += [third.eq(0), block.eq(0), slot.eq(slot + 1)]
                    m.d.sync += [row_bank.eq(sum_bank), row_addr.eq(wrapped), row_line.eq(line)]
                    with m.If(rows.end):
                        m.d.sync += restart()
                        with m.If(groups.end):
                            m.d.comb += self.finished.eq(1)
                            m.next = "IDLE"
        return m
