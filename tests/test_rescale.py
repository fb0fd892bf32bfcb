# amaranth: UnusedElaboratable=no
"""Product to code against big-integer arithmetic, every kind, with a new product in every cycle."""

import random

import pytest
from amaranth.sim import Simulator

from tercel.hw.config import exponents
from tercel.hw.rescale import CLAMP_LAYOUT, Rescale, rescale_latency

KINDS = [(35, 18, 16, False), (27, 18, 8, False), (49, 32, 16, False), (41, 32, 8, False), (59, 32, 16, True), (59, 32, 16, False)]
"""Width of the product, of the sum, of the multiplier, thresholds."""


def code_before_clamp(product, e, z_out):
    """p of the contract; ``product`` is doubled where e is even."""
    x = product if e & 1 else product >> 1
    return min(max(((x + (1 << e >> 1)) >> e) + z_out, -32768), 32767)


def some_product(rng, bits, e):
    """A product that is mostly not saturated, even where it must be, sometimes an extreme."""
    if rng.random() < 0.1:
        value = rng.choice([-(1 << bits - 1), (1 << bits - 1) - 2, 0, -2, 2])
    else:
        width = min(max(e + rng.randint(-2, 18), 2), bits - 1) if rng.random() < 0.7 else rng.randint(2, bits - 1)
        value = rng.randint(-(1 << width), (1 << width) - 1)
    return value if e & 1 else value & ~1


def clamp_bits(*, zero, span, low):
    """The clamp as the block wants it."""
    return CLAMP_LAYOUT.const({"zero": zero, "span": span, "low": low & 0xFF}).as_bits()


def shift_bits(e, sum_bits):
    """The shift as :class:`Scale` prepares it."""
    return e >> 1 & (15 if sum_bits == 32 else 7)


def streamed(dut, items, clamp, *, counting=0):
    """The results of ``items`` (product, shift, limit, never, more), one presented per cycle."""
    latency = rescale_latency(sum_bits=dut.sum_bits)
    results = []

    async def testbench(ctx):
        ctx.set(dut.clamp, CLAMP_LAYOUT.from_bits(clamp))
        if dut.thresholds:
            ctx.set(dut.counting, counting)
        for cycle in range(len(items) + latency):
            if cycle < len(items):
                ctx.set(dut.product, items[cycle][0])
                ctx.set(dut.shift, items[cycle][1])
            if dut.thresholds and latency - 2 <= cycle < len(items) + latency - 2:
                for name, value in zip(("limit", "never", "more"), items[cycle - latency + 2][2:], strict=True):
                    ctx.set(getattr(dut, name), value)
            if cycle >= latency:
                results.append(ctx.get(dut.y))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return results


@pytest.mark.parametrize(("product_bits", "sum_bits", "multiplier_bits", "thresholds"), KINDS)
def test_clamp(product_bits, sum_bits, multiplier_bits, thresholds):
    """Random products at random shifts, and all clamps the fields can hold."""
    rng = random.Random(f"{product_bits} {thresholds}")
    shifts = exponents(multiplier_bits, narrow=sum_bits == 18)
    for _ in range(6):
        low, high = sorted(rng.choice([(-256, 255), (0, 255), (-128, 127), (rng.randint(-256, 255), rng.randint(-256, 255))]))
        z_out = rng.choice([-256, 255, 0, rng.randint(-256, 255)])
        items, expected = [], []
        for _ in range(400):
            e = rng.choice(shifts)
            product = some_product(rng, product_bits, e)
            items.append((product, shift_bits(e, sum_bits), high - low, 0, 0))
            expected.append(min(max(code_before_clamp(product, e, z_out), low), high) & 0xFF)
        dut = Rescale(product_bits=product_bits, sum_bits=sum_bits, multiplier_bits=multiplier_bits, thresholds=thresholds)
        assert streamed(dut, items, clamp_bits(zero=z_out - low, span=high - low, low=low)) == expected


@pytest.mark.parametrize(("product_bits", "sum_bits", "multiplier_bits", "thresholds"), KINDS)
def test_every_shift_of_extreme_products(product_bits, sum_bits, multiplier_bits, thresholds):
    """Every shift, with products around every power of two."""
    low, high = -256, 255
    items, expected = [], []
    for e in exponents(multiplier_bits, narrow=sum_bits == 18):
        for bit in range(1, product_bits):
            for product in (sign * (1 << bit) + near for sign in (1, -1) for near in (-2, 0, 2)):
                if -(1 << product_bits - 1) <= product < 1 << product_bits - 1 and not (product & 1 and e & 1 == 0):
                    items.append((product, shift_bits(e, sum_bits), high - low, 0, 0))
                    expected.append(min(max(code_before_clamp(product, e, 0), low), high) & 0xFF)
    dut = Rescale(product_bits=product_bits, sum_bits=sum_bits, multiplier_bits=multiplier_bits, thresholds=thresholds)
    assert streamed(dut, items, clamp_bits(zero=-low, span=high - low, low=low)) == expected


def test_thresholds():
    """Counts over several slots, with thresholds equal to p, one off and at the ends of their range."""
    rng = random.Random(1)
    z_out = -77
    items, expected = [], []
    for _ in range(300):
        e = rng.choice(exponents(16))
        product = some_product(rng, 59, e)
        p = code_before_clamp(product, e, z_out)
        number = rng.randint(1, 15)
        table = [rng.choice([p - 1, p, p + 1, rng.randint(-32768, 32767), 32767, -32768]) for _ in range(number)]
        table = [min(max(value, -32768), 32767) for value in table]
        for index, threshold in enumerate(table):
            items.append((product, shift_bits(e, 32), threshold, threshold == 32767, index > 0))
            expected.append(sum(p > value for value in table[: index + 1]))
    dut = Rescale(product_bits=59, sum_bits=32, multiplier_bits=16, thresholds=True)
    assert streamed(dut, items, clamp_bits(zero=z_out, span=1, low=0), counting=1) == expected
