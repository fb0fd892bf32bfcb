"""A scratchpad: P banks of K-byte words that the engines read and write."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.interfaces import BANK_BITS, WORD_READ_LAYOUT, BankReadSignature, BankWriteSignature, word_write_layout
from tercel.hw.isa import Space
from tercel.hw.local_register import local
from tercel.hw.memory.block import block_bits, block_memory, block_read
from tercel.hw.wide_mux import WideMux

BLOCKS_PER_COPY = 4
"""Blocks of memory of a bank that share registers of their address and use."""


class Scratchpad(Component):
    """P banks of ``depth`` words of 8K bits, each with a port that the engine reads and one that writes or is read by stores.

    Two ports are what a block RAM has. Stores do not wait for the engine, which reads every bank in nearly every cycle.

    Registers for each bank lie in front of the port that writes, and one in front of those for the words of the streams: these are in
    their bank 3 cycles after they were taken. A read of a word in the cycle after that may return anything. Addresses are taken modulo
    ``depth``: who uses a port checks the range before.

    Parameters
    ----------
    config
        ``pixels`` and ``lanes`` are used.
    depth
        Words per bank, a power of two.
    space
        ``Space.ARRAY`` or ``Space.WINDOW``; transfers of the streams that name the other one are left alone.

    Members
    -------
    engine_read : In(BankReadSignature(config))
        Always granted; data valid in the next cycle only. Without ``en`` the bank is read as well, for no one.
    store_read : In(stream.Signature(WORD_READ_LAYOUT))
        Taken when neither the drain nor a word that was taken a cycle ago is written into that bank in this cycle; two cycles later the
        word is that bank's ``store_data``, in that cycle only.
    store_data : Out(8K) for each bank
    drain_write : In(BankWriteSignature(config))
        Always granted. ``en`` comes two cycles before its ``addr`` and ``data``, with which the word is written.
    depthwise_write, load_write : In(stream.Signature(word_write_layout(config)))
        Share one path to the banks, depthwise first. A word is taken when the drain does not write that bank in the next cycle.
    depthwise_next_bank, load_next_bank : In(BANK_BITS)
        Bank of the word that the stream offers in the next cycle, in a cycle in which it offers none to this scratchpad or the one it
        offers is taken. Whether a word has to wait is so known before it is offered.
    """

    def __init__(self, config: Config, *, depth: int, space: Space) -> None:
        self._config = config
        self._depth = depth
        self._space = space
        super().__init__(
            {
                "engine_read": In(BankReadSignature(config)),
                "store_read": In(stream.Signature(WORD_READ_LAYOUT)),
                "store_data": Out(data.ArrayLayout(8 * config.lanes, config.pixels)),
                "drain_write": In(BankWriteSignature(config)),
                "depthwise_write": In(stream.Signature(word_write_layout(config))),
                "load_write": In(stream.Signature(word_write_layout(config))),
                "depthwise_next_bank": In(BANK_BITS),
                "load_next_bank": In(BANK_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        """One memory a bank."""
        m = Module()
        pixels = self._config.pixels
        addr_bits = exact_log2(self._depth)

        store = self.store_read
        depthwise = self.depthwise_write
        load = self.load_write
        store_mine = Signal()
        depthwise_mine = Signal()
        load_mine = Signal()
        drain_next, drain_now = Signal(pixels), Signal(pixels)
        m.d.sync += [drain_next.eq(self.drain_write.en), drain_now.eq(drain_next)]
        taken = Signal(pixels)
        # Registers, as a stream's ready reaches far: the drain keeps the word that is offered waiting. It is looked up both for that word
        # and for the one that follows it.
        depthwise_waits, load_waits = Signal(reset_less=True), Signal(reset_less=True)
        for name, stream_, next_bank, waits, stays in (
            ("depthwise", depthwise, self.depthwise_next_bank, depthwise_waits, depthwise_mine & depthwise_waits),
            ("load", load, self.load_next_bank, load_waits, load_mine & (load_waits | depthwise_mine)),
        ):
            same, other = (
                _flag_of(m, self.drain_write.en, bank, name=f"{name}_{which}")
                for which, bank in (("same", stream_.p.bank), ("next", next_bank))
            )
            m.d.sync += waits.eq(Mux(stays, same, other))
        # What the drain does is known early enough for a copy beside the one who waits for it.
        store_waits = _flag_of(m, local(m, drain_next | taken, name="written_for_store"), store.p.bank, name="store")
        word_en = Signal(pixels)
        word = Signal(word_write_layout(self._config), reset_less=True)

        m.d.comb += [
            store_mine.eq(store.valid & (store.p.space == self._space)),
            depthwise_mine.eq(depthwise.p.spaces[self._space]),
            load_mine.eq(load.p.spaces[self._space]),
            store.ready.eq(store_mine & ~store_waits),
            depthwise.ready.eq(depthwise_mine & ~depthwise_waits),
            load.ready.eq(load_mine & ~depthwise_mine & ~load_waits),
            taken.eq(Mux(depthwise_mine, depthwise.p.banks, Mux(load_mine, load.p.banks, 0)) & ~drain_next),
        ]
        m.d.sync += [word_en.eq(taken), word.eq(Mux(depthwise_mine, depthwise.payload, load.payload))]

        word_bits = 8 * self._config.lanes
        part_bits = BLOCKS_PER_COPY * block_bits(platform, depth=self._depth, word_bits=word_bits)
        for index in range(pixels):
            drain_en = drain_now[index]
            addr = Mux(drain_en, self.drain_write.addr[index], Mux(word_en[index], word.addr, store.p.addr))[:addr_bits]
            next_use = Cat(drain_en | word_en[index], addr)
            written = Signal(word_bits, name=f"written_{index}", reset_less=True)
            m.d.sync += written.eq(Mux(drain_en, self.drain_write.data[index], word.data))
            for number, low in enumerate(range(0, word_bits, part_bits)):
                bits = slice(low, min(low + part_bits, word_bits))
                name = f"{index}_{number}"
                part = m.submodules[f"bank_{name}"] = block_memory(shape=unsigned(bits.stop - low), depth=self._depth)
                write_port = part.write_port()
                # Only registers drive the blocks. One address for both uses of the port, or synthesis would double the memory; it reads
                # whenever it does not write, and who wants a word takes it in its cycle.
                use = local(m, next_use, name=f"use_{name}")
                write_en, port_addr = use[0], use[1:]
                # Read in every cycle: an enable would have to reach every block.
                engine_addr = (self.engine_read.addr_high if 2 * low >= word_bits else self.engine_read.addr)[index][:addr_bits]
                m.d.comb += [
                    self.engine_read.data[index][bits].eq(block_read(m, part, en=Const(1), addr=engine_addr, name=f"word_{name}")),
                    self.store_data[index][bits].eq(block_read(m, part, en=~write_en, addr=port_addr, name=f"stored_{name}")),
                    write_port.en.eq(write_en),
                    write_port.addr.eq(port_addr),
                    write_port.data.eq(written[bits]),
                ]
        return m


def _flag_of(m: Module, flags: Value, bank: Value, *, name: str) -> Value:
    """The flag of a bank, through a multiplexer that synthesis cannot take apart: much waits for it."""
    if len(flags) == 1:
        return flags
    m.submodules[f"{name}_mux"] = mux = WideMux(width=1, count=len(flags))
    m.d.comb += [mux.inputs.as_value().eq(flags), mux.sel.eq(bank)]
    return mux.o
