"""The feeder against a plain generator of its transactions: every activation, address, flag and cycle."""

import random

import feed_model
import pytest
from amaranth.sim import Simulator
from array_programs import config_of, random_fields

from tercel.hw.array.drain import drain_latency
from tercel.hw.array.feed import drain_interval
from tercel.hw.array.feeder import EVENTS, LATENCY, Feeder
from tercel.hw.isa import Fault, Opcode, encode


def word_at(config, bank, addr):
    """A scratchpad word that tells where it was read."""
    return random.Random(bank << 14 | addr).getrandbits(8 * config.lanes)


def weight_at(config, addr):
    """The same for a weight word."""
    return addr * 0x9E3779B97F4A7C15 % 2 ** (2 * config.lanes * config.outputs)


def tile_of(config, feed, ctx):
    """The descriptor as the model writes it."""
    tile = ctx.get(feed.tile)
    return dict(
        addr=[tile.addr[row] if tile.valid >> row & 1 else None for row in range(config.pixels)],
        config={name: getattr(tile.config, name) for name in feed_model.DRAIN_LAYOUT.members},
        **{name: getattr(tile, name) for name in ("space", "parameter_addr", "threshold_addr", "end", "index", "post")},
    )


def run(config, program, *, delays=None, finish_after=3):
    """Transactions with their cycle of issue, the first transfer's cycle, events by cycle, and the fault (cycle, code, index) if any.

    ``delays``: idle cycles before each instruction is offered; ``finish_after``: cycles from the end of an instruction to ``finished``.
    """
    dut = Feeder(config)
    seen, events, accepted, result = [], [], [], {"fault": None}

    async def source(ctx):
        for index, f in program:
            for _ in range(delays.pop(0) if delays else 0):
                await ctx.tick()
            ctx.set(dut.start.payload, {"instruction": encode(Opcode.ARRAY, f), "index": index})
            ctx.set(dut.start.valid, 1)
            while not ctx.get(dut.start.ready):
                await ctx.tick()
            await ctx.tick()
            ctx.set(dut.start.valid, 0)

    async def memories(ctx):
        garbage = random.Random(1)
        coming = 0
        async for _, _, enable, addrs, weight_addr in ctx.tick().sample(dut.read.en, dut.read.addr, dut.weight.addr):
            for bank in range(config.pixels):
                if enable >> bank & 1:
                    assert addrs[bank] < config.array_depth
                    ctx.set(dut.read.data[bank], word_at(config, bank, addrs[bank]))
                else:
                    ctx.set(dut.read.data[bank], garbage.getrandbits(8 * config.lanes))
            ctx.set(dut.weight.data, weight_at(config, coming))
            coming = weight_addr

    async def watch(ctx):
        cycle, quiet = 0, 0
        finishing = []
        while quiet < 60 + 16 * config.outputs:
            if ctx.get(dut.start.valid) and ctx.get(dut.start.ready):
                accepted.append(cycle)
            events.append(ctx.get(dut.events))
            feed = dut.feed
            step, residual = ctx.get(feed.step), ctx.get(feed.residual)
            assert not (step and residual)
            if step or residual:
                quiet = 0
                slot = feed_model.Slot(step=bool(step), acts=[list(codes) for codes in ctx.get(feed.acts)])
                if residual:
                    slot.residual_word = ctx.get(feed.residual_word)
                else:
                    slot.shift, slot.sum = bool(ctx.get(feed.shift)), bool(ctx.get(feed.sum))
                    slot.weight_addr = ctx.get(feed.weights)
                    if ctx.get(feed.last):
                        slot.tile = tile_of(config, feed, ctx)
                        if slot.tile["end"]:
                            finishing.append(cycle + finish_after)
                seen.append((cycle - LATENCY, slot, ctx.get(feed.offset)))
            else:
                assert not ctx.get(feed.last)
                quiet += 1
            if ctx.get(dut.fault_valid) and result["fault"] is None:
                result["fault"] = (cycle, ctx.get(dut.fault_code), ctx.get(dut.fault_index))
            ctx.set(dut.finished, cycle in finishing)
            await ctx.tick()
            cycle += 1
        result["idle"] = ctx.get(dut.idle)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source, background=True)
    simulator.add_testbench(memories, background=True)
    simulator.add_testbench(watch)
    simulator.run()
    return seen, events, accepted, result


def same(config, slot, expected):
    """Compare a transaction with the model's."""
    assert slot.step == expected.step
    # In residual words, rows that have no pixel hold anything.
    assert [codes if wanted else None for codes, wanted in zip(slot.acts, expected.acts, strict=True)] == expected.acts
    if slot.step:
        assert slot.weight_addr == weight_at(config, expected.weight_addr)
        assert (slot.shift, slot.sum) == (expected.shift, expected.sum)
        assert slot.tile == expected.tile
    else:
        assert slot.residual_word == expected.residual_word


def expect(config, program):
    """Slots of each instruction up to the first fault, and the index that faults."""
    slots = []
    for index, f in program:
        slots.append([])
        try:
            for slot in feed_model.feed(config, f, index=index, word=lambda bank, addr: word_at(config, bank, addr)):
                slots[-1].append(slot)
        except feed_model.Fault:
            return slots, index
    return slots, None


