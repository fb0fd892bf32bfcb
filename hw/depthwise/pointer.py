"""Pointer arithmetic: a bank in 0..P-1, and a word address modulo 2**14 that grows by a pixel's words where the banks reach P."""

from amaranth.hdl import Cat, Module, Mux, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.interfaces import BANK_BITS
from tercel.hw.isa import ADDR_BITS
from tercel.hw.mux_add import MuxAdd

POINTER = data.StructLayout({"bank": unsigned(BANK_BITS), "addr": unsigned(ADDR_BITS)})
"""A place in a scratchpad."""

DELTA = data.StructLayout({"bank": unsigned(BANK_BITS), "near": unsigned(ADDR_BITS), "far": unsigned(ADDR_BITS)})
"""The difference of two places: of their banks modulo P, and of their addresses if the sum of banks is below P (``near``) or reaches it.
``far`` is ``near`` plus the words of a pixel."""


class PointerAdd(Component):
    """``o = a + b``; combinational, a table of banks and an adder deep.

    Members
    -------
    a : In(POINTER), b : In(DELTA)
        A pointer and what to add.
    o : Out(POINTER)
        The sum.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__({"a": In(POINTER), "b": In(DELTA), "o": Out(POINTER)})

    def elaborate(self, platform) -> Module:
        """The banks choose one operand of the sum of addresses."""
        m = Module()
        bank, carry = add_banks(self.a.bank, self.b.bank, pixels=self.config.pixels)
        m.submodules.addr = addr = MuxAdd(ADDR_BITS)
        m.d.comb += [
            addr.a.eq(self.a.addr),
            addr.c.eq(self.b.near),
            addr.d.eq(self.b.far),
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
