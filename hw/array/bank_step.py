"""A pointer that moves by the same number of pixels again and again."""

from amaranth.hdl import Cat, Module
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.banks import wrapping_banks
from tercel.hw.array.pointer import POINTER
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.isa import ADDR_BITS
from tercel.hw.mux_add import MuxAdd
from tercel.hw.wide_mux import WideMux

STEPPED = data.StructLayout({"carries": 1, "pointer": POINTER})
"""A pointer, and whether the banks wrap round with its next step: known with it, so that no addition waits for that."""


class BankStep(Component):
    """``o`` = ``i`` plus a constant; combinational.

    Members
    -------
    bank : In
        Of the constant, held from 2 cycles before its first use.
    near, far : In
        What it adds to the address when the banks do not wrap round, and when they do.
    i, o : STEPPED
    overflows : Out(1)
        The address of ``o`` is the sum's less 2**14.
    banks : In
        Other pointers' banks ...
    carries : Out
        ... and whether they wrap round with a step from there.
    """

    def __init__(self, config: Config, *, others: int) -> None:
        self.config = config
        bank = POINTER["bank"].shape
        super().__init__(
            {
                "bank": In(bank),
                "near": In(ADDR_BITS),
                "far": In(ADDR_BITS),
                "i": In(STEPPED),
                "o": Out(STEPPED),
                "overflows": Out(1),
                "banks": In(data.ArrayLayout(bank, others)),
                "carries": Out(others),
            }
        )

    def elaborate(self, platform):
        """An addition each for bank and address; whether the banks wrap round after this step is read from a table of all banks."""
        m = Module()
        pixels = self.config.pixels
        wrapped_bank = delayed(m, (self.bank - pixels)[: len(self.bank)], 1, name="wrapped_bank")
        reads = [(self.i.pointer.bank, 2, self.o.carries)]
        reads += [(bank, 1, self.carries[number]) for number, bank in enumerate(self.banks)]
        for number, (bank, steps, carries) in enumerate(reads):
            wraps = wrapping_banks(self.bank, pixels=pixels, steps=steps)
            m.submodules[f"table_{number}"] = table = WideMux(width=1, count=len(wraps))
            m.d.comb += [table.sel.eq(bank), table.inputs.as_value().eq(wraps), carries.eq(table.o)]
        m.submodules.sum_bank = sum_bank = MuxAdd(len(self.bank))
        m.submodules.sum_addr = sum_addr = MuxAdd(ADDR_BITS + 1)
        for adder, operand, near, far, o in (
            (sum_bank, self.i.pointer.bank, self.bank, wrapped_bank, self.o.pointer.bank),
            (sum_addr, self.i.pointer.addr, self.near, self.far, Cat(self.o.pointer.addr, self.overflows)),
        ):
            m.d.comb += [adder.a.eq(operand), adder.c.eq(near), adder.d.eq(far), adder.sel.eq(self.i.carries), o.eq(adder.o)]
        return m
