"""The walk, the load and store engines, and the whole memory system against plain-Python models."""

import random

import pytest
from amaranth.sim import Simulator
from movement import SPAN, good_words, memory_word_bytes, walk, word_fault
from test_memory import CONFIG
from transfer_machine import CONFIGS, FULL, READ, WIDE, WRITE, Machine, good_move, random_move

from tercel.hw.isa import Fault, Opcode, Space, encode
from tercel.hw.memory.load import LoadEngine
from tercel.hw.memory.space import most_beats, spaces
from tercel.hw.memory.store import StoreEngine
from tercel.hw.memory.walk import Walk


@pytest.mark.parametrize("name", [*CONFIGS, "wide"])
def test_walk_offers_every_beat_with_its_place_and_fault(name):
    config = (CONFIGS | {"wide": WIDE})[name]
    rng = random.Random(name)
    dut = Walk(config, spaces=spaces(config))
    width = config.memory_width
    moves = []
    for number in range(24):
        space = rng.choice(spaces(config))
        fields = random_move(rng, config, space, READ, words=2 + 60 // most_beats(config))
        if number % 2:
            # Anything that the encoding allows, around both ends of the region and of the address space.
            fields["memory_addr"] = (rng.choice([*READ, 0, 0x12340]) + width * rng.randint(-8, 8)) % SPAN
            fields["memory_row"] = rng.choice([SPAN - 8 * width, 8 * width, rng.randrange(0, SPAN, width)])
            for field in ("spad_addr", "spad_row_addr", "spad_pixel", "spad_limit", "spad_span"):
                fields[field] = rng.getrandbits(14)
            fields["addr_linear"] = rng.getrandbits(16)
        moves.append(fields)
    region = (READ[0] + rng.randrange(width), READ[1] + rng.randrange(width))

    async def start(ctx):
        ctx.set(dut.region_base, region[0])
        ctx.set(dut.region_end, region[1])
        for fields in moves:
            while rng.random() < 0.5:
                await ctx.tick()
            ctx.set(dut.start.payload.as_value(), encode(Opcode.LOAD, fields))
            ctx.set(dut.start.valid, 1)
            await ctx.tick().until(dut.start.ready)
            ctx.set(dut.start.valid, 0)

    async def check(ctx):
        faults = set()
        for number, fields in enumerate(moves):
            stalls = (0, 0.4)[number // 2 % 2]
            size = memory_word_bytes(config, fields["space"])
            words = list(walk(config, fields))
            for index, (outside, place) in enumerate(words):
                fault = word_fault(config, fields, outside, place, region)
                faults.add(fault)
                for beat in range(size // width):
                    while rng.random() < stalls:
                        await ctx.tick()
                    ctx.set(dut.o.ready, 1)
                    (item,) = await ctx.tick().sample(dut.o.payload).until(dut.o.valid)
                    ctx.set(dut.o.ready, 0)
                    assert item.adr == (outside // width + beat) % (SPAN // width)
                    assert (item.first, item.last) == (beat == 0, beat == size // width - 1)
                    assert item.end == (index == len(words) - 1)
                    assert item.fault == (fault if beat == 0 else 0)
                    assert item.space == fields["space"]
                    if fields["space"] == Space.RECORD:
                        assert (item.bank, item.addr) == (place[0], place[1] % (1 << 16))
                    elif fields["space"] >= Space.WEIGHT:
                        assert item.addr == place[1] % (1 << 16)
                    else:
                        assert (item.bank, item.addr % (1 << 14)) == place
        assert faults == {Fault.NONE, Fault.MEMORY_RANGE, Fault.SCRATCHPAD_RANGE}

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(start)
    sim.add_testbench(check)
    sim.run()


def low_half(config, fields):
    """Whether a move's scratchpad words stay clear of the other engines' writes."""
    return fields["space"] >= Space.WEIGHT or all(place[1] < config.array_depth // 2 for _, place in walk(config, fields))


on_memories = pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("plain", {"latency": (1, 1)}),
        ("plain", {"latency": (0, 12), "stall": 0.3, "hesitate": 0.2}),
        ("multiplier", {"latency": (2, 6), "stall": 0.1}),
        ("pair", {"latency": (0, 0)}),
        ("full", {"latency": (20, 20), "hesitate": 0.1}),
    ],
)


@on_memories
def test_loads_land_beside_the_other_engines(name, memory):
    config = CONFIGS[name]
    machine = Machine(config, seed=name, **memory)
    rng = random.Random(name)
    moves = []
    while len(moves) < 12:
        fields = good_move(rng, config, rng.choice(spaces(config)), READ, words=24)
        if low_half(config, fields):
            moves.append(fields)
            machine.apply_load(fields)

    async def conclude(ctx):
        await machine.settle(ctx, {"load": len(moves)})
        await machine.compare(ctx)

    machine.simulate(*machine.engine("load", moves), machine.traffic(), conclude)
    assert machine.done["load"] == [(100 + i, i % 16) for i in range(len(moves))]
    assert machine.fault == {}
    assert sum(machine.events["load"]) == machine.busy["load"]
    beats = sum(len(list(walk(config, fields))) * memory_word_bytes(config, fields["space"]) for fields in moves) // config.memory_width
    assert machine.events["load"][LoadEngine.EVENTS.index("beat")] == beats == len(machine.memory.taken)
    assert machine.events["load"][LoadEngine.EVENTS.index("write")] > 0


@on_memories
def test_stores_and_loads_share_the_port(name, memory):
    config = CONFIGS[name]
    machine = Machine(config, seed=name, **memory)
    rng = random.Random(name)
    linear = [space for space in spaces(config) if space >= Space.WEIGHT]
    # Loads fill the array scratchpad; then stores read it while loads fill the linear memories.
    first, loads, stores, expected = [], [], [], {}
    while len(first) < 3:
        fields = good_move(rng, config, Space.ARRAY, READ, words=40)
        if low_half(config, fields):
            first.append(fields)
            machine.apply_load(fields)
    while len(loads) < 7:
        loads.append(good_move(rng, config, rng.choice(linear), READ, words=24))
        machine.apply_load(loads[-1])
    while len(stores) < 8:
        fields = good_move(rng, config, Space.ARRAY, WRITE, words=24)
        if low_half(config, fields):
            stores.append(fields)
            machine.expected_store(fields, expected)
    load_start, load_finish = machine.engine("load", first + loads)
    store_start, store_finish = machine.engine("store", stores)

    async def store_later(ctx):
        while len(machine.done["load"]) < len(first):
            await ctx.tick()
        await store_start(ctx)

    async def conclude(ctx):
        await machine.settle(ctx, {"load": len(first + loads), "store": len(stores)})
        await machine.compare(ctx)

    machine.simulate(load_start, load_finish, store_later, store_finish, machine.traffic(), conclude)
    assert machine.done["store"] == [(100 + i, i % 16) for i in range(len(stores))]
    assert machine.memory.contents == expected
    assert machine.fault == {}
    assert machine.events["store"][StoreEngine.EVENTS.index("read")] > 0


@pytest.mark.parametrize("name", ["plain", "full"])
@pytest.mark.parametrize("seed", range(4))
def test_range_faults_keep_the_words_before(name, seed):
    config = CONFIGS[name]
    rng = random.Random(seed)
    read = (READ[0] + rng.randrange(config.memory_width), READ[0] + 0x800 + rng.randrange(config.memory_width))
    write = (WRITE[0] + rng.randrange(config.memory_width), WRITE[0] + 0x800 + rng.randrange(config.memory_width))
    machine = Machine(config, seed=seed, latency=(3, 9), stall=0.2, read=read, write=write)

    def until_fault(space_choice, region, model):
        moves, fault = [], Fault.NONE
        while not fault:
            fields = random_move(rng, config, rng.choice(space_choice), (region[0] & ~15, region[1]), words=30)
            fields["spad_addr"] = rng.randrange(16) if len(moves) < 3 else rng.randrange(30, 64)
            fault = good_words(config, fields, region)[1]
            if fault and len(moves) < 3:
                fault = Fault.NONE
                continue
            model(fields)
            moves.append(fields)
        return moves, fault

    loads, load_fault = until_fault(spaces(config), read, machine.apply_load)
    expected = {}
    stores, store_fault = until_fault([Space.ARRAY], write, lambda fields: machine.expected_store(fields, expected))
    load_start, load_finish = machine.engine("load", [*loads, loads[0]])
    store_start, store_finish = machine.engine("store", [*stores, stores[0]])

    async def store_later(ctx):
        while "load" not in machine.fault:
            await ctx.tick()
        await store_start(ctx)

    async def store_finish_later(ctx):
        while "load" not in machine.fault:
            await ctx.tick()
        await store_finish(ctx)

    async def conclude(ctx):
        await machine.settle(ctx, {"load": None, "store": None})
        await machine.compare(ctx)

    machine.silenced = True
    machine.simulate(load_start, load_finish, store_later, store_finish_later, conclude)
    assert machine.fault == {"load": (load_fault, 99 + len(loads)), "store": (store_fault, 99 + len(stores))}
    assert machine.done["load"] == [(100 + i, i % 16) for i in range(len(loads) - 1)]
    assert machine.done["store"] == [(100 + i, i % 16) for i in range(len(stores) - 1)]
    assert machine.memory.contents == expected
    # No beat of a bad word was on the bus.
    asked = sum(len(good_words(config, fields, read)[0]) * memory_word_bytes(config, fields["space"]) for fields in loads)
    assert sum(not we for *_, we in machine.memory.taken) == asked // config.memory_width


SEQUENCE = {
    "space": int(Space.ARRAY), "memory_row": 0, "rows": 0, "pixels": 9, "groups": 3, "spad_bank": 1, "spad_addr": 0, "spad_row_bank": 0,
    "spad_row_addr": 0, "spad_pixel": 4, "spad_limit": 0, "spad_span": 0,
}  # fmt: skip


@pytest.mark.parametrize("engine", ["load", "store"])
@pytest.mark.parametrize("silent", [False, True])
def test_the_memory_may_refuse_or_be_silent(engine, silent):
    region = READ if engine == "load" else WRITE
    moves = [SEQUENCE | {"memory_addr": region[0] + 0x100 * i} for i in range(6)]
    broken = 5 if silent else 3
    machine = Machine(CONFIG, seed=1, latency=(5, 5), timeout_cycles=64, silent_after=broken * 80 + 37 if silent else None)
    machine.memory.errors = {region[0] + 0x100 * broken + 74, region[0] + 0x100 * broken + 90}
    contents = {}
    for fields in moves[:broken]:
        machine.apply_load(fields) if engine == "load" else machine.expected_store(fields, contents)
    words = list(walk(CONFIG, moves[broken]))[:18]
    for outside, place in words:
        machine.model[Space.ARRAY, place] = machine.memory.read(outside, 4) if engine == "load" else 0
    machine.silenced = True

    async def conclude(ctx):
        await machine.settle(ctx, {engine: None})
        if engine == "load":
            await machine.compare(ctx)

    machine.simulate(*machine.engine(engine, moves), conclude)
    assert machine.fault == {engine: (Fault.BUS_TIMEOUT if silent else Fault.BUS_ERROR, 100 + broken)}
    assert machine.done[engine] == [(100 + i, i) for i in range(broken)]


@pytest.mark.parametrize("name", ["plain", "full"])
@pytest.mark.parametrize("engine", ["load", "store"])
@pytest.mark.parametrize("latency", [1, 12])
def test_one_beat_a_cycle(name, engine, latency):
    config = CONFIGS[name]
    machine = Machine(config, seed=1, latency=(latency, latency))
    region = READ if engine == "load" else WRITE
    moves = [SEQUENCE | {"memory_addr": region[0] + 0x1000 * i, "memory_row": 0x200, "rows": 2, "spad_row_addr": 8} for i in range(4)]
    machine.silenced = True
    machine.simulate(*machine.engine(engine, moves, pause=0))
    cycles = [cycle for cycle, *_ in machine.memory.taken]
    beats = 3 * 10 * 4 * config.lanes // config.memory_width
    assert len(cycles) == 4 * beats
    for first in range(0, 4 * beats, beats):
        assert cycles[first + beats - 1] - cycles[first] == beats - 1
        if first:
            assert cycles[first] - cycles[first - 1] <= 3
    # From the start to done: the latencies that the docstrings give.
    assert machine.busy[engine] == cycles[-1] - cycles[0] + latency + (11 if engine == "load" else 15)


def test_linear_rows_need_no_pause():
    machine = Machine(FULL, seed=1, latency=(1, 1))
    moves = [{"space": int(Space.WEIGHT), "memory_addr": READ[0], "memory_row": 64, "rows": 30}] * 2
    machine.silenced = True
    machine.simulate(*machine.engine("load", moves, pause=0))
    cycles = [cycle for cycle, *_ in machine.memory.taken]
    assert cycles[61] - cycles[0] == 61
    assert cycles[62] - cycles[61] == 3
