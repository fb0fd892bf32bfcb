# amaranth: UnusedElaboratable=no
"""The relay: nothing lost, in order, with its flags, whatever the two ends do; what it tells of the next cycle; how many it passes; no path
from one ready to the other.
"""

import random

import pytest
from amaranth.hdl import unsigned
from amaranth.sim import Simulator

from tercel.hw.memory.queue import Relay


@pytest.mark.parametrize(("spare", "cycles"), [(True, 101), (False, 200)])
@pytest.mark.parametrize("hesitates", [False, True])
def test_passes_everything_in_order(spare, cycles, hesitates):
    relay = Relay(unsigned(8), spare=spare, flags=2)
    rng = random.Random(hesitates)
    given = [rng.getrandbits(8) for _ in range(100)]
    taken = []

    async def bench(ctx):
        sent = elapsed = 0
        valid = False
        then = None
        while len(taken) < len(given):
            valid = valid or (sent < len(given) and (not hesitates or rng.random() < 0.5))
            ctx.set(relay.i.valid, valid)
            ctx.set(relay.i.payload, given[sent] if valid else rng.getrandbits(8))
            ctx.set(relay.i_flags, given[sent] >> 6 if valid else rng.getrandbits(2))
            ready = []
            for value in (0, 1):
                ctx.set(relay.o.ready, value)
                ready.append(ctx.get(relay.i.ready))
            assert ready[0] == ready[1]
            if hesitates:
                ctx.set(relay.o.ready, rng.getrandbits(1))
            assert ctx.get(relay.o_flags) == (ctx.get(relay.o.payload) >> 6 if ctx.get(relay.o.valid) else 0)
            assert ctx.get(relay.moves) == (not ctx.get(relay.o.valid) or ctx.get(relay.o.ready))
            if ctx.get(relay.o.valid) and ctx.get(relay.o.ready):
                taken.append(ctx.get(relay.o.payload))
            now = (ctx.get(relay.o.valid), ctx.get(relay.i.ready))
            assert then is None or now == then[:2]
            assert then is None or not (then[2] and now[0]) or ctx.get(relay.o.payload) == then[3]
            then = tuple(ctx.get(signal) for signal in (relay.then_valid, relay.then_ready, relay.moves, relay.following))
            if valid and ready[0]:
                sent, valid = sent + 1, False
            await ctx.tick()
            elapsed += 1
        assert hesitates or elapsed == cycles

    simulator = Simulator(relay)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert taken == given
