"""The top: the whole accelerator."""

from amaranth.hdl import Module, Value
from amaranth.lib.wiring import Component, In, Member, Out, connect, flipped

from tercel.hw.array.engine import ArrayEngine
from tercel.hw.array.feeder import EVENTS as ARRAY_EVENTS
from tercel.hw.config import Config
from tercel.hw.control.sequencer import Sequencer, sequencer_counter_names
from tercel.hw.delay import delayed
from tercel.hw.depthwise.engine import DepthwiseEngine
from tercel.hw.interfaces import WishboneSignature, beat_addr_bits
from tercel.hw.isa import Engine
from tercel.hw.memory.load import LoadEngine
from tercel.hw.memory.port import TIMEOUT_CYCLES
from tercel.hw.memory.store import StoreEngine
from tercel.hw.memory.system import MemorySystem
from tercel.hw.reset_domain import reset_domain


def engine_events(config: Config) -> dict[Engine, tuple[str, ...]]:
    """The engines that a config has, and the events that each counts."""
    events = {
        Engine.LOAD: LoadEngine.EVENTS,
        Engine.ARRAY: ARRAY_EVENTS,
        Engine.DEPTHWISE: DepthwiseEngine.EVENTS,
        Engine.STORE: StoreEngine.EVENTS,
    }
    return {engine: names for engine, names in events.items() if engine != Engine.DEPTHWISE or config.depthwise}


def counter_names(config: Config) -> tuple[str, ...]:
    """The names of the counters in the order of their CSRs, "part.event".

    ``machine.cycles`` counts the cycles of a run, and those of each engine add up to it.
    """
    return sequencer_counter_names(engine_events(config))


def npu_members(config: Config) -> dict[str, Member]:
    """The members of :class:`Npu`."""
    return {
        "memory": Out(WishboneSignature(addr_width=beat_addr_bits(config), data_width=8 * config.memory_width)),
        "csr": In(WishboneSignature(addr_width=10, data_width=32)),
        "interrupt": Out(1),
    }


class Npu(Component):
    """Sequencer, memories and engines, connected. A start resets everything but the settings and the contents of the memories.

    Parameters
    ----------
    config
        The machine.
    timeout_cycles
        Cycles without an answer after which the memory counts as dead; a power of two.

    Members
    -------
    memory : Out(WishboneSignature(...))
        External memory, in beats of ``memory_width`` bytes.
    csr : In(WishboneSignature(addr_width=10, data_width=32))
        The registers.
    interrupt
        The machine is done or has faulted; until it is started or stopped.
    """

    def __init__(self, config: Config, *, timeout_cycles: int = TIMEOUT_CYCLES) -> None:
        self._config = config
        self._timeout_cycles = timeout_cycles
        super().__init__(npu_members(config))

    def elaborate(self, platform) -> Module:
        """Connections and the reset."""
        m = Module()
        config = self._config
        m.submodules.sequencer = sequencer = Sequencer(config, engine_events=engine_events(config))
        # A register for each part, which may lie amidst what it resets.
        memory_reset = delayed(m, sequencer.reset, 1, name="memory_reset")
        array_reset = delayed(m, memory_reset, 1, name="array_reset")
        depthwise_reset = delayed(m, array_reset, 1, name="depthwise_reset")
        memory = MemorySystem(config, timeout_cycles=self._timeout_cycles)
        array = ArrayEngine(config)
        m.submodules.memory_system = reset_domain(m, memory_reset, name="memory")(memory)
        m.submodules.array = reset_domain(m, array_reset, name="array")(array)

        connect(m, flipped(self.csr), sequencer.csr)
        connect(m, memory.bus, flipped(self.memory))
        connect(m, sequencer.program, memory.fetch)
        connect(m, sequencer.load, memory.load)
        connect(m, sequencer.store, memory.store)
        _connect_engine(m, sequencer.array, array)
        connect(m, array.read, memory.array_read)
        connect(m, array.write, memory.array_write)
        _connect_read(m, array.weight, memory.weight_read)
        _connect_read(m, array.parameter, memory.parameter_read)
        if config.threshold_depth:
            _connect_read(m, array.threshold, memory.threshold_read)
        beat = memory.bus.stb & ~memory.bus.stall
        m.d.comb += [
            memory.array_write_space.eq(array.write_space),
            memory.read_base.eq(sequencer.read_base),
            memory.read_end.eq(sequencer.read_end),
            memory.write_base.eq(sequencer.write_base),
            memory.write_end.eq(sequencer.write_end),
            sequencer.memory_idle.eq(~memory.bus.cyc),
            sequencer.memory_read.eq(beat & ~memory.bus.we),
            sequencer.memory_write.eq(beat & memory.bus.we),
            self.interrupt.eq(sequencer.interrupt),
        ]

        if config.depthwise:
            depthwise = DepthwiseEngine(config)
            m.submodules.depthwise = reset_domain(m, depthwise_reset, name="depthwise")(depthwise)
            _connect_engine(m, sequencer.depthwise, depthwise)
            connect(m, depthwise.read, memory.depthwise_read)
            connect(m, depthwise.write, memory.depthwise_write)
            m.d.comb += memory.depthwise_write_next_bank.eq(depthwise.write_next_bank)
            _connect_read(m, depthwise.record, memory.record_read)
            _connect_read(m, depthwise.parameter, memory.depthwise_parameter_read)
        return m


def _connect_engine(m: Module, port, engine) -> None:
    """Connect an engine whose members are those of an ``EngineSignature`` and more."""
    connect(m, port.start, engine.start)
    connect(m, port.done, engine.done)
    m.d.comb += [getattr(port, name).eq(getattr(engine, name)) for name in ("idle", "fault_valid", "fault_code", "fault_index", "events")]


def _connect_read(m: Module, reader, memory) -> None:
    """Connect a reader to a linear memory; the memory is a ring, so upper bits of the reader's address do not count."""
    m.d.comb += [
        memory.en.eq(reader.en),
        memory.addr.eq(reader.addr),
        Value.cast(reader.data).eq(Value.cast(memory.data)),
    ]
