"""Where the activations and the weight word of the current step are."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.array.bank_step import STEPPED, BankStep
from tercel.hw.array.loops import ARRAY_FIELDS, LAST_LAYOUT
from tercel.hw.array.pointer import POINTER
from tercel.hw.config import Config
from tercel.hw.interfaces import wrap_limit
from tercel.hw.isa import ADDR_BITS
from tercel.hw.late_mux import LateMux
from tercel.hw.load_add import LoadAdd
from tercel.hw.mux_add import MuxAdd
from tercel.hw.wide_mux import WideMux


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
    advance, tile : In(1)
        To the next step; and from the last one of a tile.
    last, kernel_row_end : In
        What the loop nest says of the current step.
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
                "tile": In(1),
                "last": In(LAST_LAYOUT),
                "kernel_row_end": In(1),
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

        # Each but the last goes with ``advance`` only; all inner loops are at their last iteration. ``restart`` and ``advance`` say
        # when a value is taken, and nothing of which.
        column_ends, kernel_row_ends, pass_ends, tile_ends = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            column_ends.eq(last.group),
            kernel_row_ends.eq(self.kernel_row_end),
            pass_ends.eq(kernel_row_ends & last.kernel_row),
            tile_ends.eq(self.tile & last.output_group),
        ]
        moves = self.restart | (self.advance & column_ends)

        # Constants of the instruction: steps to the next kernel column and row, the latter less what they are compared with, and less
        # what is subtracted then, so that one addition each tells all of a step.
        column_far, row_far = (Signal(ADDR_BITS, name=name, reset_less=True) for name in ("column_far", "row_far"))
        near_margin, far_margin = (Signal(ADDR_BITS + 1, name=name, reset_less=True) for name in ("near_margin", "far_margin"))
        near_wrapped, far_wrapped = (Signal(ADDR_BITS, name=name, reset_less=True) for name in ("near_wrapped", "far_wrapped"))
        limit = wrap_limit(fields.in_limit)
        m.d.sync += [
            column_far.eq(fields.in_kx_addr + fields.in_pixel),
            row_far.eq(fields.in_ky_addr + fields.in_pixel),
            near_margin.eq(fields.in_ky_addr - limit),
            far_margin.eq(row_far - limit),
            near_wrapped.eq(fields.in_ky_addr - fields.in_span),
            far_wrapped.eq(row_far - fields.in_span),
        ]

        # Pointers of the current kernel column and the coming kernel row, without tile and group; those of the row to return to.
        here, row, below, row_below = (Signal(STEPPED, name=name, reset_less=True) for name in ("here", "row", "below", "row_below"))
        start, start_below, to_here, next_here, next_below, further = (
            Signal(STEPPED, name=name) for name in ("start", "start_below", "to_here", "next_here", "next_below", "further")
        )
        m.submodules.right = right = BankStep(self.config, others=2)
        m.submodules.further = further_step = BankStep(self.config, others=1)
        for step, bank, near, far, pointer in (
            (right, fields.in_kx_bank, fields.in_kx_addr, column_far, here),
            (further_step, fields.in_ky_bank, fields.in_ky_addr, row_far, below),
        ):
            m.d.comb += [step.bank.eq(bank), step.near.eq(near), step.far.eq(far), step.i.eq(pointer)]
        m.d.comb += [
            right.banks[0].eq(self.input.bank),
            right.banks[1].eq(below.pointer.bank),
            further_step.banks[0].eq(self.kernel_row.bank),
            Cat(start.carries, to_here.carries).eq(right.carries),
            start_below.carries.eq(further_step.carries),
            start.pointer.eq(self.input),
            start_below.pointer.eq(self.kernel_row),
            to_here.pointer.eq(below.pointer),
        ]
        # At or above the limit: what exceeds it is not negative. The sum of addresses counts modulo 2**14.
        m.submodules.margin = margin = MuxAdd(ADDR_BITS + 1)
        m.submodules.wrapped = wrapped = MuxAdd(ADDR_BITS)
        for adder, near, far in ((margin, near_margin, far_margin), (wrapped, near_wrapped, far_wrapped)):
            m.d.comb += [adder.a.eq(below.pointer.addr), adder.c.eq(near), adder.d.eq(far), adder.sel.eq(below.carries)]
        m.d.comb += [
            further.eq(further_step.o),
            further.pointer.addr.eq(Mux(margin.o[-1] ^ further_step.overflows, further_step.o.pointer.addr, wrapped.o)),
        ]
        m.submodules.next_here = choose_here = WideMux(width=here.shape().size, count=4)
        m.submodules.next_below = choose_below = WideMux(width=here.shape().size, count=4)
        m.d.comb += [
            choose_here.sel.eq(Cat(self.running & last.column, self.running & (~last.column | last.kernel_row))),
            choose_below.sel.eq(Cat(self.running, self.running & last.kernel_row)),
            next_here.eq(choose_here.o),
            next_below.eq(choose_below.o),
        ]
        # Not running, next kernel row, next kernel column, back to the row's first.
        for number, pointer in enumerate((start, to_here, right.o, row)):
            m.d.comb += choose_here.inputs[number].eq(pointer)
        # Not running, next kernel row, never, back to the row's first.
        for number, pointer in enumerate((start_below, further, row_below, row_below)):
            m.d.comb += choose_below.inputs[number].eq(pointer)
        with m.If(moves):
            m.d.sync += here.eq(next_here)
        with m.If(self.restart | (self.advance & kernel_row_ends)):
            m.d.sync += below.eq(next_below)
        with m.If(self.restart):
            m.d.sync += [row.eq(start), row_below.eq(start_below)]

        # Words of the tile and of the group within the pixel.
        tile_offset, offset = Signal(ADDR_BITS), Signal(ADDR_BITS)
        m.submodules.words = words = MuxAdd(ADDR_BITS)
        m.d.comb += [
            words.a.eq(Mux(tile_ends, fields.in_tile, 0) | ~column_ends),
            words.c.eq(offset),
            words.d.eq(tile_offset),
            words.sel.eq(column_ends),
        ]
        with m.If(self.advance):
            m.d.sync += offset.eq(words.o)
        with m.If(tile_ends):
            m.d.sync += tile_offset.eq(words.o)
        with m.If(self.restart):
            m.d.sync += [tile_offset.eq(0), offset.eq(0)]
        m.d.comb += [self.bank.eq(here.pointer.bank), self.addr.eq(here.pointer.addr + offset)]

        # Column and row in the image; minus the columns of a tile and of a kernel column are constants of the instruction.
        tile_before, tile_back = Signal(signed(17)), Signal(range(-4 * pixels, 1))
        first, back = Signal(signed(17)), Signal(signed(5))
        m.d.sync += [
            tile_back.eq(Array(-(stride + 1) * pixels for stride in range(4))[fields.stride]),
            first.eq(-fields.x_start),
            back.eq(-fields.dilation_x),
        ]
        # Next kernel column, back to the tile's first, the row's first, the next tile's first. What the loops say comes late, so all
        # sums are there by then.
        from_start = Signal()
        m.submodules.columns = columns = WideMux(width=17, count=4)
        m.d.comb += [
            from_start.eq(~self.running | tile_ends),
            columns.sel.eq(Cat(self.running & kernel_row_ends, from_start)),
        ]
        for number, column in enumerate((self.before + back, tile_before, first, tile_before + tile_back)):
            m.d.comb += columns.inputs[number].eq(column)
        with m.If(moves):
            m.d.sync += self.before.eq(columns.o)
        with m.If(self.restart | tile_ends):
            m.d.sync += tile_before.eq(columns.o)
        y, row_y, next_y = Signal(signed(15)), Signal(signed(15)), Signal(signed(15))
        m.submodules.rows = rows = LoadAdd(15)
        m.submodules.first_rows = first_rows = LoadAdd(15)
        m.d.comb += [
            rows.a.eq(y),
            rows.b.eq(fields.dilation_y),
            rows.value.eq(Mux(self.running, row_y, next_y)),
            rows.load.eq(~self.running | pass_ends),
            first_rows.a.eq(next_y),
            first_rows.b.eq(fields.stride + 1),
            first_rows.value.eq(fields.y_start),
            first_rows.load.eq(self.load),
        ]
        with m.If(self.load | self.restart):
            m.d.sync += next_y.eq(first_rows.o)
        with m.If(self.restart):
            m.d.sync += row_y.eq(next_y)
        with m.If(self.restart | (self.advance & kernel_row_ends)):
            m.d.sync += y.eq(rows.o)
        m.d.comb += self.row_inside.eq((y >= 0) & (y[:14] < fields.in_height))

        m.submodules.weights = weights = LateMux(len(self.weight_addr))
        m.d.comb += [weights.select.eq(from_start), weights.high.eq(fields.weight_addr), weights.low.eq(self.weight_addr + 1)]
        with m.If(self.restart | self.advance):
            m.d.sync += self.weight_addr.eq(weights.o)
        return m
