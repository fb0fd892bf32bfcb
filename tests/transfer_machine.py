"""Random moves, and the memory system between a bus and the other engines' traffic."""

import random

from amaranth.sim import Simulator
from movement import WishboneMemory, good_words, memory_depth, memory_word_bytes
from test_memory import CHANNEL_CONFIG, CONFIG, offer_word, stored_value

from tercel.hw.config import Config
from tercel.hw.isa import Opcode, Space, encode
from tercel.hw.memory.linear import READ_COPIES
from tercel.hw.memory.space import spaces
from tercel.hw.memory.system import MemorySystem

PAIR = Config(
    pixels=1, lanes=8, outputs=8, drain_lanes=8, depthwise=False, array_depth=64, window_depth=0, weight_depth=64, parameter_depth=16,
    record_depth=0, threshold_depth=0, memory_width=8,
)  # fmt: skip
FULL = Config(
    pixels=7, lanes=8, outputs=8, array_depth=64, window_depth=64, weight_depth=64, parameter_depth=16, record_depth=16, threshold_depth=16
)  # fmt: skip
WIDE = Config(
    pixels=16, lanes=4, outputs=32, drain_lanes=4, depthwise=False, array_depth=64, window_depth=0, weight_depth=64, parameter_depth=16,
    record_depth=0, memory_width=1,
)  # fmt: skip
CONFIGS = {"plain": CONFIG, "multiplier": CHANNEL_CONFIG, "pair": PAIR, "full": FULL}
READ = (0x10000, 0x20000)
WRITE = (0x80000, 0x90000)


