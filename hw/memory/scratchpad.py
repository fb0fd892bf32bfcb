"""A scratchpad: P banks of K-byte words that the engines read and write."""

from amaranth.hdl import Array, Module, Mux, Signal, unsigned
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.interfaces import WORD_READ_LAYOUT, BankReadSignature, BankWriteSignature, word_write_layout
from tercel.hw.isa import Space
from tercel.hw.memory.space import COLLISION_FREE


class Scratchpad(Component):
    """P banks of ``depth`` words of 8K bits, each with one read and one write port.

    A read of a word in the cycle of its write may return anything. Addresses are taken modulo ``depth``: who uses a port checks the
    range before.

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
        Taken when the engine does not read that bank in this cycle; ``store_data`` is the word two cycles later, when ``store_valid`` is 1.
    drain_write : In(BankWriteSignature(config))
        Always granted.
    depthwise_write, load_write : In(stream.Signature(word_write_layout(config)))
        Share one path to the banks, depthwise first; taken when the drain does not write that bank in this cycle.
    """

    def __init__(self, config: Config, *, depth: int, space: Space) -> None:
        self._config = config
        self._depth = depth
        self._space = space
        super().__init__(
            {
                "engine_read": In(BankReadSignature(config)),
                "store_read": In(stream.Signature(WORD_READ_LAYOUT)),
                "store_valid": Out(1),
                "store_data": Out(8 * config.lanes),
                "drain_write": In(BankWriteSignature(config)),
                "depthwise_write": In(stream.Signature(word_write_layout(config))),
                "load_write": In(stream.Signature(word_write_layout(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        """One memory a bank; the store engine's words are collected through a register behind the bank multiplexer."""
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
        store_free = Signal(pixels)
        write_free = Signal(pixels)
        store_ready = Signal()
        write_ready = Signal()
        m.d.comb += [
            store_mine.eq(store.valid & (store.p.space == self._space)),
            depthwise_mine.eq(depthwise.valid & (depthwise.p.space == self._space)),
            load_mine.eq(load.valid & (load.p.space == self._space)),
            store_free.eq(~self.engine_read.en),
            write_free.eq(~self.drain_write.en),
            write_valid.eq(depthwise_mine | load_mine),
            write.eq(Mux(depthwise_mine, depthwise.payload, load.payload)),
            store_ready.eq(store_free.bit_select(store.p.bank, 1)),
            write_ready.eq(write_free.bit_select(write.bank, 1)),
            store.ready.eq(store_mine & store_ready),
            depthwise.ready.eq(depthwise_mine & write_ready),
            load.ready.eq(load_mine & ~depthwise_mine & write_ready),
        ]

        shape = unsigned(8 * self._config.lanes)
        words = []
        for index in range(pixels):
            bank = m.submodules[f"bank_{index}"] = Memory(shape=shape, depth=self._depth, init=[], attrs=COLLISION_FREE)
            read_port = bank.read_port()
            write_port = bank.write_port()
            words.append(read_port.data)
            engine_en = self.engine_read.en[index]
            drain_en = self.drain_write.en[index]
            m.d.comb += [
                read_port.en.eq(engine_en | (store_mine & (store.p.bank == index))),
                read_port.addr.eq(Mux(engine_en, self.engine_read.addr[index], store.p.addr)[:addr_bits]),
                self.engine_read.data[index].eq(read_port.data),
                write_port.en.eq(drain_en | (write_valid & (write.bank == index))),
                write_port.addr.eq(Mux(drain_en, self.drain_write.addr[index], write.addr)[:addr_bits]),
                write_port.data.eq(Mux(drain_en, self.drain_write.data[index], write.data)),
            ]

        reading = Signal()
        bank_read = Signal.like(store.p.bank, reset_less=True)
        m.d.sync += [
            reading.eq(store.ready),
            bank_read.eq(store.p.bank),
            self.store_valid.eq(reading),
            self.store_data.eq(Array(words)[bank_read]),
        ]
        return m
