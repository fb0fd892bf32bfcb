"""The systolic array against sums computed from digits, with steps at random times and tiles of any length."""

import random

import pytest
from amaranth.sim import Simulator

from tercel.hw.array.systolic import SystolicArray, sums_latency
from tercel.hw.config import Config

CONFIGS = {
    "2x4x4": Config(pixels=2, lanes=4, outputs=4, drain_lanes=1, memory_width=4),
    "3x8x8": Config(pixels=3),
    "5x4x8": Config(pixels=5, lanes=4, outputs=8, memory_width=4),
    "1x2x2": Config(pixels=1, lanes=2, outputs=2, drain_lanes=1, memory_width=2),
    "2x16x16": Config(pixels=2, lanes=16, outputs=16),
    "ternary": Config(pixels=3, digit_set="ternary"),
}


def wrapped(value):
    """A 32-bit signed number."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def some_act(rng):
    """An activation of 8 bits, the ends of the range often."""
    return rng.choice([0, 255, rng.randrange(256), rng.randrange(256)])


def make_tile(rng, config, *, extreme):
    """The steps of a tile (acts, fields, shift, sum) and its sums: (acc by row and output, asum by row)."""
    values = {0: 0, 1: 1, 2: -2, 3: -1} if config.digit_set == "radix4" else {0: 0, 1: 1, 2: 0, 3: -1}
    planes, length = rng.randint(1, config.max_digits), rng.randint(1, 5)
    offset = rng.choice([-512, 511, 0, rng.randint(-512, 511)])
    acc = [[0] * config.outputs for _ in range(config.pixels)]
    asum = [0] * config.pixels
    steps = []
    for plane in range(planes):
        for index in range(length):
            acts = [[255 if extreme else some_act(rng) for _ in range(config.lanes)] for _ in range(config.pixels)]
            fields = [[2 if extreme else rng.randrange(4) for _ in range(config.lanes)] for _ in range(config.outputs)]
            steps.append({"acts": acts, "fields": fields, "shift": plane > 0 and index == 0, "sum": plane == 0, "offset": offset})
            for row in range(config.pixels):
                asum[row] += offset * sum(acts[row]) if plane == 0 else 0
                for output in range(config.outputs):
                    dot = sum(values[field] * act for field, act in zip(fields[output], acts[row], strict=True))
                    acc[row][output] += dot << 2 * (planes - 1 - plane)
    return steps, ([[wrapped(value) for value in row] for row in acc], [wrapped(value) for value in asum])


@pytest.mark.parametrize("name", CONFIGS)
def test_sums(name):
    """Every row's sums appear when they are promised, and stay until those of the next tile."""
    config = CONFIGS[name]
    rng = random.Random(name)
    tiles = [make_tile(rng, config, extreme=index == 3) for index in range(12)]
    slots = []  # by cycle: a step, garbage that is no step, the sums due from this ``last``
    for index, (steps, sums) in enumerate(tiles):
        idle = 0 if index % 2 else 0.3
        for position, step in enumerate(steps):
            while rng.random() < idle:
                slots.append((None, None))
            slots.append((step, sums if position == len(steps) - 1 else None))
    latency = sums_latency(config)
    slots += [(None, None)] * (latency + config.pixels + 2)
    dut = SystolicArray(config)

    async def testbench(ctx):
        due = [{} for _ in range(config.pixels)]
        sums_now = [None] * config.pixels
        asum_now = [None] * config.pixels
        for cycle, (step, sums) in enumerate(slots):
            drive(ctx, step, last=sums is not None)
            for row in range(config.pixels):
                if sums is not None:
                    due[row][cycle + latency + row] = sums[0][row]
                    due[row][("asum", cycle + latency + row + 1)] = sums[1][row]
                sums_now[row] = due[row].get(cycle, sums_now[row])
                asum_now[row] = due[row].get(("asum", cycle), asum_now[row])
                if sums_now[row] is not None:
                    assert [ctx.get(dut.sums[row].acc[output]) for output in range(config.outputs)] == sums_now[row]
                if asum_now[row] is not None:
                    assert ctx.get(dut.sums[row].asum) == asum_now[row]
            await ctx.tick()
        assert None not in sums_now

    def drive(ctx, step, *, last):
        ctx.set(dut.feed.step, step is not None)
        for flag in ("shift", "sum"):
            ctx.set(getattr(dut.feed, flag), rng.randrange(2) if step is None else step[flag])
        ctx.set(dut.feed.last, rng.randrange(2) if step is None else last)
        ctx.set(dut.feed.residual, step is None)
        if step is None:
            ctx.set(dut.feed.weights, rng.getrandbits(2 * config.lanes * config.outputs))
            return
        ctx.set(dut.feed.offset, step["offset"])
        ctx.set(dut.feed.acts, step["acts"])
        word = 0
        for output, fields in enumerate(step["fields"]):
            for lane, field in enumerate(fields):
                word |= field << 2 * (output * config.lanes + lane)
        ctx.set(dut.feed.weights, word)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
