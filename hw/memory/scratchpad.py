"""A scratchpad: P banks of K-byte words that the engines read and write."""

from amaranth.hdl import Array, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.interfaces import WORD_READ_LAYOUT, BankReadSignature, BankWriteSignature, word_write_layout
from tercel.hw.isa import Space
from tercel.hw.memory.block import block_memory, block_read


class Scratchpad(Component):
    """P banks of ``depth`` words of 8K bits, each with a port that the engine reads and one that writes or is read by stores.

    Two ports are what a block RAM has. Stores do not wait for the engine, which reads every bank in nearly every cycle.

    A register for each bank lies in front of the port that writes: a word is in its bank 2 cycles after it was taken. A read of a word
    in the cycle after that may return anything. Addresses are taken modulo ``depth``: who uses a port checks the range before.

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
        Always granted; data valid in the next cycle only.
    store_read : In(stream.Signature(WORD_READ_LAYOUT))
        Taken when the drain does not write that bank in this cycle and no word for it is offered; two cycles later the word is that
        bank's ``store_data``.
    store_data : Out(8K) for each bank
    drain_write : In(BankWriteSignature(config))
        Always granted.
    depthwise_write, load_write : In(stream.Signature(word_write_layout(config)))
        Share one path to the banks, depthwise first. A word is taken when the drain does not write that bank in this cycle.
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
        write_valid = Signal()
        write = Signal(word_write_layout(self._config))

        def drained(request):
            return Array(self.drain_write.en)[request.p.bank]

        def here(request):
            return request.p.bank == store.p.bank

        m.d.comb += [
            store_mine.eq(store.valid & (store.p.space == self._space)),
            depthwise_mine.eq(depthwise.valid & (depthwise.p.space == self._space)),
            load_mine.eq(load.valid & (load.p.space == self._space)),
            write_valid.eq(depthwise_mine | load_mine),
            write.eq(Mux(depthwise_mine, depthwise.payload, load.payload)),
            store.ready.eq(store_mine & ~drained(store) & ~(depthwise_mine & here(depthwise)) & ~(load_mine & here(load))),
            depthwise.ready.eq(depthwise_mine & ~drained(depthwise)),
            load.ready.eq(load_mine & ~depthwise_mine & ~drained(load)),
        ]

        shape = unsigned(8 * self._config.lanes)
        for index in range(pixels):
            bank = m.submodules[f"bank_{index}"] = block_memory(shape=shape, depth=self._depth)
            write_port = bank.write_port()
            engine_en = self.engine_read.en[index]
            drain_en = self.drain_write.en[index]
            word_en = write_valid & (write.bank == index)
            # Only registers drive the blocks of a bank. One address for both uses of the port, or synthesis would double the memory.
            write_en = Signal(name=f"write_en_{index}")
            store_en = Signal(name=f"store_en_{index}", reset_less=True)
            addr = Signal(addr_bits, name=f"addr_{index}", reset_less=True)
            written = Signal(shape, name=f"written_{index}", reset_less=True)
            m.d.sync += [
                write_en.eq(drain_en | word_en),
                store_en.eq(store_mine & (store.p.bank == index)),
                addr.eq(Mux(drain_en, self.drain_write.addr[index], Mux(word_en, write.addr, store.p.addr))),
                written.eq(Mux(drain_en, self.drain_write.data[index], write.data)),
            ]
            m.d.comb += [
                self.engine_read.data[index].eq(
                    block_read(m, bank, en=engine_en, addr=self.engine_read.addr[index][:addr_bits], name=f"word_{index}")
                ),
                self.store_data[index].eq(block_read(m, bank, en=store_en & ~write_en, addr=addr, name=f"stored_{index}")),
                write_port.en.eq(write_en),
                write_port.addr.eq(addr),
                write_port.data.eq(written),
            ]
        return m
