"""A scratchpad: P banks of K-byte words that the engines read and write."""

from amaranth.hdl import Array, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.interfaces import WORD_READ_LAYOUT, BankReadSignature, BankWriteSignature, word_write_layout
from tercel.hw.isa import Space
from tercel.hw.local_register import local
from tercel.hw.memory.block import block_memory, block_read


class Scratchpad(Component):
    """P banks of ``depth`` words of 8K bits, each with a port that the engine reads and one that writes or is read by stores.

    Two ports are what a block RAM has. Stores do not wait for the engine, which reads every bank in nearly every cycle.

    A register for each bank lies in front of the port that writes, and one in front of those for the words of the streams: these are in
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
        Always granted; data valid in the next cycle only.
    store_read : In(stream.Signature(WORD_READ_LAYOUT))
        Taken when neither the drain nor a word that was taken a cycle ago is written into that bank in this cycle; two cycles later the
        word is that bank's ``store_data``.
    store_data : Out(8K) for each bank
    drain_write : In(BankWriteSignature(config))
        Always granted. ``en`` comes two cycles before its ``addr`` and ``data``, with which the word is written.
    depthwise_write, load_write : In(stream.Signature(word_write_layout(config)))
        Share one path to the banks, depthwise first. A word is taken when the drain does not write that bank in the next cycle.
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
        # What the drain does is known early enough for a copy beside each who waits for it.
        drain_next, drain_now = Signal(pixels), Signal(pixels)
        m.d.sync += [drain_next.eq(self.drain_write.en), drain_now.eq(drain_next)]
        depthwise_waits = Array(local(m, self.drain_write.en, name="drain_for_depthwise"))
        load_waits = Array(local(m, self.drain_write.en, name="drain_for_load"))
        taken = Signal(pixels)
        store_waits = Array(local(m, drain_next | taken, name="written_for_store"))
        word_en = Signal(pixels)
        word = Signal(word_write_layout(self._config), reset_less=True)

        m.d.comb += [
            store_mine.eq(store.valid & (store.p.space == self._space)),
            depthwise_mine.eq(depthwise.valid & (depthwise.p.space == self._space)),
            load_mine.eq(load.valid & (load.p.space == self._space)),
            store.ready.eq(store_mine & ~store_waits[store.p.bank]),
            depthwise.ready.eq(depthwise_mine & ~depthwise_waits[depthwise.p.bank]),
            load.ready.eq(load_mine & ~depthwise_mine & ~load_waits[load.p.bank]),
        ]
        for index in range(pixels):
            named = Mux(depthwise_mine, depthwise.p.bank == index, load_mine & (load.p.bank == index))
            m.d.comb += taken[index].eq(named & ~drain_next[index])
        m.d.sync += [word_en.eq(taken), word.eq(Mux(depthwise_mine, depthwise.payload, load.payload))]

        shape = unsigned(8 * self._config.lanes)
        for index in range(pixels):
            bank = m.submodules[f"bank_{index}"] = block_memory(shape=shape, depth=self._depth)
            write_port = bank.write_port()
            engine_en = self.engine_read.en[index]
            drain_en = drain_now[index]
            # Only registers drive the blocks of a bank. One address for both uses of the port, or synthesis would double the memory.
            write_en = Signal(name=f"write_en_{index}")
            store_en = Signal(name=f"store_en_{index}", reset_less=True)
            addr = Signal(addr_bits, name=f"addr_{index}", reset_less=True)
            written = Signal(shape, name=f"written_{index}", reset_less=True)
            m.d.sync += [
                write_en.eq(drain_en | word_en[index]),
                store_en.eq(store_mine & (store.p.bank == index)),
                addr.eq(Mux(drain_en, self.drain_write.addr[index], Mux(word_en[index], word.addr, store.p.addr))),
                written.eq(Mux(drain_en, self.drain_write.data[index], word.data)),
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
