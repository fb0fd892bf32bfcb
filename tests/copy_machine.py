"""A small design with the ports of the accelerator, to test the simulation around it: it copies one memory region to another.

From READ_BASE to READ_END, ``BURST`` words at a time, to WRITE_BASE. FAULT_INDEX is PROGRAM_COUNT - 1 after a fault. Counter 0 counts
cycles from start to end, counter 1 the words copied. ``PROGRAM_BASE`` 1 makes it run forever, 2 makes it ask for more than 16 transfers.
"""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.interfaces import WishboneSignature
from tercel.hw.isa import Fault

BURST = 4
TIMEOUT = 4096


class CopyMachine(wiring.Component):
    """Two states a burst, read and write; each sends its requests and counts the answers."""

    def __init__(self, config: Config) -> None:
        self.width = config.memory_width
        super().__init__(
            {
                "memory": Out(WishboneSignature(addr_width=32 - exact_log2(self.width), data_width=8 * self.width)),
                "csr": In(WishboneSignature(addr_width=10, data_width=32)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        registers = Array([Signal(32, name=f"register_{i}") for i in range(6)])
        base, count, read_base, read_end, write_base, _ = registers
        state, fault = Signal(2), Signal(4)
        cycles, words = Signal(32), Signal(32)

        m.d.comb += self.csr.stall.eq(0)
        m.d.sync += self.csr.ack.eq(self.csr.stb & self.csr.cyc)
        start = Signal()
        with m.If(self.csr.stb & self.csr.cyc):
            with m.If(self.csr.we):
                with m.If(self.csr.adr == 3):
                    m.d.comb += start.eq(self.csr.dat_w[0])
                for i in range(6):
                    with m.If(self.csr.adr == 6 + i):
                        m.d.sync += registers[i].eq(self.csr.dat_w)
            with m.Switch(self.csr.adr):
                for address, value in {0x10: state | fault << 4, 0x14: count - 1, 0x30: 2, 0x80: cycles, 0x84: words}.items():
                    with m.Case(address // 4):
                        m.d.sync += self.csr.dat_r.eq(value)

        buffer = Array([Signal(8 * self.width, name=f"buffer_{i}") for i in range(BURST)])
        sent, answered, offset = Signal(8), Signal(8), Signal(32)
        silent = Signal(range(TIMEOUT))
        burst = Mux(base == 2, 32, BURST)
        writing = Signal()
        bus = self.memory
        m.d.comb += [
            bus.cyc.eq(state == 1),
            bus.stb.eq((state == 1) & (sent != burst)),
            bus.we.eq(writing),
            bus.sel.eq(-1),
            bus.adr.eq((Mux(writing, write_base, read_base) + offset) // self.width + sent),
            bus.dat_w.eq(buffer[sent[:2]]),
        ]
        with m.If(state == 1):
            m.d.sync += [cycles.eq(cycles + 1), silent.eq(silent + 1)]
            with m.If(bus.stb & ~bus.stall):
                m.d.sync += sent.eq(sent + 1)
            with m.If(bus.ack):
                m.d.sync += [silent.eq(0), answered.eq(answered + 1)]
                with m.If(~writing):
                    m.d.sync += buffer[answered[:2]].eq(bus.dat_r)
                with m.Else():
                    m.d.sync += words.eq(words + 1)
                with m.If(answered == burst - 1):
                    m.d.sync += [sent.eq(0), answered.eq(0), writing.eq(~writing)]
                    with m.If(writing):
                        m.d.sync += offset.eq(Mux(base == 1, 0, offset + BURST * self.width))
                        with m.If((read_base + offset + BURST * self.width >= read_end) & (base != 1)):
                            m.d.sync += state.eq(2)
            with m.If(bus.err):
                m.d.sync += [state.eq(3), fault.eq(Fault.BUS_ERROR)]
            with m.If(silent == TIMEOUT - 1):
                m.d.sync += [state.eq(3), fault.eq(Fault.BUS_TIMEOUT)]
        with m.If(start):
            m.d.sync += [state.eq(1), fault.eq(0), cycles.eq(0), words.eq(0), silent.eq(0)]
            m.d.sync += [sent.eq(0), answered.eq(0), offset.eq(0), writing.eq(0)]
        return m