def random_move(rng: random.Random, config: Config, space: int, region: tuple[int, int], *, words: int = 40) -> dict[str, int]:
    """The fields of a LOAD or STORE of about ``words`` words that mostly stays inside."""
    width, size = config.memory_width, memory_word_bytes(config, space)
    rows, pixels = rng.randint(1, 4), rng.randint(1, 8)
    groups = max(1, rng.randint(1, 2 * words) // (rows * pixels))
    row_bytes = pixels * groups * size
    memory_row = -(-(row_bytes + rng.randrange(40)) // width) * width
    memory_addr = region[0] + rng.randrange(0, max(1, region[1] - region[0] - rows * memory_row), width)
    fields = {
        "space": int(space), "memory_addr": memory_addr, "memory_row": memory_row,
        "rows": rows - 1, "pixels": pixels - 1, "groups": groups - 1,
        "spad_bank": rng.randrange(config.pixels), "spad_addr": rng.randrange(16), "spad_row_bank": rng.randrange(config.pixels),
        "spad_row_addr": rng.randrange(8), "spad_pixel": rng.randrange(8), "spad_limit": rng.choice([0, rng.randrange(1, 24)]),
        "spad_span": rng.randrange(12), "addr_linear": rng.randrange(memory_depth(config, space)) if space >= Space.WEIGHT else 0,
    }  # fmt: skip
    return fields


def good_move(rng, config, space, region, **limits) -> dict[str, int]:
    """Fields without a fault; of a linear space no longer than one turn of the ring."""
    while True:
        fields = random_move(rng, config, space, region, **limits)
        if not good_words(config, fields, region)[1]:
            return fields


class Machine:
    """A memory system with its memory, engines driven by lists of instructions, and a model of what the memories hold."""

    def __init__(self, config, seed, *, read=READ, write=WRITE, timeout_cycles=256, **memory):
        self.config, self.rng = config, random.Random(seed)
        self.dut = MemorySystem(config, timeout_cycles=timeout_cycles)
        self.memory = WishboneMemory(config, self.dut.bus, self.rng, **memory)
        self.regions = {"load": read, "store": write}
        self.model = {}
        self.done = {"load": [], "store": []}
        self.events = {"load": [0] * 4, "store": [0] * 4}
        self.busy = {"load": 0, "store": 0}
        self.fault = {}
        self.quiet = self.silenced = False

    def apply_load(self, fields):
        """Models a LOAD; its fault."""
        words, fault = good_words(self.config, fields, self.regions["load"])
        space = fields["space"]
        size = memory_word_bytes(self.config, space)
        for outside, (bank, addr) in words:
            value = self.memory.read(outside, size)
            place = (bank, addr % memory_depth(self.config, space))
            if space >= Space.WEIGHT:
                value = value if space == Space.RECORD else stored_value(self.config, space, value)
            self.model[space, place] = value
        return fault

    def expected_store(self, fields, contents):
        """Models a STORE into ``contents``; its fault."""
        words, fault = good_words(self.config, fields, self.regions["store"])
        size = self.config.lanes
        for outside, place in words:
            value = self.model.get((fields["space"], place), 0)
            for i in range(size):
                contents[outside + i] = value >> 8 * i & 0xFF
        return fault

    def engine(self, name, moves, *, pause=0.3, faulty=False):
        """A testbench that starts the instructions, and one that takes what is done."""
        engine = getattr(self.dut, name)
        opcode = Opcode.LOAD if name == "load" else Opcode.STORE
        ends = self.regions[name]
        kind = "read" if name == "load" else "write"

        async def start(ctx):
            ctx.set(getattr(self.dut, f"{kind}_base"), ends[0])
            ctx.set(getattr(self.dut, f"{kind}_end"), ends[1])
            for index, fields in enumerate(moves):
                while self.rng.random() < pause:
                    await ctx.tick()
                word = encode(opcode, fields | {"post": index % 16})
                ctx.set(engine.start.payload, {"instruction": word, "index": index + 100})
                ctx.set(engine.start.valid, 1)
                ready = fault = False
                while not ready and not fault:
                    *_, ready, fault = await ctx.tick().sample(engine.start.ready, engine.fault_valid)
                ctx.set(engine.start.valid, 0)

        async def finish(ctx):
            frozen = 0
            while len(self.done[name]) < len(moves) and frozen < 40:
                ready = self.rng.random() >= pause
                ctx.set(engine.done.ready, ready)
                finished = (engine.done.valid, engine.done.payload)
                faulted = (engine.fault_valid, engine.fault_code, engine.fault_index)
                sample = ctx.tick().sample(*finished, *faulted, engine.idle, engine.events)
                *_, valid, payload, fault, code, index, idle, events = await sample
                if valid and ready:
                    self.done[name].append((payload.index, payload.post))
                if fault:
                    assert events == 0
                    assert self.fault.setdefault(name, (code, index)) == (code, index)
                    frozen += 1
                elif idle:
                    assert events == 0
                else:
                    assert events.bit_count() == 1
                    self.events[name][events.bit_length() - 1] += 1
                    self.busy[name] += 1
            ctx.set(engine.done.ready, 0)
            await ctx.tick()
            assert ctx.get(engine.idle) == (not frozen)

        return [start, finish]

    def simulate(self, *testbenches, background=()):
        """Runs until all testbenches have ended."""
        sim = Simulator(self.dut)
        sim.add_clock(1e-6)
        for testbench in testbenches:
            sim.add_testbench(testbench)
        for testbench in (self.memory.run, *background):
            sim.add_testbench(testbench, background=True)
        sim.run()

    async def compare(self, ctx):
        """Reads every on-chip memory through its engine's port and compares it with the model."""
        dut = self.dut
        ports = {Space.ARRAY: "array_read", Space.WINDOW: "depthwise_read"}
        for space in spaces(self.config):
            for addr in range(memory_depth(self.config, space)):
                if space in ports:
                    port = getattr(dut, ports[space])
                    ctx.set(port.en, (1 << self.config.pixels) - 1)
                    for bank in range(self.config.pixels):
                        ctx.set(port.addr[bank], addr)
                    await ctx.tick()
                    for bank in range(self.config.pixels):
                        assert ctx.get(port.data[bank]) == self.model.get((space, (bank, addr)), 0), (space, bank, addr)
                else:
                    port = getattr(dut, f"{space.name.lower()}_read")
                    ctx.set(port.en, 1)
                    if space == Space.RECORD:
                        taps = self.config.depthwise_taps
                        for row in range(9 // taps):
                            ctx.set(port.addr, addr if taps == 9 else 4 * addr + row)
                            await ctx.tick()
                            for tap in range(taps):
                                place = row * taps + tap, addr
                                assert ctx.get(port.data[tap]) == self.model.get((space, place), 0), (space, place)
                        continue
                    ctx.set(port.addr, addr)
                    await ctx.tick().repeat(2 if space in READ_COPIES else 1)
                    if space == Space.THRESHOLD:
                        assert ctx.get(port.data) & 0xFFFF == self.model.get((space, (0, addr)), 0)
                    else:
                        value = port.data if space == Space.WEIGHT else port.data.as_value()
                        assert ctx.get(value) == self.model.get((space, (0, addr)), 0), (space, addr)

    def traffic(self, *, rate=0.5):
        """Background traffic of the other engines: reads anywhere, writes in the upper half of the scratchpads."""
        dut, config, rng = self.dut, self.config, self.rng
        half = config.array_depth // 2

        def draw():
            return {
                "space": rng.randint(0, 1), "bank": rng.randrange(config.pixels), "addr": rng.randrange(half, 2 * half),
                "data": rng.getrandbits(8 * config.lanes),
            }  # fmt: skip

        async def run(ctx):
            offered = None
            following = draw()
            write_en = window = 0
            ports = [dut.array_read] + ([dut.depthwise_read] if config.depthwise else [])
            while not self.quiet or offered is not None or write_en:
                for port in ports:
                    ctx.set(port.en, sum((rng.random() < rate) << bank for bank in range(config.pixels)))
                # Enables come a cycle before the words.
                drained = {}
                for bank in range(config.pixels):
                    addr, value = rng.randrange(half, 2 * half), rng.getrandbits(8 * config.lanes)
                    ctx.set(dut.array_write.addr[bank], addr)
                    ctx.set(dut.array_write.data[bank], value)
                    if write_en >> bank & 1:
                        drained[Space(window >> bank & 1), (bank, addr)] = value
                if config.depthwise:
                    stream = dut.depthwise_write
                    if offered is None and not self.quiet and rng.random() < rate:
                        offered, following = following, draw()
                    offer_word(ctx, stream, offered)
                    ctx.set(dut.depthwise_write_next_bank, following["bank"])
                    if ctx.get(stream.ready):
                        self.model[Space(offered["space"]), (offered["bank"], offered["addr"])] = offered["data"]
                        offered = None
                write_en, window = (sum((rng.random() < rate) << bank for bank in range(config.pixels)) for _ in range(2))
                write_en = 0 if self.quiet else write_en
                window = window if config.depthwise else 0
                ctx.set(dut.array_write.en, write_en)
                ctx.set(dut.array_write_space, window)
                # The drain's words land a cycle later.
                self.model.update(drained)
                await ctx.tick()
            for port in (*ports, dut.array_write):
                ctx.set(port.en, 0)
            if config.depthwise:
                offer_word(ctx, dut.depthwise_write, None)
            self.silenced = True

        return run

    async def settle(self, ctx, counts):
        """Waits until the engines have done so many instructions or faulted, then silences the traffic."""
        while not all(name in self.fault or len(self.done[name]) == count for name, count in counts.items()):
            await ctx.tick()
        self.quiet = True
        while not self.silenced:
            await ctx.tick()
