"""The control and status registers."""

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.control.supervisor import State
from tercel.hw.delay import delayed
from tercel.hw.interfaces import WishboneSignature
from tercel.hw.isa import ISA_VERSION

IDENTITY = 0x5452434C

CONTROL_START = 1
CONTROL_STOP = 2

ADDRESSES = {
    "id": 0x00,
    "isa_version": 0x04,
    "config_hash": 0x08,
    "control": 0x0C,
    "status": 0x10,
    "fault_index": 0x14,
    "program_base": 0x18,
    "program_count": 0x1C,
    "read_base": 0x20,
    "read_end": 0x24,
    "write_base": 0x28,
    "write_end": 0x2C,
    "counter_count": 0x30,
    "counters": 0x80,
}
"""Byte addresses; counter i is at ``counters`` + 4*i."""

SETTINGS = {"program_base": 32, "program_count": 16, "read_base": 32, "read_end": 32, "write_base": 32, "write_end": 32}
"""The registers that hold what was written, and their bits."""


RESET_CYCLES = 64
"""Cycles that a reset lasts: what is on its way anywhere in the machine comes out and is lost, so only what decides needs a reset."""


class Csr(Component):
    """Register file on a Wishbone bus, classic or pipelined (``stall`` is high until ``ack``).

    Every access is acknowledged, 4 cycles after it began; accesses begin 5 cycles apart, and wait while the machine is reset and, after
    a start, until it runs. Unknown addresses and bits read as 0 and ignore writes; ``sel`` chooses the bytes of a write. The settings
    ignore writes while the machine runs.

    Parameters
    ----------
    config
        For its hash.
    counter_count
        Number of counters.

    Members
    -------
    bus : In(WishboneSignature(addr_width=10, data_width=32))
        ``adr`` counts words.
    state, fault_code, fault_index
        From the supervisor.
    counter_index, counter_data
        A counter, its value 2 cycles later.
    reset
        Reset the machine, contents of memories excepted: for ``RESET_CYCLES`` after each write of CONTROL with one of its two bits set,
        and in the beginning.
    run
        The machine was started and not stopped, and is not being reset.
    interrupt
        The machine is done or has faulted; until it is started or stopped.
    program_base, program_count, read_base, read_end, write_base, write_end
        The settings.
    """

    def __init__(self, config: Config, *, counter_count: int) -> None:
        self._config = config
        self._counter_count = counter_count
        super().__init__(
            {
                "bus": In(WishboneSignature(addr_width=10, data_width=32)),
                "state": In(2),
                "fault_code": In(4),
                "fault_index": In(16),
                "counter_index": Out(range(counter_count)),
                "counter_data": In(32),
                "reset": Out(1, init=1),
                "run": Out(1),
                "interrupt": Out(1),
                **{name: Out(width) for name, width in SETTINGS.items()},
            }
        )

    def elaborate(self, platform) -> Module:
        """Cycle 0: decode; cycle 1: write, and read the counter memory; cycle 2: select a register; cycle 3: that, or a counter; cycle 4:
        acknowledge.

        The bus comes from afar and holds until the acknowledge.
        """
        m = Module()
        bus = self.bus
        settings = {name: getattr(self, name) for name in SETTINGS}
        first_counter = ADDRESSES["counters"] // 4
        begin, busy = Signal(), Signal()
        started = Signal()
        left = Signal(range(RESET_CYCLES), init=RESET_CYCLES - 1)
        reading, waiting, selecting = Signal(), Signal(), Signal()
        adr = Signal.like(bus.adr, reset_less=True)
        m.d.comb += [
            self.run.eq(started & ~self.reset),
            begin.eq(bus.cyc & bus.stb & ~busy & ~self.reset & (~started | (self.state != State.IDLE))),
            busy.eq(reading | waiting | selecting | bus.ack),
            bus.stall.eq(bus.cyc & ~bus.ack),
            self.counter_index.eq(adr - first_counter),
            self.interrupt.eq((self.state == State.DONE) | (self.state == State.FAULT)),
        ]
        m.d.sync += [reading.eq(begin), waiting.eq(reading), selecting.eq(waiting), bus.ack.eq(selecting & bus.cyc)]
        m.d.sync += [adr.eq(bus.adr), left.eq(left - 1)]
        with m.If(left == 0):
            m.d.sync += self.reset.eq(0)

        def written(name: str, byte: int, condition: Value) -> Signal:
            """In cycle 1: a byte of register ``name`` is written."""
            here = begin & bus.we & (bus.adr == ADDRESSES[name] // 4) & bus.sel[byte] & condition
            return delayed(m, here, 1, name=f"{name}_{byte}", reset_less=False)

        with m.If(written("control", 0, (bus.dat_w & (CONTROL_START | CONTROL_STOP)).any())):
            m.d.sync += [self.reset.eq(1), left.eq(RESET_CYCLES - 1), started.eq(~(bus.dat_w & CONTROL_STOP).any())]
        for name, setting in settings.items():
            for byte in range(len(setting) // 8):
                with m.If(written(name, byte, self.state != State.RUNNING)):
                    m.d.sync += setting.word_select(byte, 8).eq(bus.dat_w.word_select(byte, 8))

        readable = {
            "id": IDENTITY,
            "isa_version": ISA_VERSION,
            "config_hash": self._config.hash,
            "status": Cat(self.state, Const(0, 2), self.fault_code),
            "fault_index": self.fault_index,
            "counter_count": self._counter_count,
            **settings,
        }
        page = adr[:4]
        selected = Signal(32, reset_less=True)
        in_page = Signal(reset_less=True)
        is_counter = Signal(reset_less=True)
        m.d.sync += [
            selected.eq(0),
            in_page.eq(adr[4:] == 0),
            is_counter.eq((adr >= first_counter) & (adr < first_counter + self._counter_count)),
        ]
        with m.Switch(page):
            for name, value in readable.items():
                with m.Case(ADDRESSES[name] // 4):
                    m.d.sync += selected.eq(value)
        m.d.sync += bus.dat_r.eq(0)
        with m.If(in_page):
            m.d.sync += bus.dat_r.eq(selected)
        with m.Elif(is_counter):
            m.d.sync += bus.dat_r.eq(self.counter_data)
        return m
