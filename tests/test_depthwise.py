# amaranth: UnusedElaboratable=no
"""The depthwise engine against loops written from its semantics: random instructions, stalls, faults, cycle counts."""

import random

import pytest
from depthwise_machine import (
    AVERAGE,
    CONV,
    MAX,
    Memories,
    expected_program,
    faultless,
    random_instruction,
    run,
    small_config,
)

from tercel.hw.depthwise.engine import DepthwiseEngine
from tercel.hw.isa import Fault
from tercel.sw.cycles import depthwise_cycles

CASES = [
    (small_config(pixels=7, lanes=2), 24),
    (small_config(pixels=3, lanes=2), 24),
    (small_config(pixels=5, lanes=4, per_channel_multiplier=True, multiplier_bits=12), 12),
    (small_config(pixels=1, lanes=2, window_depth=1024), 12),
    (small_config(pixels=2, lanes=2), 12),
    (small_config(pixels=7, lanes=8, memory_width=8), 6),
    (small_config(pixels=4, lanes=16), 4),
    (small_config(pixels=3, lanes=4, depthwise_taps=3), 24),
    (small_config(pixels=7, lanes=2, depthwise_taps=3, per_channel_multiplier=True, multiplier_bits=12), 12),
    (small_config(pixels=4, lanes=16, depthwise_taps=3), 4),
]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize(("config", "count"), CASES, ids=[f"P{c.pixels}K{c.lanes}T{c.depthwise_taps}" for c, _ in CASES])
def test_random_programs(config, count, stall):
    rng = random.Random(f"{config.pixels} {config.lanes} {stall}")
    memories = Memories(config, rng)
    program = faultless(config, memories, rng, count)
    writes, done, _, fault = run(config, memories, program, rng=rng, stall=stall, limit=60000)
    assert fault is None
    assert [word for _, word in writes] == expected_program(config, memories, program)[0]
    assert done == [(100 + index, fields["post"]) for index, fields in enumerate(program)]


@pytest.mark.parametrize("taps", [9, 3])
@pytest.mark.parametrize(("code", "weight"), [(-256, -128), (-256, 127), (255, -128), (255, 127)])
def test_largest_sums(*, taps, code, weight):
    """Every tap at an end of its range: windows all in padding, records of one weight. Nine of -256 * -128 are the most."""
    config = small_config(depthwise_taps=taps)
    rng = random.Random(1)
    memories = Memories(config, rng)
    memories.parameters = [[(0, 0, 0)] * config.lanes] * config.record_depth
    memories.records = [int.from_bytes(bytes([weight & 255] * 9 * config.lanes), "little")] * config.record_depth
    f = faultless(config, memories, rng, 1, mode=CONV, tidy=True)[0]
    f |= {"kernel_width": 4, "kernel_height": 3, "x_start": 100, "z_in": code, "multiplier": 1 << 10, "z_out": 0, "lo": -256, "hi": 255}
    for shift in (20, 24):
        program = [f | {"shift": shift}]
        writes, _, _, fault = run(config, memories, program, rng=rng)
        assert fault is None
        assert [word for _, word in writes] == expected_program(config, memories, program)[0]


@pytest.mark.parametrize("seed", range(12))
def test_range_faults(seed):
    config = small_config(pixels=3, lanes=2, window_depth=64, array_depth=64, depthwise_taps=3 if seed % 3 == 0 else 9)
    rng = random.Random(seed)
    memories = Memories(config, rng)
    program = faultless(config, memories, rng, 1)
    while True:
        fields = random_instruction(config, rng)
        if expected_program(config, memories, [fields])[1] is not None:
            break
    program += [fields, *faultless(config, memories, rng, 1)]
    expected, position = expected_program(config, memories, program)
    assert position == 1
    writes, done, _, fault = run(config, memories, program, rng=rng, stall=rng.choice((0, 0.3)))
    assert fault == (Fault.SCRATCHPAD_RANGE, 101)
    assert done == [(100, program[0]["post"])]
    # The words of the first instruction and perhaps some of the second before its fault.
    words = [word for _, word in writes]
    assert len(words) >= len(expected_program(config, memories, program[:1])[0])
    assert words == expected[: len(words)]


