"""Performance counters in one memory."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for


class Counters(Component):
    """32-bit counters of events, each an event in every cycle at most.

    Every counter gathers its events in a few bits; one after the other these are added to the sums in a memory, where one adder serves
    all. A sum is therefore complete :attr:`drain_cycles` after its last event. After a reset the sums are cleared on the first round.

    Parameters
    ----------
    count
        Number of counters, at least 4.

    Members
    -------
    events
        One bit per counter.
    running
        Events count.
    read_index, read_data
        Sum of a counter, 1 cycle later; undefined for an index that is not below ``count``.
    """

    def __init__(self, *, count: int) -> None:
        self._count = count
        super().__init__({"events": In(count), "running": In(1), "read_index": In(range(count)), "read_data": Out(32)})

    @property
    def drain_cycles(self) -> int:
        """Cycles after which an event is in its sum."""
        return self._count + 4

    def elaborate(self, platform) -> Module:
        """Three stages behind the gathering: select, add, write."""
        m = Module()
        m.submodules.sums = sums = Memory(shape=32, depth=self._count, init=[])
        sum_read, sum_write, csr_read = sums.read_port(), sums.write_port(), sums.read_port()
        m.d.comb += [csr_read.addr.eq(self.read_index), self.read_data.eq(csr_read.data)]

        turn = Signal(range(self._count))
        first_round = Signal(init=1)
        m.d.sync += turn.eq(turn + 1)
        with m.If(turn == self._count - 1):
            m.d.sync += [turn.eq(0), first_round.eq(0)]

        events = Signal(self._count)
        gathered = [Signal(bits_for(self._count), name=f"gathered_{number}") for number in range(self._count)]
        m.d.sync += events.eq(Mux(self.running, self.events, 0))
        for number, counter in enumerate(gathered):
            m.d.sync += counter.eq(Mux(turn == number, 0, counter) + events[number])

        added = Signal(bits_for(self._count))
        added_turn = Signal.like(turn)
        added_first = Signal()
        selected = Signal()
        m.d.comb += sum_read.addr.eq(turn)
        m.d.sync += [
            added.eq(Array(gathered)[turn]),
            added_turn.eq(turn),
            added_first.eq(first_round),
            selected.eq(1),
            sum_write.data.eq(Mux(added_first, 0, sum_read.data) + added),
            sum_write.addr.eq(added_turn),
            sum_write.en.eq(selected),
        ]
        return m
