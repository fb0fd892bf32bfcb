"""The cycle model: instruction classes against a cycle-by-cycle walk of the same rules, programs, and the account of lane-cycles."""

from dataclasses import replace
from itertools import pairwise
from math import gcd

import numpy as np
import pytest

from tercel.hw.config import BASE, LARGE, SMALL, Config
from tercel.hw.isa import Engine, Opcode
from tercel.sim.lane_cycles import account
from tercel.sim.trace import trace_events
from tercel.sw import cycles
from tercel.sw.cycles import array_cycles, depthwise_cycles, fetch_beats, transfer_beats
from tercel.sw.emitter import TokenError
from tercel.sw.estimate import estimate
from tercel.sw.layer import LayerSpec, build_layer
from tercel.sw.layer_tensors import random_tensors
from tercel.sw.program import Program, make_words
from tercel.sw.random_program import random_program


def layer_program(spec: LayerSpec, config) -> Program:
    spec, tensors = random_tensors(spec, config, seed=0)
    return build_layer(spec, tensors, config)


def walk_array(values: dict[str, int], config) -> dict[str, int]:
    """The feeder's rules one cycle at a time: what each cycle of an instruction is spent on."""
    steps = (values["digits"] + 1) * (values["kernel_height"] + 1) * (values["kernel_width"] + 1) * (values["groups"] + 1)
    conflict = gcd(values["stride"] + 1, config.pixels)
    residual = config.words_per_tile if values["residual"] else 0
    interval = config.drain_groups if values["narrow"] else config.outputs * max(1, values["thresholds"])
    spent = dict.fromkeys(("step", "conflict", "residual", "drain", "start"), 0)
    time = row_cycles = 0
    last = None
    for row in range(values["rows"] + 1):
        setup = cycles.ARRAY_START if row == 0 else cycles.ARRAY_ROW_START + max(0, cycles.ARRAY_ROW_CYCLES + (residual > 0) - row_cycles)
        spent["start"] += setup
        time += setup
        row_begin = time
        for _ in range((values["tiles"] + 1) * (values["output_groups"] + 1)):
            time += steps * conflict + residual
            spent["step"] += steps
            spent["conflict"] += steps * (conflict - 1)
            spent["residual"] += residual
            while last is not None and time - last < interval:
                time += 1
                spent["drain"] += 1
            last = time
        row_cycles = time - row_begin
    return spent


def test_array_instructions():
    random = np.random.default_rng(1)
    for _ in range(200):
        config = (SMALL, BASE, LARGE, replace(BASE, pixels=4))[random.integers(4)]
        names = ("digits", "kernel_height", "kernel_width", "groups", "stride", "tiles", "output_groups", "rows")
        limits = (4, 3, 3, 4, 4, 3, 3, 4)
        values = {name: int(random.integers(limit)) for name, limit in zip(names, limits, strict=True)}
        values |= {"narrow": int(random.integers(2)), "residual": 0, "thresholds": 0}
        if not values["narrow"]:
            values |= {"residual": int(random.integers(2)), "thresholds": int(random.integers(4))}
        expected = walk_array(values, config)
        found = array_cycles(values, config)
        assert sum(found.events.values()) == sum(expected.values()), values
        assert found.events == expected, values


def test_depthwise_instructions():
    def events(spec: LayerSpec, config: Config = BASE) -> dict[str, int]:
        program = layer_program(spec, config)
        (values,) = (values for opcode, values in program.instructions() if opcode is Opcode.DEPTHWISE)
        found = dict(depthwise_cycles(values, config).events)
        if config is BASE:
            assert found.pop("taps") == 0
        return found

    walk = cycles.DEPTHWISE_WALK_START
    slide = LayerSpec(kind="depthwise", input=(9, 12, 16), kernel=(3, 3), padding=(1, 1, 1, 1))
    assert events(slide) == {"emit": 2 * 9 * 12, "fill": 2 * 9, "conflict": 0, "start": walk + 2 * 3}
    assert events(replace(slide, stride=2)) == {"emit": 2 * 5 * 6, "fill": 2 * 5, "conflict": 0, "start": walk + 2 * 3}
    gathered = replace(slide, stride=3, kernel=(5, 4), padding=(2, 1, 2, 2))
    assert events(gathered) == {"emit": 2 * 3 * 4 * 4, "fill": 2 * 3 * 4 * 4, "conflict": 0, "start": walk + 2 * 5}
    largest = LayerSpec(kind="max_pool", input=(8, 8, 8), kernel=(2, 2), stride=2)
    assert events(largest) == {"emit": 4 * 4 * 2, "fill": 0, "conflict": 0, "start": walk + 2 * 2}
    matrix = LayerSpec(kind="linear", input=(1, 1, 40), out=24)
    assert events(matrix) == {"emit": 3 * 5, "fill": 2 * 3 * 5, "conflict": 0, "start": cycles.DEPTHWISE_START}

    by_rows, start = replace(BASE, depthwise_taps=3), cycles.DEPTHWISE_START + cycles.DEPTHWISE_ROWS_START
    emit = 2 * 9 * 12
    assert events(slide, by_rows) == {"emit": emit, "fill": 2 * 9, "conflict": 0, "taps": 2 * (emit - 1), "start": start + 3}
    assert events(largest, by_rows) == {"emit": 4 * 4 * 2, "fill": 0, "conflict": 0, "taps": 4 * 4 - 1, "start": start + 1}
    assert events(matrix, by_rows) == {"emit": 15, "fill": 30, "conflict": 0, "taps": 2 * 14, "start": start}


