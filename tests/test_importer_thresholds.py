"""Activations that count thresholds: from convolution, batch norm and PReLU in float to whole numbers on the array."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from qdq_models import QDQ, Conv, Linear, Net, Quant, Weight, export, only
from torch import Tensor, nn

from tercel.hw.config import BASE, SMALL, TINY, Config
from tercel.sim.execution import execute_program
from tercel.sw.compiler import compile_graph
from tercel.sw.graph.codes import from_codes
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.graph.reference import run_reference
from tercel.sw.importer import UnsupportedError, explain, import_exported
from tercel.sw.multi_threshold import multi_threshold


class Thresholds(nn.Module):
    """Counts of thresholds with a scale; one row, or one a channel."""

    def __init__(self, *rows: list[float], scale: float = 0.25, zero_point: int = 0) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor(rows[0] if len(rows) == 1 else rows, dtype=torch.float32))
        self.scale, self.zero_point = scale, zero_point

    def forward(self, x: Tensor) -> Tensor:
        codes = multi_threshold(x, self.table)
        return QDQ.dequantize_per_tensor(codes, self.scale, self.zero_point, 0, self.table.shape[-1], torch.uint8)


class RealPart(nn.Module):
    """Batch norm, shift, PReLU, shift and factor: some channels rise, some fall, one is dead."""

    def __init__(self, channels: int, *, spread: float, falls: bool = True, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.norm = nn.BatchNorm2d(channels).eval()
        self.norm.running_mean.copy_(torch.randn(channels, generator=random) * spread)
        self.norm.running_var.copy_((torch.rand(channels, generator=random) + 0.2) * spread**2)
        gain = torch.randn(channels, generator=random)
        gain = gain + 0.4 * gain.sign()
        self.norm.weight.data = gain if falls else gain.abs()
        if falls:
            self.norm.weight.data[0] = 0.0
        self.norm.bias.data = torch.randn(channels, generator=random)
        self.prelu = nn.PReLU(channels)
        self.prelu.weight.data = torch.rand(channels, generator=random) + 0.3
        self.before = nn.Parameter(torch.randn(1, channels, 1, 1, generator=random))
        self.after = nn.Parameter(torch.randn(channels, 1, 1, generator=random))
        self.factor = nn.Parameter(torch.tensor([1.3]))

    def forward(self, x: Tensor) -> Tensor:
        return (self.prelu(self.norm(x) + self.before) + self.after) * self.factor


LEVELS = {2: [0.2, 0.7, 1.5], 3: [-0.4, 0.1, 0.3, 0.31, 0.9, 1.4, 2.2], 4: [0.1 * index + 0.02 * (index % 3) for index in range(15)]}


def odd(bits: int, *shape: int, seed: int = 0) -> Weight:
    """Weights on odd levels, with a scale for each output that is no power of two of another's."""
    half = 1 << bits - 1
    codes = 2 * np.random.default_rng(seed).integers(-half, half, shape) + 1
    scales = [0.011 * (1 + 0.37 * (index % 7)) for index in range(shape[0])]
    return Weight(shape, codes=codes, scales=scales, limits=(1 - 2 * half, 2 * half - 1))


def images(graph: IntegerGraph, *, batch: int = 4, seed: int = 3) -> dict[str, np.ndarray]:
    """Random codes of the only input."""
    (name,) = graph.inputs
    return {name: np.random.default_rng(seed).integers(0, 256, (batch, *graph.tensors[name].shape))}


def real_sums(weight: Weight, codes: np.ndarray, *, scale: float, zero_point: int, bias: Tensor | None, **options) -> Tensor:
    """What the convolution gives in real numbers, in float64: whole-number sums times scales."""
    x = torch.from_numpy(codes.astype(np.float64)).permute(0, 3, 1, 2) - zero_point
    sums = F.conv2d(x, weight.codes.double(), None, **options)
    result = sums * (np.float64(scale) * weight.scales.double().reshape(1, -1, 1, 1))
    return result if bias is None else result + bias.double().reshape(1, -1, 1, 1)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("config", [BASE, SMALL], ids=lambda config: config.name)
