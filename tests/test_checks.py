"""The static checks in gateware against those of the golden model."""

import random

import pytest
from amaranth.sim import Simulator

from tercel.hw.config import BASE, SMALL, TINY, Config
from tercel.hw.control.checks import Checks
from tercel.hw.isa import FIELDS, INSTRUCTION_BITS, RESERVED_LOW, Engine, Fault, Opcode, decode, encode
from tercel.sim.golden.checks import check_fields, check_opcode

WIDE = Config(
    name="wide",
    pixels=16,
    lanes=16,
    outputs=16,
    drain_lanes=16,
    multiplier_bits=8,
    weight_depth=65536,
    threshold_depth=0,
    memory_width=1,
)
TERNARY = Config(name="ternary", pixels=1, lanes=2, outputs=4, drain_lanes=1, digit_set="ternary", memory_width=2)


def reference(word: int, config: Config) -> Fault:
    """The golden model's verdict."""
    fault = check_opcode(word, config)
    return check_fields(*decode(word), config) if fault is Fault.NONE else fault


def random_instruction(rng: random.Random, config: Config) -> int:
    """Legal in most fields; up to two of them are anything, or a value near a limit."""
    opcode = rng.choice(list(Opcode))
    limits = [config.pixels, config.lanes, config.memory_width, config.max_digits, 1 << config.multiplier_bits, 49, 1, 8]
    limits += [config.weight_depth, config.parameter_depth, config.record_depth, config.threshold_depth]
    values = {}
    for field in FIELDS[opcode][1:]:
        bits = field.shape.width
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if field.shape.signed else (0, (1 << bits) - 1)
        if field.name in ("wait", "post"):
            own = {Opcode.HALT: 15, Opcode.SYNC: 0}.get(opcode, 1 << Engine[opcode.name] if opcode.name in Engine.__members__ else 0)
            values[field.name] = rng.randrange(16) & ~own
        elif field.name in ("dilation_x", "dilation_y", "shift"):
            values[field.name] = rng.randint(1, 15)
        elif field.shape.signed or (field.name.endswith(("_limit", "_span", "_pixel")) and rng.random() < 0.5):
            values[field.name] = rng.randint(low, high)
    for _ in range(rng.choice([0, 0, 1, 2])):
        field = rng.choice(FIELDS[opcode][1:])
        bits = field.shape.width
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if field.shape.signed else (0, (1 << bits) - 1)
        near = rng.choice(limits) + rng.choice([-1, 0, 1])
        values[field.name] = rng.choice([rng.randint(low, high), min(max(near, low), high)])
    word = encode(opcode, values)
    if rng.random() < 0.1:
        word |= 1 << rng.choice([RESERVED_LOW[opcode], rng.randrange(RESERVED_LOW[opcode], INSTRUCTION_BITS), INSTRUCTION_BITS - 1])
    if rng.random() < 0.05:
        word = word & ~15 | rng.randrange(16)
    return word


def nonzero_beats(word: int, beat_bits: int) -> int:
    """A bit for each beat, set if one of the beat's is."""
    return sum((word >> low & (1 << beat_bits) - 1 != 0) << low // beat_bits for low in range(0, INSTRUCTION_BITS, beat_bits))


@pytest.mark.parametrize("config", [TINY, SMALL, BASE, WIDE, TERNARY], ids=lambda config: config.name)
def test_verdict(config: Config) -> None:
    """Every cycle an instruction; the verdict comes two cycles later."""
    rng = random.Random(config.name)
    words = [random_instruction(rng, config) for _ in range(1500)]
    verdicts = []
    dut = Checks(config)

    async def testbench(ctx) -> None:
        for word in [*words, 0, 0]:
            ctx.set(dut.instruction, word & (1 << len(dut.instruction)) - 1)
            ctx.set(dut.nonzero, nonzero_beats(word, 8 * config.memory_width))
            verdicts.append(ctx.get(dut.code))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    expected = [reference(word, config) for word in words]
    assert {Fault.NONE, Fault.ILLEGAL_FIELD, Fault.ILLEGAL_OPCODE} == set(expected)
    for word, verdict, want in zip(words, verdicts[2:], expected, strict=True):
        assert verdict == want, f"{want.name} expected for {word:#x}"
