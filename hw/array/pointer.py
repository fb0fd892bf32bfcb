"""Pointers of the coming output row, computed one after the other while the current row runs."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.banks import wrapping_banks
from tercel.hw.array.loops import ARRAY_FIELDS
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.interfaces import BANK_BITS
from tercel.hw.isa import ADDR_BITS
from tercel.hw.mux_add import MuxAdd
from tercel.hw.wide_mux import WideMux

POINTER = data.StructLayout({"bank": unsigned(BANK_BITS), "addr": unsigned(ADDR_BITS)})


def exceeds(addr: Value, bound: Value) -> Value:
    """Whether addr > bound, as the borrow of a subtraction, which becomes a carry chain; a comparison becomes a deep tree of LUTs."""
    return (bound - addr)[ADDR_BITS]


class RowPointers(Component):
    """The start of the coming output row: input, input one kernel row further, output, residual.

    ``load`` takes the first row's pointers from ``start``; ``ready`` comes 3 cycles after the last cycle with it. ``next`` (only in the
    cycle after ``ready``) moves on to the row after; from the second cycle after it the pointers change, ``ready`` comes 5 cycles later.

    Members
    -------
    start : In
        The instruction taken with the last ``load``.
    fields : In
        The same from the cycle after ``load`` on.
    load, next : In(1)
        ``load`` also abandons what is under way.
    ready : Out(1)
        In the next cycle all pointers are those of the coming row.
    input, kernel_row, output, residual : Out
        Pointers of pixel 0 of the first tile; ``kernel_row`` is ``input`` plus ``in_ky``.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(ARRAY_FIELDS),
                "fields": In(ARRAY_FIELDS),
                "load": In(1),
                "next": In(1),
                "ready": Out(1),
                "input": Out(POINTER),
                "kernel_row": Out(POINTER),
                "output": Out(POINTER),
                "residual": Out(POINTER),
            }
        )

    def elaborate(self, platform):
        """One adder, shared by the four pointers in turn: choice of operands, first sums, correction."""
        m = Module()
        fields = self.fields
        # Turn 0: the next input row, and the wait for ``next``; 1: output; 2: residual; 3: kernel row, which needs the result of turn 0;
        # 4, 5: the last result is on its way.
        turn = Signal(3)
        layout = data.StructLayout({"pointer": POINTER, "delta": POINTER, **dict.fromkeys(("pixel", "limit", "span"), ADDR_BITS)})
        operands = [
            (self.input, fields.in_row_bank, fields.in_row_addr, "in"),
            (self.output, fields.out_row_bank, fields.out_row_addr, "out"),
            (self.residual, fields.res_row_bank, fields.res_row_addr, "res"),
            (self.input, fields.in_ky_bank, fields.in_ky_addr, "in"),
        ]
        m.submodules.operands = choice = WideMux(width=layout.size, count=len(operands))
        m.d.comb += choice.sel.eq(turn[:2])
        operand = data.View(layout, choice.o)
        chosen = delayed(m, operand, 1, name="chosen")
        for number, (source, bank, addr, prefix) in enumerate(operands):
            tensor = Cat(fields[f"{prefix}_pixel"], fields[f"{prefix}_limit"], fields[f"{prefix}_span"])
            m.d.comb += choice.inputs[number].eq(Cat(source, bank, addr, tensor))

        # Whether the banks wrap round decides late what is added, so it is read from a table of all banks.
        pixels = self.config.pixels
        wraps = delayed(m, wrapping_banks(operand.delta.bank, pixels=pixels), 1, name="wraps")
        wrapped_bank = delayed(m, (operand.delta.bank - pixels)[:BANK_BITS], 1, name="wrapped_bank")
        m.submodules.wrap = wrap = WideMux(width=1, count=len(wraps))
        m.submodules.moved_bank = moved_bank = MuxAdd(BANK_BITS)
        m.submodules.moved = moved = MuxAdd(ADDR_BITS)
        m.d.comb += [
            Cat(wrap.inputs).eq(wraps),
            wrap.sel.eq(chosen.pointer.bank),
            moved_bank.a.eq(chosen.pointer.bank),
            moved_bank.c.eq(chosen.delta.bank),
            moved_bank.d.eq(wrapped_bank),
            moved_bank.sel.eq(wrap.o),
            moved.a.eq(chosen.delta.addr),
            moved.d.eq(chosen.pixel),
            moved.sel.eq(wrap.o),
        ]
        half = Signal(POINTER, reset_less=True)
        names = ("half_delta", "half_bound", "half_span")
        half_delta, half_bound, half_span = (Signal(ADDR_BITS, name=name, reset_less=True) for name in names)
        starting, landing = Signal(), Signal()
        target = delayed(m, turn, 2, name="target")
        m.d.sync += [
            half.bank.eq(moved_bank.o),
            half.addr.eq(chosen.pointer.addr),
            half_delta.eq(moved.o),
            # At or above a limit that is not 0 = above the limit less 1, modulo 2**14.
            half_bound.eq(chosen.limit - 1),
            half_span.eq(chosen.span),
            starting.eq(~turn[2] & ((turn != 0) | self.next)),
            landing.eq(starting),
        ]
        total, result = Signal(ADDR_BITS), Signal(POINTER)
        m.d.comb += [
            total.eq(half.addr + half_delta),
            result.bank.eq(half.bank),
            result.addr.eq(Mux(exceeds(total, half_bound), total - half_span, total)),
        ]
        for number, register in enumerate((self.input, self.output, self.residual, self.kernel_row)):
            with m.If(landing & (target == number)):
                m.d.sync += register.eq(result)

        with m.Switch(turn):
            with m.Case(0):
                m.d.sync += turn.eq(self.next)
            with m.Case(5):
                m.d.sync += turn.eq(0)
            with m.Default():
                m.d.sync += turn.eq(turn + 1)
        m.d.comb += self.ready.eq(~self.load & ((turn == 5) | ((turn == 0) & ~self.next)))

        with m.If(self.load):
            # The first row comes with the instruction; only its kernel row has to be computed.
            m.d.sync += [turn.eq(3), starting.eq(0), landing.eq(0)]
            for register, prefix in ((self.input, "in"), (self.output, "out"), (self.residual, "res")):
                m.d.sync += [register.bank.eq(self.start[f"{prefix}_bank"]), register.addr.eq(self.start[f"{prefix}_addr"])]
        return m