def test_every_sum_is_on_the_side_where_float_puts_it(bits: int, config: Config) -> None:
    weight, bias, real = odd(bits, 10, 12, 3, 3), torch.linspace(-1, 1, 10), RealPart(10, spread=2.0)
    source, last = Quant(0.02, 3, low=0, high=255, dtype=torch.uint8), Thresholds(LEVELS[bits])
    model = nn.Sequential(source, Conv(weight, bias, padding=1, stride=2), real, last)
    graph = import_exported(export(model, 12, 9, 8), config=config).graph
    layer = only(graph)
    assert (layer.spec.weight_bits, layer.spec.gain, layer.spec.weight_offset) == (bits, 2, 1)
    assert (layer.spec.multiplier, layer.spec.shift) == (256, 8) and not layer.shift.any()
    given = images(graph)
    (codes,) = run_reference(graph, given).values()
    x = real_sums(weight, given[graph.inputs[0]], scale=0.02, zero_point=3, bias=bias, padding=1, stride=2)
    expected = multi_threshold(real.double()(x), last.table.double()).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(codes, expected)
    assert len(np.unique(codes)) == 1 << bits


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
def test_stored_codes_in_a_layer_of_their_own(levels: list[float]) -> None:
    """Each of the 256 codes, in channels that rise, fall and stand still."""
    real, last = RealPart(6, spread=1.0), Thresholds(levels)
    graph = import_exported(export(nn.Sequential(Quant(0.03, -20), real, last), 6, 16, 16), config=SMALL).graph
    codes = np.arange(-128, 128).reshape(1, 16, 16, 1).repeat(6, axis=3)
    (result,) = run_reference(graph, {graph.inputs[0]: codes}).values()
    x = torch.from_numpy((codes + 20) * 0.03).permute(0, 3, 1, 2)
    expected = multi_threshold(real.double()(x), last.table.double()).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(result, expected)
    layer = only(graph)
    assert layer.spec.kind == "conv" and layer.spec.kernel == (1, 1) and layer.spec.weight_bits == 2
    assert not layer.spec.threshold_shared


def test_one_table_where_all_channels_are_alike() -> None:
    layer = only(import_exported(export(nn.Sequential(Quant(0.03, -20), nn.ReLU(), Thresholds(LEVELS[2])), 6, 4, 4), config=SMALL).graph)
    assert layer.spec.threshold_shared and layer.thresholds.shape == (1, 3)
    np.testing.assert_array_equal(layer.thresholds, [[6, 23, 50]])


