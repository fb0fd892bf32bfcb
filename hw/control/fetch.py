"""The instruction fetch: memory beats in, a stream of instructions out."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.interfaces import MemoryReadSignature, beat_addr_bits
from tercel.hw.isa import INSTRUCTION_BYTES, Fault
from tercel.hw.load_increment import LoadIncrement

_PART_BITS = 16
"""Bits of a beat that are looked at in one piece."""


def fetched_layout(config: Config) -> data.StructLayout:
    """The index in the program of an instruction, and the fault that there is in its place (``Fault.NONE``: it is good).

    Bit i of ``nonzero`` tells whether beat i of the instruction has any bit set. The instruction itself came in beats.
    """
    return data.StructLayout(
        {
            "nonzero": unsigned(INSTRUCTION_BYTES // config.memory_width),
            "index": unsigned(16),
            "fault": unsigned(4),
        }
    )


def beat_layout(config: Config) -> data.StructLayout:
    """A beat of an instruction: whether one comes and which it is, and in the next cycle its bits."""
    return data.StructLayout(
        {"valid": unsigned(1), "number": range(INSTRUCTION_BYTES // config.memory_width), "data": unsigned(8 * config.memory_width)}
    )


class Fetch(Component):
    """Reads the program, one instruction after the other, up to HALT, the last instruction or a memory fault.

    The last item is HALT or one with a ``fault``: ``BUS_ERROR`` or ``BUS_TIMEOUT`` at the instruction that could not be read,
    ``PROGRAM_END`` with index ``count`` after ``count`` instructions without HALT. Nothing is requested behind it.

    One instruction takes 80/W beats plus the memory's latency plus 4 cycles, from when the one before it was taken: until then it stays
    where it is put together. Queues hold the instructions that are ahead.

    Parameters
    ----------
    config
        ``memory_width`` is used.

    Members
    -------
    run
        Fetching begins when this rises, with instruction 0; it must fall only together with a reset.
    base
        Byte address of the program, a multiple of W (lower bits are ignored).
    count
        Instructions in the program.
    memory
        The memory port.
    o
        Stream of :func:`fetched_layout`.
    beat : Out(beat_layout(config))
        The beats of the instruction as they come, in order; the bits of the last one a cycle before ``o`` offers it at the earliest.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "run": In(1),
                "base": In(32),
                "count": In(16),
                "memory": Out(MemoryReadSignature(config)),
                "o": Out(stream.Signature(fetched_layout(self._config))),
                "beat": Out(beat_layout(self._config)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Counters of beats; data registers are never cleared."""
        m = Module()
        beats = INSTRUCTION_BYTES // self._config.memory_width
        nonzero = Signal(beats, reset_less=True)
        coming = self.memory.data
        # In two steps: a beat is too wide for one.
        parts = delayed(m, Cat(coming[low : low + _PART_BITS].any() for low in range(0, len(coming), _PART_BITS)), 1, name="parts")
        arrived = delayed(m, self.memory.valid, 1, name="arrived")
        index = Signal(16)
        fault = Signal(4)
        requested = Signal(range(max(2, beats)))
        received = Signal(range(beats + 1))
        beat_addr = Signal(beat_addr_bits(self._config))

        m.d.comb += [
            self.memory.request.payload.eq(beat_addr),
            self.o.p.nonzero.eq(nonzero),
            self.o.p.index.eq(index),
            self.o.p.fault.eq(fault),
        ]
        idle = Signal()
        requesting = Signal()
        m.submodules.beat_addr_increment = increment = LoadIncrement(len(beat_addr))
        m.d.comb += [
            requesting.eq(self.memory.request.valid & self.memory.request.ready),
            increment.a.eq(beat_addr),
            increment.value.eq(self.base >> 32 - len(beat_addr)),
            increment.load.eq(idle),
        ]
        with m.If(requesting | idle):
            m.d.sync += beat_addr.eq(increment.o)
        with m.If(requesting):
            m.d.sync += requested.eq(requested + 1)
        bits = delayed(m, coming, 1, name="bits")
        with m.If(arrived):
            m.d.sync += nonzero.eq(Cat(nonzero[1:], parts.any()))
        m.d.comb += [self.beat.valid.eq(self.memory.valid), self.beat.number.eq(received), self.beat.data.eq(bits)]
        with m.If(self.memory.valid):
            m.d.sync += received.eq(received + 1)
            with m.If((fault == Fault.NONE) & self.memory.err):
                m.d.sync += fault.eq(Mux(self.memory.timeout, Fault.BUS_TIMEOUT, Fault.BUS_ERROR))

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += idle.eq(1)
                with m.If(self.run):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.sync += [requested.eq(0), received.eq(0), self.memory.request.valid.eq(1)]
                m.next = "READ"
                with m.If(index == self.count):
                    m.d.sync += [fault.eq(Fault.PROGRAM_END), self.o.valid.eq(1), self.memory.request.valid.eq(0)]
                    m.next = "GIVE"
            with m.State("READ"):
                # After an error the rest is read all the same: no answer is left to come.
                with m.If(requesting & (requested == beats - 1)):
                    m.d.sync += self.memory.request.valid.eq(0)
                with m.If(received == beats):
                    m.d.sync += self.o.valid.eq(1)
                    m.next = "GIVE"
            # HALT and what has a fault are never taken.
            with m.State("GIVE"), m.If(self.o.ready):
                m.d.sync += [self.o.valid.eq(0), index.eq(index + 1)]
                m.next = "BEGIN"
        return m
