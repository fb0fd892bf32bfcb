"""Memories in block RAM whose readers never need a word in the cycle of its write."""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.memory import Memory

from tercel.hw.mux_add import fpga_family

_ECP5_WIDTHS = {16384: 1, 8192: 2, 4096: 4, 2048: 9, 1024: 18}
"""Bits of a block of memory by its depth on an ECP5 (Lattice TN-02204)."""

BLOCK_ATTRIBUTES = {"no_rw_check": 1}
"""Synthesis may return anything for a word that is read in the cycle of its write (the simulators return the old word)."""


def block_bits(platform, *, depth: int, word_bits: int) -> int:
    """Bits of a block that has a whole memory's ``depth``, where the FPGA's are known; else those of the word."""
    return _ECP5_WIDTHS.get(depth, word_bits) if fpga_family(platform) == "ecp5" else word_bits


def block_memory(*, shape, depth: int, **attributes: str) -> Memory:
    """A memory to be read with :func:`block_read`; ``attributes`` go to synthesis."""
    return Memory(shape=shape, depth=depth, init=[], attrs=BLOCK_ATTRIBUTES | attributes)


def block_read(m: Module, memory: Memory, *, en: Value, addr: Value, name: str) -> Signal:
    """The word at ``addr`` in the cycle after ``en``, held until the next one.

    Yosys makes the register part of the block. A synchronous read port of Amaranth asks for the old word in a collision, and yosys
    adds a register and a multiplexer for each bit, and a comparator of addresses, for a block that cannot promise it.
    """
    port = memory.read_port(domain="comb")
    word = Signal(memory.shape, name=name, reset_less=True)
    m.d.comb += port.addr.eq(addr)
    with m.If(en):
        m.d.sync += word.eq(port.data)
    return word
