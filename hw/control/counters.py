"""Performance counters in one memory."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.delay import delayed
from tercel.hw.memory.block import block_memory, block_read
from tercel.hw.table import table

_LOW_BITS = 6
_LOW_STATES = 1 << _LOW_BITS
_COUNTER_LAYOUT = data.StructLayout({"low": unsigned(_LOW_BITS), "high": unsigned(32 - _LOW_BITS)})


class Counters(Component):
    """32-bit counters of events, each an event in every cycle at most.

    Only the low bits of each counter are in registers, which run through their states in an order that takes no carry; one after the
    other they are numbered and copied into a memory, where one adder serves all high bits. A copy is therefore complete
    :attr:`drain_cycles` after its last event. After a reset the first round clears the memory.

    Parameters
    ----------
    count
        Number of counters, 4..60.

    Members
    -------
    events
        One bit per counter.
    running
        Events count.
    read_index, read_data
        Sum of a counter, 2 cycles later; undefined for an index that is not below ``count``.
    """

    def __init__(self, *, count: int) -> None:
        self._count = count
        super().__init__({"events": In(count), "running": In(1), "read_index": In(range(count)), "read_data": Out(32)})

    @property
    def drain_cycles(self) -> int:
        """Cycles after which an event is in the memory."""
        return self._count + 5

    def elaborate(self, platform) -> Module:
        """Three stages behind the low bits: select and read; register; add and write."""
        m = Module()
        m.submodules.sums = sums = block_memory(shape=_COUNTER_LAYOUT, depth=self._count, ram_style="block")
        sum_write, csr_read = sums.write_port(), sums.read_port()
        m.d.comb += csr_read.addr.eq(self.read_index)
        m.d.sync += self.read_data.eq(csr_read.data)

        turn = Signal(range(self._count))
        first_round = Signal(init=1)
        m.d.sync += turn.eq(turn + 1)
        with m.If(turn == self._count - 1):
            m.d.sync += [turn.eq(0), first_round.eq(0)]

        lows = [Signal(_LOW_BITS, name=f"low_{number}") for number in range(self._count)]
        events = Signal(self._count, reset_less=True)
        m.d.sync += events.eq(Mux(self.running, self.events, 0))
        for event, low in zip(events, lows, strict=True):
            with m.If(event):
                m.d.sync += low.eq(_next(low))

        # A sum is written two cycles after it was read.
        stored = block_read(m, sums, en=Const(1), addr=turn, name="stored")

        # The low bits have wrapped, once, if they are less than when they were stored.
        old = Signal(_COUNTER_LAYOUT, reset_less=True)
        new_low, low = (Signal(_LOW_BITS, name=name, reset_less=True) for name in ("new_low", "low"))
        m.d.comb += [
            sum_write.data.low.eq(low),
            sum_write.data.high.eq(old.high + (low < old.low)),
            sum_write.addr.eq(delayed(m, turn, 2, name="turn")),
            sum_write.en.eq(delayed(m, Const(1), 2, name="write", reset_less=False)),
        ]
        m.d.sync += [
            new_low.eq(Cat(lows).word_select(turn, _LOW_BITS)),
            low.eq(table(new_low, _sequence().index, width=_LOW_BITS)),
            old.eq(stored),
        ]
        with m.If(delayed(m, first_round, 1, name="fresh")):
            m.d.sync += old.eq(0)
        return m


def _next(low: Value) -> Value:
    """The next state of a counter's low bits: a shift register through all states, the maximal one of x**6 + x**5 + 1 and 0."""
    return Cat(low[5] ^ (low[4] | (low[:4] == 0)), low[:5])


def _sequence() -> list[int]:
    """The states in their order, from 0."""
    states = [0]
    while len(states) < _LOW_STATES:
        state = states[-1]
        feedback = state >> 5 ^ (state >> 4 & 1 | (state & 0xF == 0))
        states.append(state << 1 & _LOW_STATES - 1 | feedback & 1)
    return states
