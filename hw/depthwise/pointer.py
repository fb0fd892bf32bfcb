"""Pointer arithmetic: a bank in 0..P-1, a word address modulo 2**14, and ``pixel`` words between pixels i and i+P."""

from amaranth.hdl import Cat, Module, Mux, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.interfaces import BANK_BITS
from tercel.hw.isa import ADDR_BITS
from tercel.hw.mux_add import MuxAdd

POINTER = data.StructLayout({"bank": unsigned(BANK_BITS), "addr": unsigned(ADDR_BITS)})
"""A place in a scratchpad, or the difference of two."""


class PointerAdd(Component):
    """``o = a + b``; combinational, two adders deep.

    Members
    -------
    a, b : In(POINTER)
        A pointer and a delta.
    pixel : In(ADDR_BITS)
        Words to carry when the banks reach P.
    o : Out(POINTER)
        The sum.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__({"a": In(POINTER), "b": In(POINTER), "pixel": In(ADDR_BITS), "o": Out(POINTER)})

    def elaborate(self, platform) -> Module:
        """The banks are ready before the first sum of addresses."""
        m = Module()
        bank, carry = add_banks(self.a.bank, self.b.bank, pixels=self.config.pixels)
        m.submodules.addr = addr = MuxAdd(ADDR_BITS)
        m.d.comb += [
            addr.a.eq(self.a.addr + self.b.addr),
            addr.c.eq(0),
            addr.d.eq(self.pixel),
            addr.sel.eq(carry),
            self.o.bank.eq(bank),
            self.o.addr.eq(addr.o),
        ]
        return m


def add_banks(a: Value, b: Value, *, pixels: int) -> tuple[Value, Value]:
    """(a + b) mod P of two banks in 0..P-1, and whether a + b reaches P.

    Tables, not adders: a few LUTs are faster than carry chains this short.
    """
    bits = (pixels - 1).bit_length()
    operands = Cat(a[:bits], b[:bits])

    def among(predicate) -> Value:
        codes = [first | second << bits for first in range(pixels) for second in range(pixels) if predicate(first + second)]
        return operands.matches(*codes)

    return Cat(among(lambda total, bit=bit: total % pixels >> bit & 1) for bit in range(bits)), among(lambda total: total >= pixels)


def wrap_address(addr: Value, *, limit: Value, span: Value) -> Value:
    """Address after a row delta: ``span`` less when it is at or above ``limit``, a :func:`~tercel.hw.interfaces.wrap_limit`.

    The sign of a difference tells, which becomes a carry chain; a comparison becomes a deep tree of LUTs.
    """
    below = (addr - limit)[ADDR_BITS + 1]
    return Mux(below, addr, addr - span)[:ADDR_BITS]
