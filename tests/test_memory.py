"""Scratchpad, linear memories and memory port against plain-Python models."""

import random
from itertools import groupby

import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator
from movement import WishboneMemory

from tercel.hw.config import Config
from tercel.hw.isa import Space
from tercel.hw.memory.linear import LinearMemory
from tercel.hw.memory.port import OUTSTANDING_MAX, TURN_BEATS, MemoryPort
from tercel.hw.memory.scratchpad import Scratchpad
from tercel.hw.memory.space import part_bytes, spaces, word_bytes

CONFIG = Config(
    pixels=3, lanes=4, outputs=4, drain_lanes=2, array_depth=64, window_depth=64, weight_depth=64, parameter_depth=16, record_depth=16,
    threshold_depth=16, memory_width=2,
)  # fmt: skip
CHANNEL_CONFIG = Config(
    pixels=2, lanes=2, outputs=6, drain_lanes=2, multiplier_bits=12, per_channel_multiplier=True, array_depth=64, window_depth=64,
    weight_depth=64, parameter_depth=16, record_depth=16, threshold_depth=16, memory_width=2, depthwise_taps=3,
)  # fmt: skip
SIXTEEN_BYTES = Config(
    pixels=2, lanes=16, outputs=16, drain_lanes=4, array_depth=64, window_depth=64, weight_depth=64, parameter_depth=16, record_depth=16,
    threshold_depth=16, memory_width=16,
)  # fmt: skip


def offer_word(ctx, stream, word: dict[str, int] | None) -> None:
    """Set a write stream to a word, of ``space``, ``bank``, ``addr`` and ``data``, or to none."""
    ctx.set(stream.valid, word is not None)
    ctx.set(stream.p.spaces, 0 if word is None else 1 << word["space"])
    if word is not None:
        ctx.set(stream.p.bank, word["bank"])
        ctx.set(stream.p.banks, 1 << word["bank"])
        ctx.set(stream.p.addr, word["addr"])
        ctx.set(stream.p.data, word["data"])


def simulate(dut, *testbenches, background=()) -> None:
    """Runs until every foreground testbench has ended."""
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    for testbench in testbenches:
        sim.add_testbench(testbench)
    for testbench in background:
        sim.add_testbench(testbench, background=True)
    sim.run()


