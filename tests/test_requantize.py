# amaranth: UnusedElaboratable=no
"""The requantizer against big-integer arithmetic, with new operands in every cycle."""

import random

import pytest
from amaranth.sim import Simulator

from tercel.hw.config import Config, exponents
from tercel.hw.requantize import LATENCY, Requantizer
from tercel.hw.rescale import CLAMP_LAYOUT


def some_signed(rng, bits):
    """A signed number of a random magnitude, the extremes often."""
    if rng.random() < 0.1:
        return rng.choice([-(1 << bits - 1), (1 << bits - 1) - 1, 0, -1, 1])
    width = rng.randint(1, bits)
    return rng.randint(-(1 << width - 1), (1 << width - 1) - 1)


@pytest.mark.parametrize("multiplier_bits", [8, 16])
def test_requantizer(multiplier_bits):
    """Random operands whose result is mostly not saturated."""
    rng = random.Random(multiplier_bits)
    shifts = exponents(multiplier_bits)
    z_out, low, high = -3, -120, 127
    items, expected = [], []
    for _ in range(1500):
        v = some_signed(rng, 32)
        multiplier = rng.choice([0, 1, (1 << multiplier_bits) - 1, rng.randrange(1 << multiplier_bits)])
        size = (abs(v) * multiplier).bit_length()
        e = rng.choice(shifts) if rng.random() < 0.3 else min(max(size - rng.randint(-2, 9), shifts[0]), shifts[-1])
        items.append({"v": v, "multiplier": multiplier, "e": e & 31})
        expected.append(min(max((v * multiplier + (1 << e >> 1) >> e) + z_out, low), high) & 0xFF)
    dut = Requantizer(Config(multiplier_bits=multiplier_bits))
    results = []

    async def testbench(ctx):
        ctx.set(dut.clamp, CLAMP_LAYOUT.const({"zero": z_out - low, "span": high - low, "low": low & 0xFF}))
        for cycle in range(len(items) + LATENCY):
            for name, value in items[cycle].items() if cycle < len(items) else ():
                ctx.set(getattr(dut, name), value)
            if cycle >= LATENCY:
                results.append(ctx.get(dut.y))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert results == expected