def test_sums_beyond_16_bits_lose_half_a_step_of_the_halved_sums() -> None:
    """8 x 8 bits over 1024 inputs, thresholds far apart: the channel's shift halves the sums, and the thresholds stay within the bound."""
    weight = Weight((4, 1024, 1, 1), scales=[0.01, 0.02, 0.03, 0.04])
    levels = Thresholds([-2000.0, 500.0, 3000.0])
    model = nn.Sequential(Quant(1.0, 0, low=0, high=255, dtype=torch.uint8), Conv(weight), levels)
    layer = only(import_exported(export(model, 1024, 2, 2), config=BASE).graph)
    assert layer.shift.tolist() == [3, 2, 2, 1]
    exact = levels.table.double().numpy() / np.float32([0.01, 0.02, 0.03, 0.04]).astype(np.float64)[:, None]
    # p > T from v = 2**s * T + 2**(s-1) on; v is the sum plus bias.
    halves = 1 << layer.shift[:, None]
    found = halves * layer.thresholds + halves // 2 - layer.bias[:, None]
    assert (np.abs(found - (np.floor(exact) + 1)) <= halves // 2).all()
    assert np.abs(layer.thresholds).max() <= 32768


def test_thresholds_far_from_zero_move_by_the_bias() -> None:
    """Sums up to 4 million, thresholds close to each other around 3 million: exact, without a shift."""
    weight = Weight((4, 256, 1, 1), scales=1.0, codes=np.full((4, 256, 1, 1), 100))
    levels = Thresholds([3_000_000.5, 3_000_100.5, 3_060_000.5])
    model = nn.Sequential(Quant(1.0, 0, low=0, high=255, dtype=torch.uint8), Conv(weight), levels)
    graph = import_exported(export(model, 256, 1, 2), config=BASE).graph
    assert not only(graph).shift.any()
    codes = np.full((1, 1, 2, 256), 117)
    codes[0, 0, :, :] += np.arange(256) < 48  # sum 117 * 25600 + 4800 = 3_000_000
    codes[0, 0, 1, 200] += 1
    (result,) = run_reference(graph, {graph.inputs[0]: codes}).values()
    assert result[0, 0].tolist() == [[0] * 4, [1] * 4]


NETWORKS: dict[str, tuple[Callable[..., Tensor], dict[str, nn.Module], tuple[int, int, int]]] = {
    "convolutions": (
        lambda net, x: net.second(net.tail(net.real(net.conv(net.first(x))))),
        {
            "first": Thresholds([-1.0, -0.2, 0.4]),
            "conv": Conv(odd(2, 8, 8, 3, 3), padding=1),
            "real": RealPart(8, spread=0.3),
            "tail": Thresholds(LEVELS[3]),
            "second": nn.Sequential(Conv(odd(3, 16, 8, 1, 1)), RealPart(16, spread=0.5), Thresholds(LEVELS[2])),
        },
        (8, 7, 9),
    ),
    "linear": (
        lambda net, x: net.levels(net.linear(torch.flatten(net.first(x), 1))),
        {"first": Thresholds([-1.0, -0.2, 0.4]), "linear": Linear(odd(4, 12, 60)), "levels": Thresholds(LEVELS[4])},
        (15, 2, 2),
    ),
    "depthwise": (
        lambda net, x: net.levels(net.real(net.conv(x))),
        {"conv": Conv(odd(4, 8, 1, 3, 3), padding=1, groups=8), "real": RealPart(8, spread=2.0), "levels": Thresholds(LEVELS[3])},
        (8, 6, 6),
    ),
    "max pool": (
        lambda net, x: net.levels(net.real(net.pool(net.conv(x)))),
        {
            "conv": Conv(odd(2, 8, 8, 1, 1)),
            "pool": nn.MaxPool2d(2),
            "real": RealPart(8, spread=2.0, falls=False),
            "levels": Thresholds(LEVELS[3]),
        },
        (8, 6, 6),
    ),
    "average": (
        lambda net, x: net.levels(net.real(net.pool(x))),
        {"pool": nn.AvgPool2d(3), "real": RealPart(8, spread=0.2), "levels": Thresholds(LEVELS[3])},
        (8, 6, 6),
    ),
    "global average and reshape": (
        lambda net, x: net.levels(torch.flatten(net.pool(x), 1)),
        {"pool": nn.AdaptiveAvgPool2d(1), "levels": Thresholds(*[[0.01 * row, 0.1 + 0.02 * row] for row in range(8)])},
        (8, 4, 4),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_float_network_and_machine_agree(name: str) -> None:
    """Import, compile and run on the golden model; in float32 a sum may lie on the other side of a threshold that it nearly meets."""
    run, modules, shape = NETWORKS[name]
    model = Net(lambda net, x: run(net, net.input(x)), input=Quant(0.02, 3), **modules)
    program = export(model, *shape)
    graph = import_exported(program, config=SMALL).graph
    codes = np.random.default_rng(1).integers(-128, 128, (2, *graph.tensors[graph.inputs[0]].shape))
    result = run_reference(graph, {graph.inputs[0]: codes})
    (output,) = graph.outputs
    real = torch.from_numpy(from_codes(graph.tensors[graph.inputs[0]], codes)).permute(0, 3, 1, 2).float()
    expected = model(real).detach()
    found = torch.from_numpy(from_codes(graph.tensors[output], result[output])).permute(0, 3, 1, 2).reshape(expected.shape)
    assert (found - expected).abs().gt(1e-5).float().mean() <= 2e-3
    assert len(np.unique(result[output])) > 2
    program = compile_graph(graph, SMALL)
    tensors = execute_program(program, {graph.inputs[0]: codes[:1]}, on="golden").tensors
    np.testing.assert_array_equal(tensors[output], result[output][:1])


SUMS: dict[str, dict[str, nn.Module]] = {
    "convolution": {"left": Conv(Weight((8, 8, 3, 3), scales=[0.01 * 2.0 ** -(row % 4) for row in range(8)], bits=4), padding=1)},
    "tensor": {"left": Quant(0.013, -5)},
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_are_compared_after_rounding_to_16_bits(name: str) -> None:
    """Inside the layer that adds; no sum is on the other side of a threshold unless it is within half a step of it."""
    real, levels = RealPart(8, spread=1.0, falls=False), Thresholds(LEVELS[4])
    model = Net(
        lambda net, x: net.levels(net.real(net.left(net.input(x)) + net.right(net.input(x)))),
        input=Quant(0.02, 3),
        right=Quant(0.029, 7),
        real=real,
        levels=levels,
        **SUMS[name],
    )
    graph = import_exported(export(model, 8, 6, 6), config=SMALL).graph
    layer = list(graph.layers())[-1]
    assert layer.residual is not None and layer.spec.thresholds == 15
    codes = np.random.default_rng(1).integers(-128, 128, (2, *graph.tensors[graph.inputs[0]].shape))
    result = run_reference(graph, {graph.inputs[0]: codes})[graph.outputs[0]].transpose(0, 3, 1, 2)
    x = torch.from_numpy(from_codes(graph.tensors[graph.inputs[0]], codes)).permute(0, 3, 1, 2).float()
    sums = (model.left(x) + model.right(x)).double()
    step = graph.tensors[layer.residual].scale / (layer.spec.res_multiplier * 2.0 ** (layer.spec.res_shift - layer.spec.shift))
    # Half a step, and what float32, M and R round.
    slack = 0.51 * step + 1e-4
    least, most = (multi_threshold(real.double()(sums + move), levels.table.double()).numpy() for move in (-slack, slack))
    assert ((least <= result) & (result <= most)).all()
    assert (least != most).mean() < 0.01


def test_explain_names_what_the_thresholds_took_up() -> None:
    model = nn.Sequential(Quant(0.02, 3), Conv(odd(2, 8, 6, 1, 1)), RealPart(8, spread=1.0), Thresholds(LEVELS[2]))
    reports = {report.name: (report.verdict, report.reason) for report in explain(export(model, 6, 3, 3), config=BASE)}
    fused = ("fused", "in layer 1.conv2d")
    assert reports["1.conv2d"] == ("placed", "layer 1.conv2d")
    assert {name for name, report in reports.items() if report == fused} == {
        "2.norm",
        "2.prelu",
        "2.add",
        "2.mul",
        "3.multi_threshold",
    }
    alone = explain(export(nn.Sequential(Quant(0.02, 3), nn.ReLU(), Thresholds(LEVELS[2])), 6, 3, 3), config=BASE)
    assert {report.name: report.reason for report in alone}["2.multi_threshold"] == "layer 2"


def falling(channels: int) -> nn.Module:
    part = RealPart(channels, spread=1.0)
    part.prelu.weight.data[2] = -0.125
    return part


REFUSED: dict[str, tuple[nn.Module, Config, str]] = {
    "negative slope": (
        nn.Sequential(Quant(0.02, 3), Conv(odd(2, 8, 6, 1, 1)), falling(8), Thresholds(LEVELS[2])),
        BASE,
        (
            "2.prelu: aten.prelu.default at test_importer_thresholds.py:LINE: slope below zero of channel 2 "
            "must be at least 0 before thresholds, not -0.125 (train with slopes held at 0 or above, as RPReLU does: "
            "a count of thresholds needs a function that only rises)"
        ),
    ),
    "no threshold memory": (
        nn.Sequential(Quant(0.02, 3), Conv(Weight((8, 6, 1, 1), bits=4)), Thresholds(LEVELS[2])),
        TINY,
        (
            "2.multi_threshold: tercel.multi_threshold.default at test_importer_thresholds.py:LINE: thresholds must be 0, not 3 "
            "(config tiny has no threshold memory; take one with threshold_depth above 0)"
        ),
    ),
    "zero point": (
        nn.Sequential(Quant(0.02, 3), Conv(odd(2, 8, 6, 1, 1)), Thresholds(LEVELS[2], zero_point=4)),
        BASE,
        (
            "2.multi_threshold: tercel.multi_threshold.default at test_importer_thresholds.py:LINE: dequantize op of counted thresholds "
            "must be of codes 0..3, zero among them, not codes 0..3 with zero point 4 (a count starts at 0)"
        ),
    ),
    "float input": (
        nn.Sequential(Thresholds(LEVELS[2])),
        BASE,
        (
            "0.multi_threshold: tercel.multi_threshold.default at test_importer_thresholds.py:LINE: input of thresholds must be quantized, "
            "not the network's input (put quantize and dequantize ops between them)"
        ),
    ),
    "falling behind a sum": (
        Net(
            lambda net, x: net.t(net.r(net.c(net.q(x)) + net.q(x))),
            q=Quant(0.02, 3),
            c=Conv(odd(2, 8, 8, 1, 1)),
            r=RealPart(8, spread=1.0),
            t=Thresholds(LEVELS[2]),
        ),
        BASE,
        (
            "t.multi_threshold: tercel.multi_threshold.default at test_importer_thresholds.py:LINE: function between a sum and thresholds "
            "must be rising in all channels, not falling in some "
            "(quantize the sum before, or train with positive batch norm gains behind it)"
        ),
    ),
    "batch norm without thresholds": (
        nn.Sequential(Quant(0.02, 3), Conv(odd(2, 8, 8, 1, 1)), nn.BatchNorm2d(8), Quant(0.1)),
        BASE,
        (
            "2: aten.batch_norm.default: operator must be a supported one, not batch_norm "
            "(quantize with a flow that folds it into the convolution before)"
        ),
    ),
    "batch norm, then float": (
        nn.Sequential(Quant(0.02, 3), Conv(odd(2, 8, 8, 1, 1)), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), Quant(0.1)),
        BASE,
        (
            "2: aten.batch_norm.default: operator must be a supported one, not batch_norm "
            "(quantize with a flow that folds it into the convolution before)"
        ),
    ),
    "PReLU without thresholds": (
        nn.Sequential(Quant(0.02, 3), Conv(odd(2, 8, 8, 1, 1)), nn.PReLU(), Quant(0.1)),
        BASE,
        (
            "2: aten.prelu.default: operator must be a supported one, not prelu "
            "(use relu, or thresholds behind it: scheme n2uq at 2 to 4 bits)"
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    model, config, text = REFUSED[name]
    with pytest.raises(UnsupportedError) as error:
        import_exported(export(model, 8 if "sum" in name or "batch" in name or "PReLU" in name else 6, 3, 3), config=config)
    lines = re.sub(r"(\.py):\d+", r"\1:LINE", str(error.value)).splitlines()
    assert lines == ["1 operator of the network cannot run:", f"  {text}"]


def test_negated_weights_take_a_bit_more_where_the_lowest_code_has_no_counterpart() -> None:
    codes = np.array([[-8, 7, 3, 0]]).reshape(1, 4, 1, 1)
    real = RealPart(1, spread=1.0)
    real.norm.weight.data[:] = -1.0
    model = nn.Sequential(Quant(0.02, 3), Conv(Weight((1, 4, 1, 1), codes=codes, bits=4)), real, Thresholds(LEVELS[2]))
    layer = only(import_exported(export(model, 4, 2, 2), config=BASE).graph)
    assert layer.spec.weight_bits == 5 and layer.weights.tolist() == [[[[8, -7, -3, 0]]]]
