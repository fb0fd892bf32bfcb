# amaranth: UnusedElaboratable=no
"""The requantizer against big-integer arithmetic, every kind, with a new operand in every cycle."""

import random

import pytest
from amaranth.sim import Simulator

from tercel.hw.config import Config
from tercel.hw.requantize import Requantizer, ScaledRequantizer


def wrapped(value, bits):
    """``value`` modulo 2**bits as a signed number."""
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def scaled(*, acc, bias, asum, gain, bits, multiplier, e, residual=0, z_out):
    """The scaled value p of the contract."""
    v = wrapped((acc << gain) + bias + asum, bits)
    q = (v * multiplier + residual + (1 << e - 1)) // (1 << e)
    return min(max(q + z_out, -32768), 32767)


def some_signed(rng, bits):
    """A signed number of a random magnitude, the extremes often."""
    kind = rng.random()
    if kind < 0.1:
        return rng.choice([-(1 << bits - 1), (1 << bits - 1) - 1, 0, -1, 1])
    width = rng.randint(1, bits)
    return rng.randint(-(1 << width - 1), (1 << width - 1) - 1)


def operands(rng, *, bits, multiplier_bits, gain, multiplier):
    """One item whose result is mostly not saturated."""
    acc, bias, asum = (some_signed(rng, bits) for _ in range(3))
    v = wrapped((acc << gain) + bias + asum, bits)
    if multiplier is None:
        multiplier = rng.choice([0, 1, (1 << multiplier_bits) - 1, rng.randrange(1 << multiplier_bits)])
    size = (abs(v) * multiplier).bit_length()
    e = rng.randint(1, 63) if rng.random() < 0.3 else min(max(size - rng.randint(-2, 17), 1), 63)
    return {"acc": acc, "bias": bias, "asum": asum, "multiplier": multiplier, "e": e}


def statics(rng):
    """Clamp and zero point of an instruction."""
    low, high = sorted((some_signed(rng, 9), some_signed(rng, 9)))
    return {"z_out": some_signed(rng, 9), "lo": low, "hi": high}


def streamed(dut, fixed, items):
    """The results of ``items``, one presented per cycle, with ``fixed`` held."""
    results = []

    async def testbench(ctx):
        for name, value in fixed.items():
            ctx.set(getattr(dut, name), value)
        for cycle in range(len(items) + dut.latency):
            for name, value in items[cycle].items() if cycle < len(items) else ():
                ctx.set(getattr(dut, name), value)
            if cycle >= dut.latency:
                results.append(ctx.get(dut.y))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return results


@pytest.mark.parametrize("gain", [0, 1])
@pytest.mark.parametrize("multiplier_bits", [8, 16])
@pytest.mark.parametrize(("sum_bits", "narrow"), [(18, 0), (32, 0), (32, 1)])
def test_clamp(sum_bits, narrow, multiplier_bits, gain):
    """Sums of both widths, multiplier per channel."""
    rng = random.Random(f"{sum_bits} {narrow} {multiplier_bits} {gain}")
    config = Config(per_channel_multiplier=True, multiplier_bits=multiplier_bits)
    for _ in range(3):
        dut = Requantizer(config, sum_bits=sum_bits, residual=False, thresholds=False)
        fixed = statics(rng) | {"gain": gain} | ({"narrow": narrow} if sum_bits == 32 else {})
        bits = 18 if narrow else sum_bits
        items = [operands(rng, bits=bits, multiplier_bits=multiplier_bits, gain=gain, multiplier=None) for _ in range(600)]
        expected = [min(max(scaled(**item, gain=gain, bits=bits, z_out=fixed["z_out"]), fixed["lo"]), fixed["hi"]) & 0xFF for item in items]
        assert streamed(dut, fixed, items) == expected


