"""Control as a whole: from the program in memory to the engines, and from the engines to the registers."""

from collections.abc import Mapping

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from tercel.hw.config import Config
from tercel.hw.control.assembly import Assembly, assembly_beats
from tercel.hw.control.checks import OWN_ENGINE, fields_bits
from tercel.hw.control.counters import Counters
from tercel.hw.control.csr import SETTINGS, Csr
from tercel.hw.control.dispatcher import Dispatcher
from tercel.hw.control.fetch import Fetch
from tercel.hw.control.issuer import QUEUE_EVENTS, Issuer
from tercel.hw.control.supervisor import Supervisor
from tercel.hw.control.tokens import Tokens
from tercel.hw.delay import delayed
from tercel.hw.interfaces import EngineSignature, MemoryReadSignature, WishboneSignature
from tercel.hw.isa import RESERVED_LOW, Engine
from tercel.hw.reset_domain import reset_domain

RESET_MARGIN = 8
"""Cycles that a run begins after the reset has ended here: registers in which it may spread over the machine."""

MACHINE_EVENTS = ("machine.cycles", "memory.read", "memory.write")
"""The counters that belong to no engine: cycles of the run, and beats on the memory port."""


def sequencer_counter_names(engine_events: Mapping[Engine, tuple[str, ...]]) -> tuple[str, ...]:
    """Names of a sequencer's counters, "part.event"; those of one engine add up to ``machine.cycles``."""
    return MACHINE_EVENTS + tuple(
        f"{engine.name.lower()}.{event}" for engine, events in engine_events.items() for event in (*events, *QUEUE_EVENTS)
    )


class Sequencer(Component):
    """Fetch, dispatcher, issuers, tokens, supervisor, counters and registers, connected.

    Parameters
    ----------
    config
        The machine.
    engine_events
        The engines that exist, in the order of :class:`Engine`, and the names of their events.

    Members
    -------
    csr : In(WishboneSignature(addr_width=10, data_width=32))
        The registers.
    interrupt
        The machine is done or has faulted.
    reset
        Reset everything outside the sequencer, contents of memories excepted, at most ``RESET_MARGIN`` cycles later.
    program : Out(MemoryReadSignature(config))
        The memory port's fetch client.
    memory_idle, memory_read, memory_write
        Nothing is outstanding at the memory port; a beat was read or written (for the counters).
    read_base, read_end, write_base, write_end
        The regions of LOAD and STORE.
    load, array, depthwise, store : In(EngineSignature(...))
        The engines in ``engine_events``.
    """

    def __init__(self, config: Config, *, engine_events: Mapping[Engine, tuple[str, ...]]) -> None:
        self._config = config
        self._engine_events = engine_events
        self._regions = ("read_base", "read_end", "write_base", "write_end")
        super().__init__(
            {
                "csr": In(WishboneSignature(addr_width=10, data_width=32)),
                "interrupt": Out(1),
                "reset": Out(1),
                "program": Out(MemoryReadSignature(config)),
                "memory_idle": In(1),
                "memory_read": In(1),
                "memory_write": In(1),
                **{name: Out(SETTINGS[name]) for name in self._regions},
                **{engine.name.lower(): In(EngineSignature(len(events))) for engine, events in engine_events.items()},
            }
        )

    def elaborate(self, platform) -> Module:
        """All but the registers is reset when a run begins."""
        m = Module()
        counter_names = sequencer_counter_names(self._engine_events)
        fetch, dispatcher, tokens = Fetch(self._config), Dispatcher(self._config), Tokens()
        counters = Counters(count=len(counter_names))
        supervisor = Supervisor(reporters=1 + len(self._engine_events), drain_cycles=counters.drain_cycles)
        m.submodules.csr = csr = Csr(self._config, counter_count=len(counter_names))
        # A register of its own, which may lie amidst what it resets.
        reset = Signal(init=1)
        m.d.sync += reset.eq(csr.reset)
        run = delayed(m, csr.run, RESET_MARGIN, name="run", reset_less=False)
        again = reset_domain(m, reset, name="run")
        m.submodules.fetch = again(fetch)
        m.submodules.dispatcher = again(dispatcher)
        m.submodules.tokens = again(tokens)
        m.submodules.counters = again(counters)
        m.submodules.supervisor = again(supervisor)

        assemblies = {}

        def assembled(bits: int) -> Value:
            """The low ``bits`` of the instruction that was fetched last, from an assembly for all who need as many beats."""
            beats = assembly_beats(self._config, instruction_bits=bits)
            if beats not in assemblies:
                assemblies[beats] = Assembly(self._config, instruction_bits=beats * 8 * self._config.memory_width)
                m.submodules[f"assembly_{beats}"] = assemblies[beats]
                m.d.comb += assemblies[beats].beat.eq(fetch.beat)
            return assemblies[beats].instruction[:bits]

        issuers = []
        for engine, events in self._engine_events.items():
            name = engine.name.lower()
            bits = max(RESERVED_LOW[opcode] for opcode, own in OWN_ENGINE.items() if own == engine)
            issuer = Issuer(instruction_bits=bits, events=len(events))
            m.submodules[f"issuer_{name}"] = again(issuer)
            connect(m, dispatcher=getattr(dispatcher, name), issuer=issuer.i)
            m.d.comb += issuer.instruction.eq(assembled(bits))
            connect(m, tokens=getattr(tokens, name), issuer=issuer.tokens)
            connect(m, engine=flipped(getattr(self, name)), issuer=issuer.engine)
            issuers.append(issuer)

        connect(m, csr=csr.bus, bus=flipped(self.csr))
        # Events are counted a cycle late.
        memory = delayed(m, Cat(self.memory_read, self.memory_write), 1, name="memory")
        connect(m, fetch=fetch.memory, memory=flipped(self.program))
        connect(m, fetch=fetch.o, dispatcher=dispatcher.i)
        m.d.comb += dispatcher.instruction.eq(assembled(fields_bits(self._config)))
        m.d.comb += [
            fetch.run.eq(run),
            fetch.base.eq(csr.program_base),
            fetch.count.eq(csr.program_count),
            supervisor.run.eq(run),
            supervisor.halted.eq(dispatcher.halted),
            supervisor.empty.eq(Cat(issuer.empty for issuer in issuers).all()),
            supervisor.stuck.eq(
                (dispatcher.halted | dispatcher.blocked | dispatcher.report.valid) & Cat(issuer.stuck for issuer in issuers).all()
            ),
            supervisor.memory_idle.eq(self.memory_idle),
            csr.state.eq(supervisor.state),
            csr.fault_code.eq(supervisor.fault_code),
            csr.fault_index.eq(supervisor.fault_index),
            counters.running.eq(supervisor.running),
            counters.events.eq(Cat(1, memory, *(issuer.events for issuer in issuers))),
            counters.read_index.eq(csr.counter_index),
            csr.counter_data.eq(counters.read_data),
            self.interrupt.eq(csr.interrupt),
            self.reset.eq(reset),
            *(getattr(self, name).eq(getattr(csr, name)) for name in self._regions),
        ]

        for number, reporter in enumerate([dispatcher, *issuers]):
            m.d.comb += supervisor.reports[number].eq(reporter.report)
        return m