def layer(config, *, width, height, stride, pitch, kernel=3, mode=CONV, groups=1, rows=None):
    """A padded layer of which the input is dense, rows ``pitch`` pixels apart, and the output anywhere."""
    outputs = -(-width // stride)
    f = random_instruction(config, random.Random(1), mode=mode, tidy=True)
    f |= {"stride": stride - 1, "kernel_width": kernel - 1, "kernel_height": kernel - 1, "dilation_x": 1, "dilation_y": 1}
    f |= {"x_start": -(kernel // 2), "y_start": -(kernel // 2), "in_width": width, "in_height": height, "out_width": outputs - 1}
    f |= {"rows": (rows or -(-height // stride)) - 1, "groups": groups - 1, "in_pixel": groups, "out_pixel": groups, "post": 0}
    f |= {"in_limit": 0, "in_span": 0, "out_limit": 0, "out_span": 0, "out_bank": 0, "out_addr": 0}
    base = kernel // 2 * (pitch + 1)
    pixels = config.pixels
    for prefix, count in (("in", base + f["x_start"] * (pitch + 1)), ("in_kx", 1), ("in_ky", pitch), ("in_row", stride * pitch)):
        f[prefix + "_bank"], f[prefix + "_addr"] = count % pixels, count // pixels * groups
    f["out_row_bank"], f["out_row_addr"] = outputs % pixels, outputs // pixels * groups
    return f


@pytest.mark.parametrize(
    ("stride", "mode", "kernel", "pitch", "groups", "row_cycles"),
    [
        (1, CONV, 3, 58, 1, 57),
        (1, AVERAGE, 3, 58, 2, 57),
        (1, CONV, 2, 58, 1, 57),
        (1, CONV, 1, 58, 1, 57),
        (2, CONV, 3, 58, 2, 29),
        (2, CONV, 3, 57, 1, None),
        (1, CONV, 5, 58, 1, 56 * 8),
        (2, MAX, 3, 58, 1, 28 * 3),
    ],
)
def test_cycles(*, stride, mode, kernel, pitch, groups, row_cycles):
    """Rows of 56 inputs: cycles a row, and the whole instruction's."""
    config = small_config(pixels=7, lanes=2, window_depth=512, array_depth=512)
    rows = 4
    fields = layer(config, width=56, height=20, stride=stride, pitch=pitch, kernel=kernel, mode=mode, groups=groups, rows=rows)
    memories = Memories(config, random.Random(5))
    program = [fields, fields]
    writes, done, events, fault = run(config, memories, program, rng=random.Random(6))
    assert fault is None and len(done) == 2
    assert [word for _, word in writes] == expected_program(config, memories, program)[0]
    words = len(writes) // 2
    total = writes[words][0] - writes[0][0]
    if row_cycles is None:
        assert events["conflict"] > 0
    else:
        first = writes[words // (rows * groups)][0] - writes[0][0]
        assert first == row_cycles
        assert total <= row_cycles * rows * groups + 32
        assert events["conflict"] == events["full"] == 0


@pytest.mark.parametrize(
    ("mode", "stride", "kernel"), [(CONV, 1, 3), (CONV, 2, 3), (CONV, 1, 5), (AVERAGE, 3, 4), (MAX, 2, 2), (MAX, 1, 1)]
)
def test_cycles_of_three_taps(mode, stride, kernel):
    """Two more cycles a window, one more a maximum; to the cycle what the cycle model says."""
    config = small_config(pixels=7, lanes=2, window_depth=512, array_depth=512, depthwise_taps=3)
    fields = layer(config, width=56, height=20, stride=stride, pitch=58, kernel=kernel, mode=mode, rows=2)
    memories = Memories(config, random.Random(5))
    writes, _, events, _ = run(config, memories, [fields], rng=random.Random(6))
    assert [word for _, word in writes] == expected_program(config, memories, [fields])[0]
    predicted = dict(depthwise_cycles(fields, config).events)
    assert events == {**predicted, "full": 0}
    assert events["taps"] == (2 * (events["emit"] - 1) if mode != MAX else len(writes) - 1)


def test_small_rows_without_gaps():
    """Rows of 7, the shortest of the networks in mind: one cycle a row more than outputs."""
    config = small_config(pixels=7, lanes=2)
    fields = layer(config, width=7, height=7, stride=1, pitch=9, groups=3)
    memories = Memories(config, random.Random(5))
    writes, _, _, _ = run(config, memories, [fields], rng=random.Random(6))
    assert [word for _, word in writes] == expected_program(config, memories, [fields])[0]
    assert writes[-1][0] - writes[0][0] <= 8 * 7 * 3


def test_refuses_a_config_without_the_engine():
    with pytest.raises(ValueError, match=r"^config\.depthwise must be true, not false"):
        DepthwiseEngine(small_config(depthwise=False, window_depth=0, record_depth=0))
