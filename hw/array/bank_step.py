"""A pointer that moves by the same number of pixels again and again."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.banks import wrapping_banks
from tercel.hw.array.pointer import POINTER
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.isa import ADDR_BITS
from tercel.hw.mux_add import MuxAdd
from tercel.hw.wide_mux import WideMux


class BankStep(Component):
    """``o`` = ``pointer`` plus a constant; combinational but for what is known of ``pointer`` beforehand.

    Members
    -------
    bank, near, far : In
        The constant: its bank; what it adds to the address when the banks do not wrap round, and when they do. 2 cycles before ``moves``.
    pointer : In(POINTER)
        Set with ``moves``.
    coming, moves : In
        Bank of the pointer in the next cycle, when ``moves`` sets it.
    o : Out(POINTER)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "bank": In(POINTER["bank"].shape),
                "near": In(ADDR_BITS),
                "far": In(ADDR_BITS),
                "pointer": In(POINTER),
                "coming": In(POINTER["bank"].shape),
                "moves": In(1),
                "o": Out(POINTER),
            }
        )

    def elaborate(self, platform):
        """Whether the banks wrap round is a register, read from a table of all banks; then bank and address are an addition each."""
        m = Module()
        pixels = self.config.pixels
        wraps = delayed(m, wrapping_banks(self.bank, pixels=pixels), 1, name="wraps")
        wrapped_bank = delayed(m, (self.bank - pixels)[: len(self.bank)], 1, name="wrapped_bank")
        m.submodules.table = table = WideMux(width=1, count=len(wraps))
        m.d.comb += [table.sel.eq(self.coming), Cat(table.inputs).eq(wraps)]
        carries = Signal(reset_less=True)
        with m.If(self.moves):
            m.d.sync += carries.eq(table.o)
        m.submodules.banks = banks = MuxAdd(len(self.bank))
        m.submodules.addresses = addresses = MuxAdd(ADDR_BITS)
        for adder, operand, near, far, o in (
            (banks, self.pointer.bank, self.bank, wrapped_bank, self.o.bank),
            (addresses, self.pointer.addr, self.near, self.far, self.o.addr),
        ):
            m.d.comb += [adder.a.eq(operand), adder.c.eq(near), adder.d.eq(far), adder.sel.eq(carries), o.eq(adder.o)]
        return m
