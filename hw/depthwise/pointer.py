"""Pointer arithmetic as expressions: a bank in 0..P-1, a word address modulo 2**14, and ``pixel`` words between pixels i and i+P."""

from amaranth.hdl import Mux, Value

from ..isa import ADDR_BITS


def add_banks(a: Value, b: Value, *, pixels: int) -> tuple[Value, Value]:
    """Bank of a pixel ``b`` pixels past bank ``a`` (both in 0..P-1), and whether it carries into the next word column."""
    total = (a + b)[:5]
    carry = total >= pixels
    return Mux(carry, total - pixels, total)[:4], carry


def add_pointers(a, b, *, pixel: Value, pixels: int) -> tuple[Value, Value]:
    """Bank and address of pointer ``a`` plus delta ``b``, each a pair (bank, address). Two adders deep."""
    bank, carry = add_banks(a[0], b[0], pixels=pixels)
    return bank, ((a[1] + b[1])[:ADDR_BITS] + Mux(carry, pixel, 0))[:ADDR_BITS]


def wrap_address(addr: Value, *, limit: Value, span: Value) -> Value:
    """Address after a row delta: ``span`` less when it is at or above a ``limit`` that is not 0."""
    return Mux((limit != 0) & (addr >= limit), addr - span, addr)[:ADDR_BITS]
