"""Single layers: the golden model running their programs gives what the tensors say, and what cannot run is a clear error."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tercel.hw.config import BASE, LARGE, SMALL, TINY, Config
from tercel.hw.isa import Fault, Opcode, Space
from tercel.sim.golden import run_golden
from tercel.sw.layer import LayerError, LayerSpec, build_layer
from tercel.sw.layer_bounds import fits_narrow
from tercel.sw.layer_reference import layer_reference
from tercel.sw.layer_tensors import random_tensors
from tercel.sw.mutate import mutate
from tercel.sw.program import Program
from tercel.sw.random_program import random_program

ODD = Config(
    name="odd",
    pixels=3,
    lanes=2,
    outputs=6,
    drain_lanes=2,
    memory_width=1,
    array_depth=512,
    window_depth=512,
    weight_depth=128,
    parameter_depth=16,
    record_depth=16,
    threshold_depth=256,
    per_channel_multiplier=True,
    multiplier_bits=12,
)
TERNARY = Config(name="ternary", pixels=1, lanes=16, outputs=16, drain_lanes=8, digit_set="ternary")
CONFIGS = [TINY, SMALL, BASE, LARGE, ODD, TERNARY, replace(BASE, name="four", pixels=4)]


def run(program: Program) -> tuple[Fault, int, np.ndarray]:
    memory = program.memory()
    result = run_golden(
        program.config,
        memory,
        program_base=program.program_base,
        program_count=len(program.words),
        read_base=program.read_base,
        read_end=program.read_end,
        write_base=program.write_base,
        write_end=program.write_end,
    )
    return result.fault, result.fault_index, memory


def assert_right(spec: LayerSpec, config: Config, **placement: int) -> Program:
    spec, tensors = random_tensors(spec, config, seed=1)
    program = build_layer(spec, tensors, config, **placement)
    fault, index, memory = run(program)
    assert (fault, index) == (Fault.NONE, 0)
    expected = layer_reference(spec, tensors, config)
    assert len(np.unique(expected)) > 3
    np.testing.assert_array_equal(program.read_outputs(memory)["output"], expected)
    return program


LAYERS = {
    "pointwise": LayerSpec(kind="conv", input=(14, 14, 24), out=40, weight_bits=2, z_out=100),
    "padded": LayerSpec(kind="conv", input=(12, 11, 20), out=13, kernel=(3, 3), padding=(1, 2, 0, 3), weight_bits=2, z_in=3, z_out=90),
    "signed": LayerSpec(
        kind="conv", input=(9, 8, 20), out=13, kernel=(3, 3), padding=(1, 1, 2, 0), weight_bits=2, gain=2, weight_offset=5,
        in_signed=True, z_in=-128, z_out=90, residual=True, z_res=200,
    ),
    "strided": LayerSpec(kind="conv", input=(13, 12, 9), out=17, kernel=(5, 2), stride=3, dilation=(2, 1), weight_bits=2, in_signed=True),
    "grouped": LayerSpec(kind="conv", input=(6, 5, 64), out=64, groups=2, kernel=(2, 3), weight_bits=2, gain=2, weight_offset=-7, z_out=99),
    "residual": LayerSpec(kind="conv", input=(9, 9, 12), out=20, weight_bits=2, residual=True, out_signed=True, res_signed=True, z_res=-3),
    "linear": LayerSpec(kind="linear", input=(1, 1, 100), out=50, weight_bits=2, z_out=128),
    "matrix": LayerSpec(kind="linear", input=(3, 5, 33), out=21, array=True, weight_bits=2, out_signed=True),
}
WINDOW_LAYERS = {
    "depthwise": LayerSpec(kind="depthwise", input=(12, 11, 20), kernel=(3, 3), padding=(1, 1, 1, 1), z_in=9, z_out=128),
    "depthwise stride 2": LayerSpec(kind="depthwise", input=(12, 11, 20), kernel=(3, 3), stride=2, padding=(0, 0, 1, 1), out_signed=True),
    "depthwise 5x4": LayerSpec(
        kind="depthwise", input=(12, 11, 20), kernel=(5, 4), padding=(1, 2, 1, 1), weight_bits=6, gain=2, weight_offset=3
    ),
    "max": LayerSpec(kind="max_pool", input=(12, 11, 20), kernel=(3, 3), stride=2, padding=(1, 1, 1, 1)),
    "average": LayerSpec(kind="average_pool", input=(7, 7, 20), kernel=(7, 7), z_in=4, z_out=4),
}
PLACEMENTS = [{}, {"first_bank": 1, "rotation": 2}]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("name", LAYERS)
def test_array_layers(name, config):
    for placement in PLACEMENTS[: 1 if config.pixels == 1 else 2]:
        assert_right(LAYERS[name], config, **placement)


@pytest.mark.parametrize("config", [config for config in CONFIGS if config.depthwise], ids=lambda config: config.name)
@pytest.mark.parametrize("name", WINDOW_LAYERS)
def test_depthwise_layers(name, config):
    for placement in PLACEMENTS[: 1 if config.pixels == 1 else 2]:
        for out_space in (0, 1):
            assert_right(replace(WINDOW_LAYERS[name], out_space=out_space), config, **placement)


@pytest.mark.parametrize("shared", [False, True])
def test_thresholds(shared):
    for count in (3, 15):
        assert_right(LayerSpec(kind="conv", input=(9, 9, 32), out=37, thresholds=count, threshold_shared=shared, z_out=50), BASE)


@pytest.mark.parametrize("weight_bits", range(2, 9))
def test_weight_bits(weight_bits):
    program = assert_right(LayerSpec(kind="conv", input=(4, 4, 12), out=10, weight_bits=weight_bits, z_out=128), SMALL)
    array = next(values for opcode, values in program.instructions() if opcode is Opcode.ARRAY)
    assert array["digits"] == (weight_bits - 1) // 2


def count(program: Program, opcode: Opcode, **fields: int) -> int:
    return sum(code is opcode and all(values[name] == value for name, value in fields.items()) for code, values in program.instructions())


def test_pointwise_layers_fill_every_tile_but_the_last():
    program = assert_right(LayerSpec(kind="conv", input=(15, 15, 16), out=8, z_out=128), BASE)
    (array,) = (values for opcode, values in program.instructions() if opcode is Opcode.ARRAY)
    assert (array["rows"], array["out_width"], array["tiles"]) == (0, 224, 32)


def test_bands_where_the_scratchpad_is_too_small():
    small = replace(BASE, array_depth=256, window_depth=256)
    program = assert_right(LayerSpec(kind="conv", input=(30, 21, 32), out=16, kernel=(3, 3), padding=(1, 1, 1, 1), z_out=128), small)
    assert count(program, Opcode.ARRAY) == count(program, Opcode.STORE) > 1
    assert count(program, Opcode.LOAD, space=Space.WEIGHT) == 1, "weights that fit are loaded once"
    program = assert_right(LayerSpec(kind="depthwise", input=(40, 21, 32), kernel=(3, 3), padding=(1, 1, 1, 1), z_out=128), small)
    assert count(program, Opcode.DEPTHWISE) == count(program, Opcode.LOAD, space=Space.WINDOW) > 1


def test_chunks_where_weights_or_parameters_are_too_many():
    program = assert_right(LayerSpec(kind="conv", input=(3, 3, 64), out=64, kernel=(3, 3), z_out=128), replace(BASE, weight_depth=1024))
    assert count(program, Opcode.ARRAY) == count(program, Opcode.LOAD, space=Space.WEIGHT) == 8
    program = assert_right(LayerSpec(kind="conv", input=(3, 3, 8), out=128, z_out=128), replace(BASE, parameter_depth=16))
    assert count(program, Opcode.ARRAY) == count(program, Opcode.LOAD, space=Space.PARAMETER) == 4
    program = assert_right(LayerSpec(kind="linear", input=(1, 1, 160), out=80, z_out=128), replace(BASE, record_depth=64))
    assert count(program, Opcode.DEPTHWISE) == count(program, Opcode.LOAD, space=Space.RECORD) == 10


@pytest.mark.parametrize("kind", ["depthwise", "max_pool", "average_pool"])
def test_slices_where_a_row_of_all_channels_does_not_fit(kind):
    layer = LayerSpec(kind=kind, input=(5, 9, 75), kernel=(3, 3), padding=(1, 1, 1, 1), z_in=2, z_out=60 if kind == "depthwise" else 0)
    program = assert_right(layer, replace(SMALL, window_depth=64, record_depth=16))
    assert count(program, Opcode.DEPTHWISE) > 5
    groups = [values["groups"] + 1 for opcode, values in program.instructions() if opcode is Opcode.STORE]
    assert max(groups) < 19


def test_padding_only_bands():
    assert_right(
        LayerSpec(kind="conv", input=(2, 5, 8), out=8, kernel=(2, 2), padding=(40, 1, 30, 1), z_in=7, z_out=128),
        replace(TINY, array_depth=64),
    )


def test_narrow_where_no_sum_can_overflow():
    for bits, channels, narrow in [(2, 24, True), (8, 64, False)]:
        spec, tensors = random_tensors(LayerSpec(kind="conv", input=(4, 4, channels), out=8, weight_bits=bits), BASE, seed=0)
        assert fits_narrow(spec, tensors.weights, tensors.bias, tensors.shift, BASE) is narrow
        assert count(build_layer(spec, tensors, BASE), Opcode.ARRAY, narrow=int(narrow)) == 1
    spec, tensors = random_tensors(LayerSpec(kind="conv", input=(4, 4, 300), out=8, narrow=True, z_out=128), BASE, seed=0)
    wide = layer_reference(replace(spec, narrow=False), tensors, BASE)
    assert not np.array_equal(wide, layer_reference(spec, tensors, BASE)), "sums that do not fit wrap"
    assert_right(spec, BASE)


def test_what_signed_codes_add_wraps():
    """Biases at the ends of their range, less 128 times weights of either sign: the reference takes sums modulo 2**32 too."""
    spec, tensors = random_tensors(LayerSpec(kind="conv", input=(4, 5, 16), out=8, in_signed=True, z_out=100), SMALL, seed=0)
    tensors = replace(tensors, bias=np.array([-(1 << 31), (1 << 31) - 1] * 4))
    expected = layer_reference(spec, tensors, SMALL)
    assert len(np.unique(expected)) == 2, "some sums wrap"
    program = build_layer(spec, tensors, SMALL)
    np.testing.assert_array_equal(program.read_outputs(run(program)[2])["output"], expected)


def test_zero_points_that_are_no_codes():
    """The array feeds and subtracts codes; where nothing is fed any number will do."""
    spec = LayerSpec(kind="conv", input=(4, 4, 8), out=8, kernel=(2, 2), z_out=128, z_in=-3)
    assert_right(spec, BASE)
    assert_right(replace(spec, kind="depthwise", out=0, padding=(1, 0, 0, 0)), BASE)


ERRORS = [
    ({"kernel": (17, 1)}, BASE, "kernel must be in 1..16, not (17, 1) (split larger kernels)"),
    ({"kernel": (9, 9)}, BASE, "kernel must be no larger than the padded input, not (9, 9) (the output would be 0x0)"),
    ({"stride": 5}, BASE, "stride must be in 1..4, not 5 (subsample in a layer of its own)"),
    ({"weight_bits": 9}, BASE, "weight_bits must be in 2..8, not 9 (1 bit runs as 2)"),
    ({"weight_bits": 4}, TERNARY, "weight_bits must be at most 2, not 4 (a ternary machine has 1 digit planes)"),
    ({"weight_offset": 256}, BASE, "weight_offset must be in -255..255, not 256 (weights have 9 bits)"),
    ({"groups": 3}, BASE, "groups must be a divisor of 8 input and 8 output channels, not 3 (kind depthwise needs no groups)"),
    (
        {"groups": 2},
        BASE,
        "input must be a multiple of lanes=8 channels in each group, not 4 (pad the groups, or use kind depthwise)",
    ),
    ({"kind": "depthwise", "out": 0}, TINY, "kind must be conv or linear, not depthwise (config tiny has no depthwise engine)"),
    ({"kind": "depthwise", "residual": True}, BASE, "residual must be false here, not True (only the array adds a residual)"),
    (
        {"kind": "depthwise", "out": 0, "weight_bits": 2, "gain": 2, "weight_offset": 126},
        BASE,
        (
            "weights gain * d + weight_offset must be in -128..127, not 122..128 "
            "(the depthwise engine multiplies by 8 bits; take symmetric weights or fewer weight_bits)"
        ),
    ),
    (
        {"kind": "linear", "input": (1, 1, 8), "weight_bits": 2, "weight_offset": -127},
        BASE,
        (
            "weights gain * d + weight_offset must be in -128..127, not -129..-126 "
            "(the depthwise engine multiplies by 8 bits; take symmetric weights or fewer weight_bits)"
        ),
    ),
    ({"kind": "max_pool", "thresholds": 2}, BASE, "thresholds must be 0 here, not 2 (max_pool only clamps)"),
    ({"thresholds": 3, "weight_bits": 2}, TINY, "thresholds must be 0, not 3 (the config has no threshold memory)"),
    ({"thresholds": 3, "narrow": True}, BASE, "narrow must be false, not True (thresholds and residual take wide sums)"),
    ({"out_space": 1}, TINY, "out_space must be 0, not 1 (the config has no window scratchpad)"),
    (
        {"z_in": -1, "padding": (0, 1, 0, 0)},
        BASE,
        "z_in must be in 0..255, not -1 (in the array a zero point is one of its tensor's codes)",
    ),
    (
        {"z_res": 128, "res_signed": True, "residual": True},
        BASE,
        "z_res must be in -128..127, not 128 (in the array a zero point is one of its tensor's codes)",
    ),
    ({"z_in": 256}, BASE, "z_in must be in -256..255, not 256 (the field has 9 bits)"),
    (
        {"input": (8, 4000, 512), "kernel": (3, 3)},
        BASE,
        (
            "input must need at most array_depth=2048 words a bank for one output row, not 110332 "
            "(take a config with more array_depth, or fewer channels or columns)"
        ),
    ),
    (
        {"input": (8, 8, 16384)},
        BASE,
        (
            "input must need at most array_depth=2048 words a bank for one tile of pixels, not 2049 "
            "(take a config with more array_depth, or fewer channels or columns)"
        ),
    ),
    (
        {"input": (8, 8, 1024), "kernel": (4, 4)},
        replace(BASE, array_depth=16384, weight_depth=4096),
        (
            "input channels must need at most weight_depth=4096 words a group of outputs, not 8192 "
            "(fewer channels, taps or weight bits, or a config with more weight_depth)"
        ),
    ),
    ({"input": (8, 5000, 1), "kernel": (3, 3)}, BASE, "input must be at most 4095 pixels wide, not 5000 (cut it into columns)"),
]


@pytest.mark.parametrize(("arguments", "config", "message"), ERRORS)
def test_errors(arguments, config, message):
    with pytest.raises(LayerError, match=f"^{re.escape(message)}$"):
        spec = LayerSpec(**({"kind": "conv", "input": (8, 8, 8), "out": 8} | arguments))
        spec, tensors = random_tensors(spec, config, seed=0)
        build_layer(spec, tensors, config)


def test_uncalibrated_layers_are_refused():
    spec, tensors = random_tensors(LayerSpec(kind="conv", input=(4, 4, 8), out=8), BASE, seed=0)
    with pytest.raises(LayerError, match=r"^shift must be positive, not 0 \(calibrate the layer first\)$"):
        build_layer(replace(spec, shift=0), tensors, BASE)
    with pytest.raises(LayerError, match=r"^first_bank must be below pixels=7, not 7 \(banks count from 0\)$"):
        build_layer(spec, tensors, BASE, first_bank=7)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_random_programs(config):
    for seed in range(60):
        found = random_program(config, seed=seed)
        fault, index, memory = run(found.program)
        assert (fault, index) == (Fault.NONE, 0), seed
        for name, codes in found.program.read_outputs(memory).items():
            np.testing.assert_array_equal(codes, found.expected[name], err_msg=f"seed {seed}")
    assert random_program(config, seed=3).program == random_program(config, seed=3).program


def test_mutants_end_with_a_report():
    faults = set()
    for seed in range(300):
        program = random_program(SMALL, seed=seed % 20).program
        mutant = mutate(program, seed=seed)
        fault, index, memory = run(mutant)
        faults.add(fault)
        assert 0 <= index <= len(mutant.words)
        before = mutant.memory()
        assert np.array_equal(memory[: program.write_base], before[: program.write_base])
        assert np.array_equal(memory[program.write_end :], before[program.write_end :])
    assert faults == set(Fault) - {Fault.BUS_ERROR, Fault.BUS_TIMEOUT}