CONFIGS = [
    config_of(1, lanes=4), config_of(2), config_of(3, lanes=4, drain_lanes=4), config_of(4, lanes=4), config_of(5, digit_set="ternary"),
    config_of(6, threshold_depth=0), config_of(7, lanes=4, outputs=8), config_of(8),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"P{config.pixels}")
def test_transactions_and_cycles(config):
    """Instructions held in time: what comes out, in which cycle, and what each cycle went to."""
    rng = random.Random(config.pixels)
    program = [(100 + number, random_fields(rng, config)) for number in range(40)]
    seen, events, accepted, result = run(config, program)
    slots, fault = expect(config, program)
    assert fault is None
    flat = [(slot, f) for (_, f), group in zip(program, slots, strict=True) for slot in group]
    for (_, slot, offset), (expected, f) in zip(seen, flat, strict=True):
        same(config, slot, expected)
        if slot.step:
            assert offset == f["offset"]
    cycles = feed_model.schedule(
        config, [(f, group) for (_, f), group in zip(program, slots, strict=True)], accepted=accepted[0]
    )
    assert [cycle for cycle, _, _ in seen] == cycles

    # One event a cycle from the first instruction to the last step.
    assert all(event and not event & (event - 1) for event in events[accepted[0] : cycles[-1] + 1])
    assert not any(events[: accepted[0]]) and not any(events[cycles[-1] + 1 :])
    count = {name: sum(event >> number & 1 for event in events) for number, name in enumerate(EVENTS)}
    assert count["step"] == sum(slot.step for slot, _ in flat)
    assert count["residual"] == sum(not slot.step for slot, _ in flat)
    assert count["conflict"] == sum(expected.cycles - 1 for expected, _ in flat if expected.step)
    assert result == {"fault": None, "idle": 1}


@pytest.mark.parametrize("pixels", [2, 7])
def test_delays(pixels):
    """Instructions that come late, and a drain that finishes them late: the same transactions, tiles far enough apart."""
    config = config_of(pixels)
    rng = random.Random(pixels)
    program = [(number, random_fields(rng, config, steps=20)) for number in range(40)]
    seen, _, _, result = run(config, program, delays=[rng.choice((0, 1, 3, 40)) for _ in program], finish_after=90)
    slots, _ = expect(config, program)
    flat = [(slot, f) for (_, f), group in zip(program, slots, strict=True) for slot in group]
    earliest = 0
    for (cycle, slot, _), (expected, f) in zip(seen, flat, strict=True):
        same(config, slot, expected)
        if slot.tile is not None:
            assert cycle >= earliest
            interval = drain_interval(config, narrow=bool(f["narrow"]), thresholds=f["thresholds"])
            earliest = cycle + interval + (drain_latency(config) if slot.tile["end"] else 0)
    assert result == {"fault": None, "idle": 1}


def test_no_more_than_four_in_flight():
    """Without ``finished`` the fifth instruction is not accepted."""
    config = config_of(2)
    rng = random.Random(0)
    program = [(number, random_fields(rng, config, steps=4)) for number in range(6)]
    _, _, accepted, result = run(config, program, finish_after=10000)
    assert len(accepted) == 4
    assert result["idle"] == 0


def test_one_step_per_cycle():
    """A narrow layer of 1x1 kernels, 3x1 kernels and a padded 3x3 one run without a gap within a row."""
    config = config_of(7, lanes=4, drain_lanes=4)
    for kernel in ((0, 0), (0, 2), (2, 2)):
        rng = random.Random(7)
        fields = random_fields(
            rng, config, steps=2000, kernel_width=kernel[0], kernel_height=kernel[1], groups=0, tiles=3, output_groups=2, rows=0, narrow=1,
            residual=0, thresholds=0, digits=1,
        )  # fmt: skip
        seen, *_ = run(config, [(0, fields)])
        cycles = [cycle for cycle, _, _ in seen]
        assert cycles == list(range(cycles[0], cycles[0] + len(cycles)))


@pytest.mark.parametrize("pixels", [2, 4, 7])
def test_faults(pixels):
    """Reads, residual reads and writes out of range: all before comes out, nothing from there on, no address at or past the depth."""
    config = config_of(pixels, array_depth=256)
    rng = random.Random(pixels)
    faults = 0
    for _ in range(30):
        program = [(number, random_fields(rng, config, steps=60, depth=rng.choice((32, 64, 128)))) for number in range(3)]
        slots, fault = expect(config, program)
        flat = [slot for group in slots for slot in group]
        seen, events, _, result = run(config, program)
        if fault is None:
            assert len(seen) == len(flat)
            assert result["fault"] is None
            continue
        faults += 1
        assert len(seen) == len(flat)
        for (_, slot, _), expected in zip(seen, flat, strict=True):
            same(config, slot, expected)
        assert result["fault"][1:] == (Fault.SCRATCHPAD_RANGE, fault)
        assert not any(events[result["fault"][0] :])
        assert result["idle"] == 0
    assert faults > 8
