"""The drain against plain integers: every kind of instruction, tiles as close together as they may come, garbage in between."""

import random

import pytest
from amaranth.sim import Simulator
from drain_model import random_fields, random_memories, random_tile

from tercel.hw.array.drain import Drain, drain_latency
from tercel.hw.array.systolic import sums_latency
from tercel.hw.config import Config


def config_of(**values):
    """Small memories, so that addresses wrap."""
    return Config(**({"memory_width": 1, "parameter_depth": 16, "threshold_depth": 64} | values))


CONFIGS = {
    "base-like": config_of(pixels=3),
    "J=1": config_of(pixels=2, lanes=4, outputs=4, drain_lanes=1),
    "J=2": config_of(pixels=2, lanes=4, outputs=8, drain_lanes=2, per_channel_multiplier=True, multiplier_bits=12),
    "J=N": config_of(pixels=5, lanes=8, outputs=8, drain_lanes=8, multiplier_bits=8),
    "N=2K": config_of(pixels=2, lanes=8, outputs=16, drain_lanes=4, threshold_depth=0),
    "odd": config_of(pixels=1, lanes=2, outputs=6, drain_lanes=2, per_channel_multiplier=True),
    "K=16": config_of(pixels=1, lanes=16, outputs=16, drain_lanes=16),
}


def plan(rng, config, memories):
    """``last`` cycles with their tiles: several instructions of each kind, all gaps minimal in every other instruction."""
    kinds = ["narrow", "narrow", "wide", "residual"] + (["thresholds", "both"] if config.threshold_depth else [])
    kinds = [*rng.sample(kinds, len(kinds)), "narrow", "residual"]
    cycle, lasts = 40, []
    for index, kind in enumerate(kinds):
        fields = random_fields(rng, config, kind=kind)
        length = rng.randint(6, 12) if kind == "narrow" else rng.randint(1, 3)
        for number in range(length):
            tile = random_tile(rng, config, memories, fields=fields, index=index + 100, post=rng.randrange(16), end=number == length - 1)
            if number:
                tile.post = lasts[-1][1].post
            lasts.append((cycle, tile))
            cycle += tile.interval + (0 if index % 2 else rng.randrange(3))
        cycle += drain_latency(config)
    return lasts


def schedule_residuals(rng, config, lasts):
    """Residual words by cycle: anywhere between the ``last`` of the tile before and that of their own."""
    words, before = {}, 0
    for last, tile in lasts:
        if tile.fields["residual"]:
            count = config.words_per_tile
            start = rng.choice([before + 1, last - count, rng.randint(before + 1, last - count)])
            words |= {start + word: (tile, word) for word in range(count)}
        before = last
    return words


@pytest.mark.parametrize("name", CONFIGS)
def test_drain(name):
    """All the writes with the right codes, in the promised time, and the instructions finished in order."""
    config = CONFIGS[name]
    rng = random.Random(name)
    memories = random_memories(rng, config)
    lasts = plan(rng, config, memories)
    words = schedule_residuals(rng, config, lasts)
    end = lasts[-1][0] + lasts[-1][1].interval + drain_latency(config) + 5
    tiles = dict(lasts)
    latency = sums_latency(config)
    dut = Drain(config)
    written = []
    finished = []

    async def feed(ctx):
        for cycle in range(end):
            ctx.set(dut.last, cycle in tiles)
            tile = tiles.get(cycle)
            ctx.set(dut.tile.valid, tile.valid if tile else rng.getrandbits(config.pixels))
            ctx.set(dut.tile.end, tile.end if tile else 1)
            for row in range(config.pixels):
                ctx.set(dut.tile.addr[row], tile.addr[row] if tile else rng.getrandbits(14))
            ctx.set(dut.tile.parameter_addr, tile.parameter_addr if tile else rng.getrandbits(16))
            if tile:
                ctx.set(dut.tile.config, tile.fields)
                for member in ("space", "index", "post", "threshold_addr"):
                    ctx.set(getattr(dut.tile, member), getattr(tile, member))
            ctx.set(dut.residual, cycle in words)
            ctx.set(dut.residual_word, words[cycle][1] if cycle in words else rng.randrange(32))
            await ctx.tick()

    def row_inputs(row):
        async def testbench(ctx):
            await drive_row(ctx, row)

        return testbench

    async def drive_row(ctx, row):
        """Sums for as long as they are promised, residual codes for a cycle."""
        shown = None
        for cycle in range(end):
            tile = tiles.get(cycle - latency - row)
            if tile:
                shown = (cycle, tile)
                for output in range(config.outputs):
                    ctx.set(dut.sums[row].acc[output], tile.acc[row][output])
            elif shown and cycle == shown[0] + shown[1].interval:
                for output in range(config.outputs):
                    ctx.set(dut.sums[row].acc[output], rng.getrandbits(32))
            tile = tiles.get(cycle - latency - row - 1)
            if tile:
                ctx.set(dut.sums[row].asum, tile.asum[row])
            tile, word = words.get(cycle - row - 1, (None, 0))
            for lane in range(config.lanes):
                ctx.set(dut.acts[row][lane], tile.residual[row][word * config.lanes + lane] if tile else rng.randrange(256))
            await ctx.tick()

    async def memory(ctx):
        parameters, thresholds = memories
        async for _, _reset, en, addr, *rest in ctx.tick().sample(
            dut.parameter.en, dut.parameter.addr, *([dut.threshold.en, dut.threshold.addr] if config.threshold_depth else [])
        ):
            if en:
                for lane, (bias, shift, multiplier) in enumerate(parameters[addr]):
                    ctx.set(dut.parameter.data[lane].bias, bias)
                    ctx.set(dut.parameter.data[lane].shift, shift)
                    if config.per_channel_multiplier:
                        ctx.set(dut.parameter.data[lane].multiplier, multiplier)
            if rest and rest[0]:
                ctx.set(dut.threshold.data, thresholds[rest[1]])

    async def collect(ctx):
        enables = spaces = 0
        for cycle in range(end):
            for row in range(config.pixels):
                if enables >> row & 1:
                    written.append((cycle, row, spaces >> row & 1, ctx.get(dut.write.addr[row]), ctx.get(dut.write.data[row])))
            if ctx.get(dut.finished):
                finished.append((cycle, ctx.get(dut.done_index), ctx.get(dut.done_post)))
            # The enables come a cycle before the words.
            enables, spaces = ctx.get(dut.write.en), ctx.get(dut.write_space)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(feed)
    for row in range(config.pixels):
        simulator.add_testbench(row_inputs(row))
    simulator.add_testbench(memory, background=True)
    simulator.add_testbench(collect)
    simulator.run()

    for row in range(config.pixels):
        expected = [
            (tile.space, tile.addr[row] + word, int.from_bytes(bytes(tile.codes[row][word * config.lanes :][: config.lanes]), "little"))
            for _, tile in lasts
            if tile.valid >> row & 1
            for word in range(config.words_per_tile)
        ]
        assert [write[2:] for write in written if write[1] == row] == expected
    ends = [(last + tile.interval + drain_latency(config), tile.index, tile.post) for last, tile in lasts if tile.end]
    assert finished == ends
    for (last, tile), (after, _) in zip(lasts, [*lasts[1:], (end, None)], strict=True):
        if tile.end:
            assert all(cycle < last + tile.interval + drain_latency(config) or cycle > after for cycle, *_ in written)