@pytest.mark.parametrize("space", [Space.ARRAY, Space.WINDOW])
def test_scratchpad_cycle_by_cycle(space):
    rng = random.Random(int(space))
    depth, banks, width = 16, CONFIG.pixels, 8 * CONFIG.lanes
    dut = Scratchpad(CONFIG, depth=depth, space=space)
    counts = {"store": 0, "depthwise": 0, "load": 0, "contended": 0}

    def draw(name: str) -> dict[str, int]:
        word = {"space": rng.randint(0, 1), "bank": rng.randrange(banks), "addr": rng.randrange(depth)}
        return word if name == "store" else word | {"data": rng.getrandbits(width)}

    async def drive(ctx):
        model = [[0] * depth for _ in range(banks)]
        streams = {"store": dut.store_read, "depthwise": dut.depthwise_write, "load": dut.load_write}
        offered = dict.fromkeys(streams)
        next_banks = {"depthwise": dut.depthwise_next_bank, "load": dut.load_next_bank}
        # The word that comes next is known a cycle before it is offered at the earliest.
        following = {name: draw(name) for name in streams}
        expected_engine = [None] * banks
        taken_read = stored = None
        writes = []
        # The drain's enables of the cycle before and of that before it, and the word that was taken a cycle ago.
        drain_next = drain_now = 0
        coming = []
        for _ in range(2000):
            read_en, drain_soon = rng.getrandbits(banks), rng.getrandbits(banks) & rng.getrandbits(banks)
            for name, stream in streams.items():
                if offered[name] is None and rng.random() < 0.7:
                    offered[name], following[name] = following[name], draw(name)
                if name != "store":
                    ctx.set(next_banks[name], following[name]["bank"])
                    offer_word(ctx, stream, offered[name])
                    continue
                ctx.set(stream.valid, offered[name] is not None)
                if offered[name] is not None:
                    ctx.set(stream.payload, offered[name])
            read_addr = [rng.randrange(depth) for _ in range(banks)]
            drain_addr = [rng.randrange(depth) for _ in range(banks)]
            drain_data = [rng.getrandbits(width) for _ in range(banks)]
            ctx.set(dut.engine_read.en, read_en)
            ctx.set(dut.drain_write.en, drain_soon)
            for bank in range(banks):
                ctx.set(dut.engine_read.addr[bank], read_addr[bank])
                ctx.set(dut.drain_write.addr[bank], drain_addr[bank])
                ctx.set(dut.drain_write.data[bank], drain_data[bank])
            for bank in range(banks):
                if expected_engine[bank] is not None:
                    assert ctx.get(dut.engine_read.data[bank]) == expected_engine[bank]
            if stored is not None:
                assert ctx.get(dut.store_data[stored[0]]) == stored[1]
            expected_engine = [model[bank][read_addr[bank]] if read_en >> bank & 1 else None for bank in range(banks)]

            store, depthwise, load = (offered[name] if offered[name] and offered[name]["space"] == space else None for name in streams)
            ready = {name: ctx.get(stream.ready) for name, stream in streams.items()}
            writer = depthwise or load
            written = store is not None and (drain_now >> store["bank"] & 1 or any(bank == store["bank"] for bank, _, _ in coming))
            store_taken = store is not None and not written
            # A read taken a cycle ago, and what was written then, are at the banks now.
            stored = (taken_read[0], model[taken_read[0]][taken_read[1]]) if taken_read else None
            taken_read = (store["bank"], store["addr"]) if store_taken else None
            for bank, addr, value in writes:
                model[bank][addr] = value
            counts["contended"] += bool(depthwise and load)
            taken = writer is not None and not drain_next >> writer["bank"] & 1
            assert ready == {
                "store": store_taken,
                "depthwise": taken and writer is depthwise,
                "load": taken and writer is load,
            }
            writes = [(bank, drain_addr[bank], drain_data[bank]) for bank in range(banks) if drain_now >> bank & 1] + coming
            coming = [(writer["bank"], writer["addr"], writer["data"])] if taken else []
            drain_next, drain_now = drain_soon, drain_next
            for name, was_ready in ready.items():
                counts[name] += was_ready
                other = offered[name] is not None and offered[name]["space"] != space
                if was_ready or other:
                    offered[name] = None
            await ctx.tick()

    simulate(dut, drive)
    assert min(counts.values()) > 100


def stored_value(config: Config, space: Space, word: int, *, channels: int | None = None) -> int:
    """What a read returns, as bits, of a memory word; of one with so many ``channels``."""
    if space in (Space.PARAMETER, Space.DEPTHWISE_PARAMETER):
        value = position = 0
        for channel in range(channels or (config.drain_lanes if space == Space.PARAMETER else config.lanes)):
            entry = word >> 64 * channel
            parts = [(entry & 0xFFFFFFFF, 32), (entry >> 32 & 0xF, 4)]
            if config.per_channel_multiplier:
                parts.append((entry >> 48 & (1 << config.multiplier_bits) - 1, config.multiplier_bits))
            for part, bits in parts:
                value |= part << position
                position += bits
        return value
    bits = {Space.WEIGHT: 2 * config.lanes * config.outputs, Space.THRESHOLD: 16}[space]
    return word & (1 << bits) - 1


