"""Where the activations and the weight word of the current step are."""

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.array.banks import bank_carry, bank_sum
from tercel.hw.array.loops import ARRAY_FIELDS, LAST_LAYOUT
from tercel.hw.array.pointer import POINTER, exceeds
from tercel.hw.config import Config
from tercel.hw.isa import ADDR_BITS
from tercel.hw.mux_add import MuxAdd


class InputWalk(Component):
    """Follows the loop nest through the input tensor and the weight memory.

    The outputs belong to the current step; they change in the cycle after ``restart`` or ``advance``.

    Members
    -------
    fields : In
        The instruction, constant from 2 cycles before its first ``restart``.
    load : In(1)
        The next ``restart`` is the instruction's first row.
    restart : In(1)
        Go to the first step of the row at ``input``, whose second kernel row is at ``kernel_row``.
    running : In(1)
        There is a current step: ``advance`` may come, ``restart`` not.
    advance, last, final : In
        To the next step; what the loop nest says of the current one.
    bank : Out, addr : Out
        Pointer of the input pixel of pixel 0 of the tile, channel group included; ``bank`` in 0..P-1.
    before : Out
        Minus the column of that pixel.
    row_inside : Out(1)
        Its row is inside the image.
    weight_addr : Out
        The weight word; as wide as the memory is deep.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "fields": In(ARRAY_FIELDS),
                "load": In(1),
                "restart": In(1),
                "input": In(POINTER),
                "kernel_row": In(POINTER),
                "running": In(1),
                "advance": In(1),
                "last": In(LAST_LAYOUT),
                "final": In(1),
                "bank": Out(POINTER["bank"].shape),
                "addr": Out(ADDR_BITS),
                "before": Out(signed(17)),
                "row_inside": Out(1),
                "weight_addr": Out(exact_log2(config.weight_depth)),
            }
        )

    def elaborate(self, platform):
        """Registers for the pointer of the kernel column, the coming kernel row and the row, and for the offset of tile and group."""
        m = Module()
        fields, last = self.fields, self.last
        pixels = self.config.pixels

        # Each goes with `advance` only; all inner loops are at their last iteration.
        column_ends, kernel_row_ends, pass_ends, tile_ends = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            column_ends.eq(last.group),
            kernel_row_ends.eq(column_ends & last.column),
            pass_ends.eq(kernel_row_ends & last.kernel_row),
            tile_ends.eq(self.final & last.output_group),
        ]

        # Constants of the instruction that shorten the paths below.
        column_far, row_far, bound = Signal(ADDR_BITS), Signal(ADDR_BITS), Signal(ADDR_BITS)
        tile_columns = Signal(range(4 * pixels + 1))
        m.d.sync += [
            column_far.eq(fields.in_kx_addr + fields.in_pixel),
            row_far.eq(fields.in_ky_addr + fields.in_pixel),
            bound.eq(fields.in_limit - 1),
            tile_columns.eq(Array((stride + 1) * pixels for stride in range(4))[fields.stride]),
        ]

        # Pointers of the current kernel column and the coming kernel row, without tile and group; those of the row to return to.
        here, next_here, row, right = Signal(POINTER), Signal(POINTER), Signal(POINTER), Signal(POINTER)
        below, next_below, row_below, further = Signal(POINTER), Signal(POINTER), Signal(POINTER), Signal(POINTER)
        # The kernel row has two adders behind one another: whether its bank carries is known a step ahead.
        carries = Signal()
        m.submodules.right = right_adder = MuxAdd(ADDR_BITS)
        m.submodules.further = further_adder = MuxAdd(ADDR_BITS)
        total = further_adder.o
        m.d.comb += [
            right_adder.a.eq(here.addr),
            right_adder.c.eq(fields.in_kx_addr),
            right_adder.d.eq(column_far),
            right_adder.sel.eq(bank_carry(here.bank, fields.in_kx_bank, pixels=pixels)),
            right.bank.eq(bank_sum(here.bank, fields.in_kx_bank, pixels=pixels)),
            right.addr.eq(right_adder.o),
            further_adder.a.eq(below.addr),
            further_adder.c.eq(fields.in_ky_addr),
            further_adder.d.eq(row_far),
            further_adder.sel.eq(carries),
            further.bank.eq(bank_sum(below.bank, fields.in_ky_bank, pixels=pixels)),
            further.addr.eq(Mux(exceeds(total, bound), total - fields.in_span, total)),
        ]
        with m.If(~self.running):
            m.d.comb += [next_here.eq(self.input), next_below.eq(self.kernel_row)]
        with m.Elif(~last.column):
            m.d.comb += [next_here.eq(right), next_below.eq(below)]
        with m.Elif(~last.kernel_row):
            m.d.comb += [next_here.eq(below), next_below.eq(further)]
        with m.Else():
            m.d.comb += [next_here.eq(row), next_below.eq(row_below)]
        with m.If(self.restart | (self.advance & column_ends)):
            m.d.sync += [
                here.eq(next_here),
                below.eq(next_below),
                carries.eq(bank_carry(next_below.bank, fields.in_ky_bank, pixels=pixels)),
            ]
        with m.If(self.restart):
            m.d.sync += [row.eq(self.input), row_below.eq(self.kernel_row)]

        # Words of the tile and of the group within the pixel.
        tile_offset, offset, next_offset = Signal(ADDR_BITS), Signal(ADDR_BITS), Signal(ADDR_BITS)
        m.d.comb += next_offset.eq(Mux(tile_ends, tile_offset + fields.in_tile, tile_offset))
        with m.If(self.restart):
            m.d.sync += [tile_offset.eq(0), offset.eq(0)]
        with m.Elif(self.advance):
            m.d.sync += offset.eq(Mux(column_ends, next_offset, offset + 1))
            with m.If(column_ends):
                m.d.sync += tile_offset.eq(next_offset)
        m.d.comb += [self.bank.eq(here.bank), self.addr.eq(here.addr + offset)]

        # Column and row in the image.
        tile_before, next_before = Signal(signed(17)), Signal(signed(17))
        m.d.comb += next_before.eq(Mux(tile_ends, tile_before - tile_columns, tile_before))
        with m.If(self.restart):
            m.d.sync += [tile_before.eq(-fields.x_start), self.before.eq(-fields.x_start)]
        with m.Elif(self.advance & column_ends):
            m.d.sync += [
                tile_before.eq(next_before),
                self.before.eq(Mux(kernel_row_ends, next_before, self.before - fields.dilation_x)),
            ]
        y, row_y, next_y = Signal(signed(15)), Signal(signed(15)), Signal(signed(15))
        with m.If(self.load):
            m.d.sync += next_y.eq(fields.y_start)
        with m.If(self.restart):
            m.d.sync += [y.eq(next_y), row_y.eq(next_y), next_y.eq(next_y + fields.stride + 1)]
        with m.Elif(self.advance & kernel_row_ends):
            m.d.sync += y.eq(Mux(pass_ends, row_y, y + fields.dilation_y))
        m.d.comb += self.row_inside.eq((y >= 0) & (y[:14] < fields.in_height))

        with m.If(self.restart | (self.advance & tile_ends)):
            m.d.sync += self.weight_addr.eq(fields.weight_addr)
        with m.Elif(self.advance):
            m.d.sync += self.weight_addr.eq(self.weight_addr + 1)
        return m