def test_depthwise_conflicts():
    program = layer_program(LayerSpec(kind="depthwise", input=(9, 14, 8), kernel=(3, 3)), BASE)
    (values,) = (values for opcode, values in program.instructions() if opcode is Opcode.DEPTHWISE)
    crowded = depthwise_cycles(values | {"in_ky_bank": 0}, BASE).events
    assert crowded["conflict"] == 7 * (1 + 12) * 2, "all three rows in one bank: two more cycles an operation"


def test_transfers():
    program = layer_program(LayerSpec(kind="conv", input=(6, 5, 12), out=9, kernel=(2, 2), weight_bits=4), BASE)
    beats = {}
    for opcode, values in program.instructions():
        if opcode in (Opcode.LOAD, Opcode.STORE):
            beats[opcode, values["space"]] = transfer_beats(values, BASE)
    assert beats == {
        (Opcode.LOAD, 0): 6 * 5 * 2,
        (Opcode.LOAD, 2): 2 * 2 * 4 * 2 * (64 // 4 // 8),
        (Opcode.LOAD, 3): 2 * 2 * 4 * 8 // 8,
        (Opcode.STORE, 0): 5 * 4 * 2,
    }
    assert fetch_beats(SMALL) == 40


@pytest.mark.parametrize("config", [SMALL, BASE], ids=lambda config: config.name)
def test_estimates_follow_the_memory(config):
    program = layer_program(LayerSpec(kind="conv", input=(28, 28, 24), out=40, z_out=128), config)
    fast, slow = estimate(program), estimate(program, memory_rate=0.25)
    assert fast.cycles < slow.cycles
    assert fast.cycles < estimate(program, memory_latency=100).cycles
    assert [span.index for span in fast.spans] == list(range(len(program.words) - 1))
    for engine in Engine:
        spans = [span for span in fast.spans if span.engine is engine]
        for before, after in pairwise(spans):
            assert before.free <= after.start and before.landed <= after.landed
    assert all(span.start < span.free <= span.landed for span in fast.spans)
    beats = sum(count for name, count in fast.events.items() if name.endswith(".beat"))
    assert fast.cycles > max(beats + len(program.words) * fetch_beats(config), fast.events["array.step"])


def test_estimates_of_random_programs_end():
    for seed in range(40):
        program = random_program(SMALL, seed=seed).program
        assert 0 < estimate(program).cycles <= 12000
        events = trace_events(program, estimate(program))["traceEvents"]
        assert len(events) == len(Engine) + len(program.words) - 1


def test_a_program_that_stops_has_no_estimate():
    program = layer_program(LayerSpec(kind="conv", input=(4, 4, 8), out=8), SMALL)
    instructions = [(opcode, values | {"post": 0}) for opcode, values in program.instructions()]
    with pytest.raises(TokenError, match=r"^instruction 3 waits for good \(check_tokens says why\)$"):
        estimate(replace(program, words=make_words(instructions)))


def test_lane_cycles_add_up():
    events = {"array.step": 50, "array.drain": 20, "array.idle": 25, "load.beat": 99}
    found = account("array", lanes=448, cycles=100, useful=20000, events=events)
    assert dict(found.lost) == {"array.padding": 50 * 448 - 20000, "array.drain": 20 * 448, "array.idle": 25 * 448, "array.other": 5 * 448}
    assert found.useful + sum(found.lost.values()) == found.total == 44800
    assert found.utilization == pytest.approx(20000 / 44800)