@pytest.mark.parametrize("config", [CONFIG, CHANNEL_CONFIG, SIXTEEN_BYTES], ids=["plain", "multiplier", "sixteen bytes"])
@pytest.mark.parametrize("space", [space for space in Space if space >= Space.WEIGHT])
def test_linear_memory_stores_the_useful_bits(config, space):
    rng = random.Random(int(space))
    dut = LinearMemory(config, space=space)
    depth = 64 if space == Space.WEIGHT else 16
    size = part_bytes(config, space=space)
    parts = word_bytes(config, space=space) // size

    async def drive(ctx):
        model = [[0] * 9 for _ in range(depth)]
        held = None
        written = []
        coming = 0 if space == Space.WEIGHT else None
        for _ in range(600):
            write = dut.write
            named = rng.choice([space, space, rng.choice([s for s in spaces(config) if s >= Space.WEIGHT])])
            en, addr, tap, part = rng.randint(0, 1), rng.getrandbits(16), rng.randrange(9), rng.randrange(parts)
            bits = rng.getrandbits(len(write.data))
            read_en, read_addr, row = rng.randint(0, 1), rng.randrange(depth), rng.randrange(3)
            by_rows = space == Space.RECORD and config.depthwise_taps == 3
            for name, value in {"en": en, "space": named, "addr": addr, "tap": tap, "part": part, "data": bits}.items():
                ctx.set(getattr(write, name), value)
            ctx.set(dut.read.en, read_en)
            ctx.set(dut.read.addr, 4 * read_addr + row if by_rows else read_addr)
            if held is not None:
                if space == Space.RECORD:
                    assert [ctx.get(dut.read.data[i]) for i in range(config.depthwise_taps)] == held
                elif space == Space.THRESHOLD:
                    assert ctx.get(dut.read.data) == held[0] - (held[0] >> 15 << 16)
                elif space == Space.WEIGHT:
                    assert ctx.get(dut.read.data) == held[0]
                else:
                    assert ctx.get(dut.read.data.as_value()) == held[0]
                    first = ctx.get(dut.read.data[0])
                    assert first.bias == (held[0] & 0xFFFFFFFF) - ((held[0] >> 31 & 1) << 32)
            if space == Space.WEIGHT:
                held, coming = list(model[coming]), read_addr
            elif space == Space.DEPTHWISE_PARAMETER:
                held = held if coming is None else list(model[coming])
                coming = read_addr if read_en else None
            elif read_en:
                held = model[read_addr][3 * row : 3 * row + 3] if by_rows else list(model[read_addr])
            # What was written a cycle ago is at the memory now.
            for place, index, keep, value in written:
                model[place][index] = model[place][index] & keep | value
            written = []
            if en and named == space:
                word = bits >> len(write.data) - 8 * size
                if space == Space.RECORD:
                    written.append((addr % depth, tap, 0, word))
                else:
                    # Of a word that LOAD writes in parts the others stay.
                    width = len(Value.cast(dut.read.data)) // parts
                    value = stored_value(config, space, word, channels=max(1, size // 8) if parts > 1 else None)
                    written.append((addr % depth, 0, ~((1 << width) - 1 << part * width), value << part * width))
            await ctx.tick()

    simulate(dut, drive)


def test_memory_words_are_whole_beats():
    assert [CHANNEL_CONFIG.weight_word_bytes, CHANNEL_CONFIG.threshold_word_bytes] == [4, 2]
    wide = Config(lanes=16, outputs=16, drain_lanes=1, memory_width=16)
    assert [wide.weight_word_bytes, wide.parameter_word_bytes, wide.threshold_word_bytes] == [64, 16, 16]


class PortClients:
    """Three clients of the port with random traffic, each checking its own answers."""

    def __init__(self, dut, memory, rng, *, beats, pause=0.2):
        self.dut, self.memory, self.rng, self.beats, self.pause = dut, memory, rng, beats, pause
        self.grants = []
        self.asked = {"fetch": [], "load": [], "store": []}
        self.answers = {"fetch": [], "load": [], "store": []}

    def client(self, name):
        port = getattr(self.dut, name)
        base = {"fetch": 0x1000, "load": 0x20000, "store": 0x400000}[name]

        async def run(ctx):
            width = self.memory.config.memory_width
            tick = [port.request.ready, port.valid, port.err, port.timeout, port.last if name == "store" else port.data]
            sent = 0
            cycle = 0
            offering = False
            while len(self.answers[name]) < self.beats:
                if not offering and sent < self.beats and self.rng.random() >= self.pause:
                    offering = True
                    beat = base // width + self.rng.randrange(256)
                    tag, value = self.rng.randint(0, 1), self.rng.getrandbits(8 * width)
                    ctx.set(port.request.payload, {"addr": beat, "data": value, "last": tag} if name == "store" else beat)
                ctx.set(port.request.valid, offering)
                *_, ready, valid, err, timeout, data = await ctx.tick().sample(*tick)
                cycle += 1
                if offering and ready:
                    offering = False
                    sent += 1
                    self.grants.append((cycle, name))
                    self.asked[name].append((beat * width, tag, value))
                if valid:
                    self.answers[name].append((err, timeout, data, cycle))
            ctx.set(port.request.valid, 0)

        return run


@pytest.mark.parametrize(
    ("width", "latency", "stall", "hesitate"),
    [(1, (0, 0), 0.0, 0.0), (2, (1, 1), 0.5, 0.0), (4, (0, 9), 0.3, 0.3), (4, (12, 30), 0.0, 0.1)],
)
def test_port_answers_every_client_in_order(width, latency, stall, hesitate):
    config = Config(pixels=2, lanes=4, outputs=4, memory_width=width)
    rng = random.Random(width)
    dut = MemoryPort(config)
    memory = WishboneMemory(config, dut.bus, rng, latency=latency, stall=stall, hesitate=hesitate)
    memory.errors = {0x1000 + 4 * rng.randrange(256) for _ in range(20)} | {0x400000 + 4 * rng.randrange(256) for _ in range(20)}
    clients = PortClients(dut, memory, rng, beats=300)
    simulate(dut, *(clients.client(name) for name in clients.asked), background=[memory.run])
    written = {}
    for name, asked in clients.asked.items():
        for (address, tag, value), (err, timeout, data, _) in zip(asked, clients.answers[name], strict=True):
            assert (err, timeout) == (address in memory.errors, 0)
            if name == "store":
                assert data == tag
                if not err:
                    written[address] = value
            elif not err:
                assert data == memory.read(address, width)
    for address, value in written.items():
        assert memory.read(address, width) == value
    assert memory.most_pending <= OUTSTANDING_MAX
    assert latency[0] < 12 or memory.most_pending == OUTSTANDING_MAX


def test_port_serves_fetch_first_and_the_others_in_turns():
    config = Config(pixels=2, lanes=4, outputs=4, memory_width=4)
    rng = random.Random(3)
    dut = MemoryPort(config)
    memory = WishboneMemory(config, dut.bus, rng, latency=(3, 3))
    clients = PortClients(dut, memory, rng, beats=100, pause=0)
    simulate(dut, *(clients.client(name) for name in clients.asked), background=[memory.run])
    cycles = [cycle for cycle, _ in sorted(clients.grants)]
    names = [name for _, name in sorted(clients.grants)]
    assert cycles == list(range(1, 301))
    assert set(names[:100]) == {"fetch"}
    turns = [len(list(turn)) for _, turn in groupby(names[100:])]
    assert turns == [TURN_BEATS] * 6 + [4, 4]


def test_port_gives_a_turn_to_the_other_when_one_does_not_ask():
    config = Config(pixels=2, lanes=4, outputs=4, memory_width=4)
    rng = random.Random(4)
    dut = MemoryPort(config)
    memory = WishboneMemory(config, dut.bus, rng, latency=(3, 3))
    clients = PortClients(dut, memory, rng, beats=100, pause=0)
    simulate(dut, clients.client("store"), background=[memory.run])
    assert [cycle for cycle, _ in clients.grants] == list(range(1, 101))


def test_port_is_dead_after_a_time_out():
    config = Config(pixels=2, lanes=4, outputs=4, memory_width=4)
    rng = random.Random(3)
    dut = MemoryPort(config, timeout_cycles=64)
    memory = WishboneMemory(config, dut.bus, rng, latency=(2, 5), silent_after=50)
    clients = PortClients(dut, memory, rng, beats=60)
    simulate(dut, *(clients.client(name) for name in clients.asked), background=[memory.run])
    answers = sorted((cycle, err, timeout) for of_client in clients.answers.values() for err, timeout, _, cycle in of_client)
    assert [(err, timeout) for _, err, timeout in answers] == [(0, 0)] * 50 + [(1, 1)] * 130
    assert answers[50][0] - answers[49][0] == 65
    assert answers[50 + 15][0] - answers[50][0] == 15