@pytest.mark.parametrize("e", [1, 2, 17, 30, 31, 32, 33, 34, 35, 47, 48, 49, 50, 63])
@pytest.mark.parametrize("sum_bits", [18, 32])
def test_every_shift_of_extreme_products(sum_bits, e):
    """Shifts around the widths of the product, values of every size, one multiplier for the instruction."""
    fixed = {"z_out": 0, "lo": -256, "hi": 255, "gain": 0, "multiplier": 65535}
    values = [sign * ((1 << bit) + low) for bit in range(sum_bits - 1) for sign in (1, -1) for low in (-1, 0, 1)]
    values = [value for value in values if -(1 << sum_bits - 1) <= value < 1 << sum_bits - 1]
    items = [{"acc": value, "bias": 0, "asum": 0, "e": e} for value in values]
    expected = [min(max(scaled(**item, gain=0, bits=sum_bits, multiplier=65535, z_out=0), -256), 255) & 0xFF for item in items]
    assert streamed(Requantizer(Config(), sum_bits=sum_bits, residual=False, thresholds=False), fixed, items) == expected


def residual_operands(rng, item):
    """A residual about as large as the product, or of any size."""
    factor = rng.randrange(1 << 16)
    near = max(item["e"] - 16 + rng.randint(-3, 3), 0)
    amount = min(rng.randint(0, 31) if rng.random() < 0.4 else near, 31)
    return {"r": rng.randint(-128, 255), "factor": factor << amount, "residual_enable": rng.random() < 0.8}


@pytest.mark.parametrize("multiplier_bits", [8, 16])
@pytest.mark.parametrize("thresholds", [False, True])
def test_residual(thresholds, multiplier_bits):
    """Residual and product under one rounding; the comparator of the thresholds clamps as well."""
    rng = random.Random(f"{thresholds} {multiplier_bits}")
    config = Config(multiplier_bits=multiplier_bits)
    for _ in range(3):
        dut = Requantizer(config, sum_bits=32, residual=True, thresholds=thresholds)
        multiplier = rng.randrange(1 << multiplier_bits)
        fixed = statics(rng) | {"multiplier": multiplier, "z_res": some_signed(rng, 9)}
        items = [operands(rng, bits=32, multiplier_bits=multiplier_bits, gain=0, multiplier=multiplier) for _ in range(600)]
        items = [item | residual_operands(rng, item) for item in items]
        expected = []
        for item in items:
            residual = (item["r"] - fixed["z_res"]) * item["factor"] if item["residual_enable"] else 0
            numbers = {name: item[name] for name in ("acc", "bias", "asum", "multiplier", "e")}
            p = scaled(**numbers, residual=residual, gain=0, bits=32, z_out=fixed["z_out"])
            expected.append(min(max(p, fixed["lo"]), fixed["hi"]) & 0xFF)
        if thresholds:
            fixed["threshold"] = fixed["hi"]
        assert streamed(dut, fixed, items) == expected


@pytest.mark.parametrize("residual", [False, True])
def test_thresholds(residual):
    """Counts over several slots, with thresholds equal to p, one off and at the ends of their range."""
    rng = random.Random(f"{residual}")
    dut = Requantizer(Config(), sum_bits=32, residual=residual, thresholds=True)
    multiplier = 40000
    fixed = statics(rng) | {"multiplier": multiplier, "count_enable": 1}
    slots, expected = [], []
    for _ in range(150):
        item = operands(rng, bits=32, multiplier_bits=16, gain=0, multiplier=multiplier)
        p = scaled(**item, gain=0, bits=32, z_out=fixed["z_out"])
        number = rng.randint(1, 15)
        table = [rng.choice([p - 1, p, p + 1, some_signed(rng, 16), 32767, -32768]) for _ in range(number)]
        table = [min(max(value, -32768), 32767) for value in table]
        for index, threshold in enumerate(table):
            slots.append(item | {"threshold": threshold, "count_first": index == 0})
            expected.append(sum(p > value for value in table) if index == number - 1 else None)
    results = streamed(dut, fixed, slots)
    assert [result for result, value in zip(results, expected, strict=True) if value is not None] == [
        value for value in expected if value is not None
    ]


def test_limits():
    """What does not exist is refused."""
    with pytest.raises(ValueError, match=r"^sum_bits must be 18 or 32, not 24 \(a DSP multiplies 18 bits\)$"):
        ScaledRequantizer(Config(), sum_bits=24, residual=False, thresholds=False)
    with pytest.raises(ValueError, match=r"^sum_bits must be 32, not 18, with residual or thresholds"):
        ScaledRequantizer(Config(), sum_bits=18, residual=True, thresholds=False)
