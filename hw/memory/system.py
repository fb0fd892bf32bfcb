"""All memories and everything that moves data between them and external memory."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from tercel.hw.config import Config
from tercel.hw.interfaces import (
    BANK_BITS,
    BankReadSignature,
    BankWriteSignature,
    EngineSignature,
    MemoryReadSignature,
    WishboneSignature,
    beat_addr_bits,
    word_write_layout,
)
from tercel.hw.isa import Space
from tercel.hw.memory.collector import Collector
from tercel.hw.memory.linear import LinearMemory, linear_read_signature
from tercel.hw.memory.load import LoadEngine
from tercel.hw.memory.port import TIMEOUT_CYCLES, MemoryPort
from tercel.hw.memory.scratchpad import Scratchpad
from tercel.hw.memory.space import depth, spaces
from tercel.hw.memory.store import StoreEngine

_READS = {
    Space.WEIGHT: "weight_read",
    Space.PARAMETER: "parameter_read",
    Space.RECORD: "record_read",
    Space.DEPTHWISE_PARAMETER: "depthwise_parameter_read",
    Space.THRESHOLD: "threshold_read",
}


class MemorySystem(Component):
    """Scratchpads, linear memories, load engine, store engine and memory port.

    The members of memories that the config lacks do not exist: ``record_read``, ``depthwise_parameter_read``, ``depthwise_read``,
    ``depthwise_write`` and ``depthwise_write_next_bank`` without ``depthwise``, ``threshold_read`` without thresholds.

    Parameters
    ----------
    config
        The machine.
    timeout_cycles
        See :class:`MemoryPort`.

    Members
    -------
    array_read, depthwise_read : In(BankReadSignature(config))
        The array engine's port on the array scratchpad, the depthwise engine's on the window scratchpad.
    array_write : In(BankWriteSignature(config))
        The drain; a word is in its bank 3 cycles after its data, 4 after its enable.
    array_write_space : In(pixels)
        For each bank the scratchpad that ``array_write.en`` means, 0 array or 1 window.
    depthwise_write : In(stream.Signature(word_write_layout(config)))
        The depthwise engine's output words.
    depthwise_write_next_bank : In(BANK_BITS)
        Their ``next_bank``, see :class:`Scratchpad`.
    weight_read, parameter_read, record_read, depthwise_parameter_read, threshold_read
        In(linear_read_signature(config, space=...)).
    fetch : In(MemoryReadSignature(config))
        Instruction fetch's client of the memory port.
    load, store : Out(EngineSignature(4))
        The two engines; the events are ``LoadEngine.EVENTS`` and ``StoreEngine.EVENTS``.
    memory_idle, memory_read, memory_write : Out(1)
        Nothing is outstanding at the memory port; a beat was read; a beat was written.
    read_base, read_end, write_base, write_end : In(32)
        Byte addresses of the regions that may be read and written.
    bus : Out(WishboneSignature(...))
        External memory.
    """

    def __init__(self, config: Config, *, timeout_cycles: int = TIMEOUT_CYCLES) -> None:
        self._config = config
        self._timeout_cycles = timeout_cycles
        members = {
            "array_read": In(BankReadSignature(config)),
            "array_write": In(BankWriteSignature(config)),
            "array_write_space": In(config.pixels),
            "fetch": In(MemoryReadSignature(config)),
            "load": Out(EngineSignature(len(LoadEngine.EVENTS))),
            "store": Out(EngineSignature(len(StoreEngine.EVENTS))),
            "memory_idle": Out(1, init=1),
            "memory_read": Out(1),
            "memory_write": Out(1),
            "read_base": In(32),
            "read_end": In(32),
            "write_base": In(32),
            "write_end": In(32),
            "bus": Out(WishboneSignature(addr_width=beat_addr_bits(config), data_width=8 * config.memory_width)),
        }
        if config.depthwise:
            members["depthwise_read"] = In(BankReadSignature(config))
            members["depthwise_write"] = In(stream.Signature(word_write_layout(config)))
            members["depthwise_write_next_bank"] = In(BANK_BITS)
        for space, name in _READS.items():
            if space in spaces(config):
                members[name] = In(linear_read_signature(config, space=space))
        super().__init__(members)

    def elaborate(self, platform) -> Module:
        """Connections, and a register behind the drain."""
        m = Module()
        config = self._config
        m.submodules.port = port = MemoryPort(config, timeout_cycles=self._timeout_cycles)
        m.submodules.load = load = LoadEngine(config)
        m.submodules.store = store = StoreEngine(config)
        connect(m, flipped(self.fetch), port.fetch)
        connect(m, flipped(self.bus), port.bus)
        connect(m, flipped(self.load), load.engine)
        connect(m, flipped(self.store), store.engine)
        connect(m, load.memory, port.load)
        connect(m, store.memory, port.store)
        m.d.comb += [
            load.region_base.eq(self.read_base),
            load.region_end.eq(self.read_end),
            store.region_base.eq(self.write_base),
            store.region_end.eq(self.write_end),
            self.memory_idle.eq(port.idle),
            self.memory_read.eq(port.read),
            self.memory_write.eq(port.written),
        ]

        for space, name in _READS.items():
            if space in spaces(config):
                memory = m.submodules[space.name.lower()] = LinearMemory(config, space=space)
                connect(m, flipped(getattr(self, name)), memory.read)
                for member in load.linear_write.signature.members:
                    m.d.comb += getattr(memory.write, member).eq(getattr(load.linear_write, member))

        scratchpads = {}
        for space in (Space.ARRAY, Space.WINDOW):
            if space in spaces(config):
                scratchpads[space] = Scratchpad(config, depth=depth(config, space=space), space=space)
        # The drain's words come from afar.
        drain_addr = Signal(BankWriteSignature(config).members["addr"].shape, reset_less=True)
        drain_data = Signal(BankWriteSignature(config).members["data"].shape, reset_less=True)
        m.d.sync += [drain_addr.eq(self.array_write.addr), drain_data.eq(self.array_write.data)]
        for space, scratchpad in scratchpads.items():
            m.submodules[f"{space.name.lower()}_scratchpad"] = scratchpad
            chosen = self.array_write_space if space == Space.WINDOW else ~self.array_write_space
            m.d.comb += [
                scratchpad.drain_write.en.eq(self.array_write.en & chosen),
                scratchpad.drain_write.addr.eq(drain_addr),
                scratchpad.drain_write.data.eq(drain_data),
                scratchpad.load_write.valid.eq(load.write.valid),
                scratchpad.load_write.payload.eq(load.write.payload),
                scratchpad.load_next_bank.eq(load.write_next_bank),
                scratchpad.store_read.valid.eq(store.read.valid),
                scratchpad.store_read.payload.eq(store.read.payload),
            ]
            if config.depthwise:
                m.d.comb += [
                    scratchpad.depthwise_write.valid.eq(self.depthwise_write.valid),
                    scratchpad.depthwise_write.payload.eq(self.depthwise_write.payload),
                    scratchpad.depthwise_next_bank.eq(self.depthwise_write_next_bank),
                ]
        m.submodules.collector = collector = Collector(config)
        m.d.comb += [
            collector.space.eq(store.read.p.space),
            collector.bank.eq(store.read.p.bank),
            store.read_data.eq(collector.o),
            *(words.eq(scratchpad.store_data) for words, scratchpad in zip(collector.words, scratchpads.values(), strict=True)),
        ]
        connect(m, flipped(self.array_read), scratchpads[Space.ARRAY].engine_read)
        if config.depthwise:
            connect(m, flipped(self.depthwise_read), scratchpads[Space.WINDOW].engine_read)
            m.d.comb += self.depthwise_write.ready.eq(_any(scratchpad.depthwise_write.ready for scratchpad in scratchpads.values()))
        # At most one scratchpad takes a transfer, the one that its payload names.
        m.d.comb += [
            load.write.ready.eq(_any(scratchpad.load_write.ready for scratchpad in scratchpads.values())),
            store.read.ready.eq(_any(scratchpad.store_read.ready for scratchpad in scratchpads.values())),
        ]
        return m


def _any(flags):
    return Cat(*flags).any()
