# amaranth: UnusedElaboratable=no
"""A plain-Python model of the depthwise engine, its memories, random instructions, and a bench around the gateware."""



import pytest
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator
from golden_bench import total_shift

from tercel.hw.config import Config, exponents
from tercel.hw.depthwise.engine import DepthwiseEngine
from tercel.hw.isa import Mode, Opcode, encode

CONV, MAX, MATRIX_VECTOR, AVERAGE = Mode.CONV, Mode.MAX, Mode.MATRIX_VECTOR, Mode.AVERAGE


def small_config(*, pixels=7, lanes=2, **changes):
    values = {
        "pixels": pixels,
        "lanes": lanes,
        "outputs": lanes,
        "drain_lanes": 1,
        "array_depth": 256,
        "window_depth": 128,
        "weight_depth": 64,
        "parameter_depth": 16,
        "record_depth": 32,
        "threshold_depth": 0,
        "memory_width": 1,
    }
    return Config(**(values | changes))


class RangeError(Exception):
    """The model met an access past a scratchpad."""


def signed(value, bits):
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


class Memories:
    """Random contents of the window scratchpad, the records and the parameters."""

    def __init__(self, config, rng):
        self.config = config
        k = config.lanes
        self.window = [[rng.getrandbits(8 * k) for _ in range(config.window_depth)] for _ in range(config.pixels)]
        self.records = [rng.getrandbits(72 * k) for _ in range(config.record_depth)]
        self.parameters = [
            [(rng.randint(-3000, 3000), rng.randrange(16), rng.randrange(1 << config.multiplier_bits)) for _ in range(k)]
            for _ in range(config.record_depth)
        ]

    def weight(self, record, tap, lane):
        return signed(self.records[record % self.config.record_depth] >> 8 * (self.config.lanes * tap + lane), 8)

    def record_words(self):
        """As the engine reads them: whole, or in three rows and a gap."""
        if self.config.depthwise_taps == 9:
            return self.records
        size = 24 * self.config.lanes
        return [record >> size * row & (1 << size) - 1 if row < 3 else 0 for record in self.records for row in range(4)]

    def parameter_bits(self):
        words = []
        for word in self.parameters:
            bits = position = 0
            for bias, shift, multiplier in word:
                entry = (bias & 0xFFFFFFFF) | shift << 32
                size = 36
                if self.config.per_channel_multiplier:
                    entry |= multiplier << 36
                    size += self.config.multiplier_bits
                bits |= entry << position
                position += size
            words.append(bits)
        return words


