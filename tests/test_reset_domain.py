"""A part of the machine has the reset it was given and no other."""

from amaranth.hdl import Module, ResetSignal, Signal
from amaranth.lib.wiring import Component, Out
from amaranth.sim import Simulator

from tercel.hw.reset_domain import reset_domain


class Counter(Component):
    """Counts cycles since its reset."""

    count: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(self.count + 1)
        return m


def test_a_part_with_a_reset_of_its_own():
    m = Module()
    own, board, counts = Signal(), Signal(), [Counter() for _ in range(2)]
    m.d.comb += ResetSignal().eq(board)
    renamed = reset_domain(m, own, name="part")
    m.submodules.first, m.submodules.second = renamed(counts[0]), renamed(counts[1])
    other = m.submodules.other = Counter()
    seen = []

    async def bench(context):
        for cycle in range(12):
            context.set(own, cycle in (2, 3))
            context.set(board, cycle == 7)
            await context.tick()
            seen.append([context.get(counter.count) for counter in (*counts, other)])

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    first, second, with_the_board = zip(*seen, strict=True)
    assert first == second == (1, 2, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)
    assert with_the_board == (1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4)