def expected_writes(config, memories, f):
    """(space, bank, addr, word) in order; ends with None in place of a word where an access is out of range."""
    pixels, lanes = config.pixels, config.lanes
    mode = f["mode"]

    def add(pointer, delta, pixel):
        bank = pointer[0] + delta[0]
        return bank % pixels, (pointer[1] + delta[1] + bank // pixels * pixel) % 16384

    def move(pointer, count, pixel):
        return add(pointer, (count, 0), pixel)

    def wrap(pointer, prefix):
        bank, addr = pointer
        if f[prefix + "_limit"] and addr >= f[prefix + "_limit"]:
            addr = (addr - f[prefix + "_span"]) % 16384
        return bank, addr

    def pointer(prefix):
        return f[prefix + "_bank"], f[prefix + "_addr"]

    def read(place, lane):
        if place[1] >= config.window_depth:
            raise RangeError
        code = memories.window[place[0]][place[1]] >> 8 * lane & 255
        return signed(code, 8) if f["in_signed"] else code

    def requantize(acc, bias, multiplier, shift):
        v = signed(acc + bias, 32)
        q = (v * multiplier + (1 << shift >> 1)) >> shift
        return clamp(min(max(q + f["z_out"], -32768), 32767))

    def clamp(p):
        return min(max(p, f["lo"]), f["hi"]) & 255

    def parameter(index, lane):
        bias, shift, multiplier = memories.parameters[index % config.record_depth][lane]
        multiplier = multiplier if config.per_channel_multiplier else f["multiplier"]
        return bias, multiplier, total_shift(f["shift"] + shift, multiplier_bits=config.multiplier_bits)

    out_depth = config.window_depth if f["out_space"] else config.array_depth

    def place(word_pointer, codes):
        if word_pointer[1] >= out_depth:
            raise RangeError
        return f["out_space"], *word_pointer, sum(code << 8 * lane for lane, code in enumerate(codes))

    stride, kw, kh = f["stride"] + 1, f["kernel_width"] + 1, f["kernel_height"] + 1
    if mode == MATRIX_VECTOR:
        halves = max(1, lanes // 8)
        for group in range(f["groups"] + 1):
            acc = [0] * lanes
            for step in range(f["steps"] + 1):
                source = f["in_bank"], (f["in_addr"] + step) % 16384
                for half in range(halves):
                    record = f["record_addr"] + (group * (f["steps"] + 1) + step) * halves + half
                    for tap in range(min(lanes, 8)):
                        a = read(source, 8 * half + tap)
                        for lane in range(lanes):
                            acc[lane] += memories.weight(record, tap, lane) * a
            codes = [requantize(acc[lane], *parameter(f["parameter_addr"] + group, lane)) for lane in range(lanes)]
            yield place((f["out_bank"], (f["out_addr"] + group) % 16384), codes)
        return

    blocks_x = (kw + 2) // 3
    passes = blocks_x * ((kh + 2) // 3)
    for group in range(f["groups"] + 1):
        row_in, row_out = pointer("in"), pointer("out")
        for row in range(f["rows"] + 1):
            lines = [row_in]
            for _ in range(kh - 1):
                lines.append(wrap(add(lines[-1], pointer("in_ky"), f["in_pixel"]), "in"))
            for x in range(f["out_width"] + 1):
                acc, largest = [0] * lanes, [None] * lanes
                for ky in range(kh):
                    y_in = f["y_start"] + row * stride + ky * f["dilation_y"]
                    for kx in range(kw):
                        x_in = f["x_start"] + x * stride + kx * f["dilation_x"]
                        inside = 0 <= y_in < f["in_height"] and 0 <= x_in < f["in_width"]
                        source = move(lines[ky], x * stride, f["in_pixel"])
                        for _ in range(kx):
                            source = add(source, pointer("in_kx"), f["in_pixel"])
                        source = source[0], (source[1] + group) % 16384
                        record = f["record_addr"] + group * passes + ky // 3 * blocks_x + kx // 3
                        for lane in range(lanes):
                            a = read(source, lane) if inside else f["z_in"]
                            w = 1 if mode == AVERAGE else memories.weight(record, ky % 3 * 3 + kx % 3, lane)
                            acc[lane] += w * a
                            if inside and (largest[lane] is None or a > largest[lane]):
                                largest[lane] = a
                if mode == MAX:
                    codes = [clamp(f["z_in"] if value is None else value) for value in largest]
                else:
                    word = f["parameter_addr"] + (0 if mode == AVERAGE else group)
                    codes = [requantize(acc[lane], *parameter(word, lane)) for lane in range(lanes)]
                bank, addr = move(row_out, x, f["out_pixel"])
                yield place((bank, (addr + group) % 16384), codes)
            row_in = wrap(add(row_in, pointer("in_row"), f["in_pixel"]), "in")
            row_out = wrap(add(row_out, pointer("out_row"), f["out_pixel"]), "out")


def run(config, memories, program, *, rng, stall=0.0, limit=20000):
    """Writes (with their cycle), done instructions, event counts and the fault of a program of field dictionaries."""
    m = Module()
    m.submodules.engine = engine = DepthwiseEngine(config)
    for bank in range(config.pixels):
        m.submodules[f"bank_{bank}"] = memory = Memory(shape=8 * config.lanes, depth=config.window_depth, init=memories.window[bank])
        port = memory.read_port()
        late = Signal()
        m.d.sync += late.eq(engine.read.en[bank])
        m.d.comb += [
            port.en.eq(engine.read.en[bank]),
            port.addr.eq(engine.read.addr[bank]),
            engine.read.data[bank].eq(Mux(late, port.data, 0x5A)),
        ]
    for name, user, init in (("records", engine.record, memories.record_words()), ("words", engine.parameter, memories.parameter_bits())):
        shape = user.data.shape() if name == "records" else user.data.as_value().shape()
        m.submodules[name] = memory = Memory(shape=shape, depth=len(init), init=init)
        port = memory.read_port()
        # Parameters come a cycle later than records.
        domain = m.d.comb if name == "records" else m.d.sync
        domain += [port.en.eq(user.en), port.addr.eq(user.addr)]
        target = user.data if name == "records" else user.data.as_value()
        m.d.comb += target.eq(port.data)

    writes, done, events, outcome = [], [], [0] * len(engine.EVENTS), {}

    async def start(ctx):
        for index, fields in enumerate(program):
            while rng.random() < stall:
                await ctx.tick()
            ctx.set(engine.start.payload.instruction, encode(Opcode.DEPTHWISE, fields))
            ctx.set(engine.start.payload.index, 100 + index)
            ctx.set(engine.start.valid, 1)
            ready = False
            while not ready:
                if "fault" in outcome:
                    return
                ready = ctx.get(engine.start.ready)
                await ctx.tick()
            ctx.set(engine.start.valid, 0)

    async def sink(ctx):
        held = None
        for cycle in range(limit):
            ctx.set(engine.write.ready, rng.random() >= stall)
            ctx.set(engine.done.ready, rng.random() >= stall)
            payload = engine.write.payload
            transfer = ctx.get(engine.write.valid) and ctx.get(engine.write.ready)
            word = tuple(ctx.get(field) for field in (payload.spaces[1], payload.bank, payload.addr, payload.data))
            assert held is None or (ctx.get(engine.write.valid) and held == word)
            held = word if ctx.get(engine.write.valid) and not transfer else None
            if transfer:
                writes.append((cycle, word))
            for number, event in enumerate(f"{ctx.get(engine.events):05b}"[::-1]):
                events[number] += int(event)
            if ctx.get(engine.idle):
                assert ctx.get(engine.events) == 0
            else:
                assert ctx.get(engine.events).bit_count() == 1
            if ctx.get(engine.done.valid) and ctx.get(engine.done.ready):
                done.append((ctx.get(engine.done.payload.index), ctx.get(engine.done.payload.post)))
            if ctx.get(engine.fault_valid) and "fault" not in outcome:
                outcome["fault"] = (ctx.get(engine.fault_code), ctx.get(engine.fault_index))
                outcome["until"] = cycle + 100
            if len(done) == len(program):
                await ctx.tick()
                assert ctx.get(engine.idle)
                assert not ctx.get(engine.write.valid)
                break
            if cycle >= outcome.get("until", limit):
                break
            await ctx.tick()
        else:
            pytest.fail(f"no end after {limit} cycles")

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(start, background=True)
    simulator.add_testbench(sink)
    simulator.run()
    return writes, done, dict(zip(engine.EVENTS, events, strict=True)), outcome.get("fault")


def random_instruction(config, rng, *, mode=None, tidy=None):
    """Fields of an instruction with few outputs. ``tidy``: a dense image whose accesses are in range; else anything goes."""
    pixels = config.pixels
    mode = rng.choice(list(Mode)) if mode is None else mode
    tidy = rng.random() < 0.6 if tidy is None else tidy
    groups, kw, kh = rng.randint(1, 3), rng.randint(1, 7), rng.randint(1, 7)
    if rng.random() < 0.6:
        kw, kh = rng.randint(1, 3), rng.randint(1, 3)
    stride = rng.choice((1, 1, 1, 2, 2, 3, 4))
    dilation_x, dilation_y = (1, 1) if rng.random() < 0.7 else (rng.randint(1, 15), rng.randint(1, 3))
    out_width, rows = rng.randint(1, 12), rng.randint(1, 4)
    lo = rng.randint(-256, 255) if rng.random() < 0.5 else -128
    f = {
        "mode": int(mode),
        "post": rng.getrandbits(4),
        "stride": stride - 1,
        "dilation_x": dilation_x,
        "dilation_y": dilation_y,
        "kernel_width": kw - 1,
        "kernel_height": kh - 1,
        "x_start": -rng.randint(0, kw),
        "y_start": -rng.randint(0, kh),
        "in_width": rng.randint(1, 14),
        "in_height": rng.randint(1, 8),
        "out_width": out_width - 1,
        "rows": rows - 1,
        "z_in": rng.choice((0, rng.randint(-128, 255), rng.randint(-256, 255))),
        "in_signed": rng.getrandbits(1),
        "groups": groups - 1,
        "steps": rng.randint(0, 6),
        "record_addr": rng.randrange(config.record_depth),
        "parameter_addr": rng.randrange(config.record_depth),
        "multiplier": rng.randrange(1 << config.multiplier_bits),
        "shift": rng.randint(config.multiplier_bits - 4, 26) if rng.random() < 0.9 else rng.choice(exponents(config.multiplier_bits)[1:]),
        "z_out": rng.randint(-256, 255),
        "lo": lo,
        "hi": rng.randint(lo, 255) if rng.random() < 0.5 else 255,
        "out_space": rng.getrandbits(1),
    }

    def pointer(prefix, count, pixel):
        f[prefix + "_bank"], f[prefix + "_addr"] = count % pixels, count // pixels * pixel % 16384

    if tidy:
        # A row is `pitch` pixels long; the tensor's pixel 0 lies at pixel `base` of the scratchpad.
        f["in_pixel"] = f["out_pixel"] = groups
        pitch = rng.choice((-(-f["in_width"] // pixels) * pixels + 2, rng.randint(1, 20)))
        base = rng.randint(0, 8)
        pointer("in", base + f["x_start"] + f["y_start"] * pitch, groups)
        pointer("in_kx", dilation_x, groups)
        pointer("in_ky", dilation_y * pitch, groups)
        pointer("in_row", stride * pitch, groups)
        if rng.random() < 0.4:
            # A circular buffer: the rows' addresses stay below the limit.
            f["in_limit"] = rng.randint(2, 100)
            f["in_span"] = rng.randint(1, f["in_limit"])
        pointer("out", rng.randint(0, 20), groups)
        pointer("out_row", out_width, groups)
        if rng.random() < 0.3:
            f["out_limit"] = rng.randint(2, 60)
            f["out_span"] = rng.randint(1, f["out_limit"])
    else:
        for prefix in ("in", "in_kx", "in_ky", "in_row", "out", "out_row"):
            f[prefix + "_bank"] = rng.randrange(pixels)
            f[prefix + "_addr"] = rng.choice((0, rng.randrange(8), 16383 - rng.randrange(8)))
        for prefix in ("in", "out"):
            f[prefix + "_pixel"] = rng.choice((0, 1, 3, rng.randrange(16384)))
            f[prefix + "_addr"] = rng.randrange(20, 60)
            f[prefix + "_limit"], f[prefix + "_span"] = rng.choice(((0, 0), (rng.randrange(16384), rng.randrange(16384))))
    for prefix in ("in", "out"):
        f.setdefault(prefix + "_limit", 0)
        f.setdefault(prefix + "_span", 0)
    return f


def expected_program(config, memories, program):
    """Writes, and the position of the instruction that faults or None."""
    writes = []
    for index, fields in enumerate(program):
        try:
            for word in expected_writes(config, memories, fields):
                writes.append(word)
        except RangeError:
            return writes, index
    return writes, None


def faultless(config, memories, rng, count, **choices):
    program = []
    while len(program) < count:
        fields = random_instruction(config, rng, **choices)
        if expected_program(config, memories, [fields])[1] is None:
            program.append(fields)
    return program


