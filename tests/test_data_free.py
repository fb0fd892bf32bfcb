"""Quantization without images: moments of clipped channels, statistics of batch norms, corrected biases, whole networks, errors."""

import numpy as np
import pytest
from small_torch_networks import QUANTIZE, Network, calls, constants, outputs, pictures, uneven

from tercel.sw.quantize import QuantizeError, quantize

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn import functional

from tercel.sw.quantize.capture import capture
from tercel.sw.quantize.channel_statistics import distributions, read_norms
from tercel.sw.quantize.flow import prepare_pt2e
from tercel.sw.quantize.normal import ClippedNormal
from tercel.sw.quantize.prepared_graph import norm_statistics, weighted_layers
from tercel.sw.quantize.quantizer import TercelQuantizer

INF = float("inf")
EXAMPLE = torch.zeros(1, 3, 16, 16)


@pytest.mark.parametrize(("low", "high"), [(-INF, INF), (0.0, INF), (0.0, 6.0), (-1.0, 0.5), (-INF, 2.0)])
def test_moments_are_those_of_clipped_samples(low, high):
    mean = torch.tensor([0.0, 1.5, -2.0, 7.0, 3.0], dtype=torch.float64)
    std = torch.tensor([1.0, 2.0, 0.5, 3.0, 0.0], dtype=torch.float64)
    samples = mean + std * torch.randn(1_000_000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = samples.clamp(low, high)
    found = ClippedNormal(mean, std, low, high).moments()
    assert torch.allclose(found[0], samples.mean(dim=0), atol=0.01) and torch.allclose(found[1], samples.std(dim=0), atol=0.01)


def test_mean_behind_relu():
    shift, gain = 0.7, 1.3
    ratio = torch.tensor(shift / gain, dtype=torch.float64)
    density, below = torch.exp(-ratio.square() / 2) / (2 * torch.pi) ** 0.5, 0.5 * torch.erfc(ratio / 2**0.5)
    one = ClippedNormal(torch.tensor([shift], dtype=torch.float64), torch.tensor([gain], dtype=torch.float64), 0.0, INF)
    assert float(one.moments()[0]) == pytest.approx(float(gain * density + shift * (1 - below)))


def test_clips_and_ends():
    one = ClippedNormal(torch.tensor([0.0, 5.0]), torch.tensor([1.0, 1.0])).clip(0.0, INF).clip(-1.0, 6.0)
    assert (one.low, one.high) == (0.0, 6.0)
    lowest, highest = one.ends()
    assert lowest.tolist() == [0.0, 0.0] and highest.tolist() == [6.0, 6.0]
    assert ClippedNormal(torch.zeros(1), torch.zeros(1)).clip(2.0, 3.0).clip(0.0, 1.0).ends()[1].tolist() == [1.0]


def prepared(model, *, example=EXAMPLE):
    captured = capture(model, example)
    count = read_norms(captured)
    return prepare_pt2e(captured, TercelQuantizer()), count


def test_batch_norms_tell_mean_and_deviation():
    model = uneven(Network())
    graph, count = prepared(model)
    assert count == 10
    for layer, (name, norm) in zip(
        weighted_layers(graph), [(n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)], strict=False
    ):
        mean, std = norm_statistics(layer.node)
        assert torch.allclose(mean, norm.bias.double()), name
        assert torch.allclose(std, norm.weight.abs().double() * (norm.running_var / (norm.running_var + norm.eps)).sqrt().double())


def test_norms_that_saw_no_images_tell_nothing():
    assert prepared(Network())[1] == 0
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.ReLU())
    model[1].running_mean.fill_(0.5)
    graph, count = prepared(model)
    mean, std = norm_statistics(next(weighted_layers(graph)).node)
    assert count == 1 and mean.tolist() == [0.0] * 4 and torch.allclose(std, torch.ones(4, dtype=torch.float64), atol=1e-4)


class Shapes(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1, groups=2), nn.Linear(16, 4)

    def forward(self, x):
        x = self.one(x).relu()
        y = functional.pad(x[:, 1:5, ::2, ::2], (0, 0, 0, 0, 1, 1))
        z = self.two(x)[:, :, ::2, ::2] + y
        return self.head(torch.flatten(functional.adaptive_avg_pool2d(torch.cat([z, y, y[:, :4]], 1), 1), 1))


def test_distributions_are_carried_on_without_norms():
    torch.manual_seed(0)
    model = Shapes().eval()
    graph, count = prepared(model)
    found = distributions(graph, input_range=(-INF, INF))
    images = torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        first, last = model.one(images), model(images)
    assert count == 0
    layers = {layer.name: found[layer.node] for layer in weighted_layers(graph)}
    assert torch.allclose(layers["one"].mean, first.mean(dim=(0, 2, 3)).double(), atol=0.02)
    assert torch.allclose(layers["one"].std, first.std(dim=(0, 2, 3)).double(), atol=0.02)
    assert torch.allclose(layers["head"].mean, last.mean(dim=0).double(), atol=0.05)
    cat = next(node for node in graph.graph.nodes if node.target is torch.ops.aten.cat.default)
    assert len(found[cat].mean) == 16 and float(found[cat].moments()[0][[6, 11]].abs().max()) < 1e-9  # pads


def test_biases_are_corrected_for_the_expected_inputs():
    """A batch norm that tells the truth: with a corrected bias, the mean error of each output is a fraction of the one without."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 8, 3)).eval()
    images = torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        model[1].bias.normal_()
        made = model[0](images)
        model[1].running_mean.copy_(made.mean(dim=(0, 2, 3)))
        model[1].running_var.copy_(made.var(dim=(0, 2, 3)))
        expected = model(images)
    error = {}
    for corrected in (False, True):
        program = quantize(model, example=EXAMPLE, bits={"3": 3}, bias_correction=corrected)
        error[corrected] = (outputs(program, images) - expected).mean(dim=(0, 2, 3)).abs().mean()
    assert error[True] < error[False] / 4


@pytest.mark.parametrize("options", [{}, {"equalization": True}, {"scheme": "per_layer", "equalization": True}, {"bits": 6}])
def test_a_network_without_images(options):
    model = uneven(Network())
    images = pictures(32, seed=2)
    with torch.no_grad():
        for module in model.modules():  # statistics as training would have left them
            if isinstance(module, nn.BatchNorm2d):
                module.train()
                module.momentum = None
                module.reset_running_stats()
        for _ in range(3):
            model(pictures(64, seed=9))
        model.eval()
        expected = model(images)
    program = quantize(model, example=torch.full_like(EXAMPLE, 7.0), **options)
    again = quantize(model, example=EXAMPLE, **options)
    assert all(torch.equal(value, again.state_dict[name]) for name, value in program.state_dict.items())
    assert (outputs(program, images) - expected).square().mean() / expected.var() < 0.1
    first = calls(program, QUANTIZE)[0]
    assert first.args[1] == pytest.approx(6 / 255)


@pytest.mark.parametrize("scheme", ["tquant", "mquant_tertiles_per_layer", "ternary"])
def test_ternary_without_images(scheme):
    program = quantize(uneven(Network()), example=EXAMPLE, scheme=scheme, bits={"stem*": 8, "classifier*": 8})
    grids = [constants(program, layer.args[1]) for layer in calls(program, "conv2d.default")]
    assert [grid for _, _, grid in grids] == [(-127, 127)] + [(-1, 1)] * 9
    assert all(set(np.unique(codes)) <= {-1, 0, 1} for codes, _, _ in grids[1:])


@pytest.mark.parametrize(("options", "message"), [
    ({}, r"^calibration must be given, not left out \(some images; or example, an input, to quantize without images\)$"),
    ({"example": EXAMPLE, "calibration": pictures(1)}, r"^example must be left out with calibration, whose images show the input's shape"),
    ({"example": EXAMPLE, "rounding": "learned"}, r"^rounding must be nearest or left out without calibration, not 'learned' \(it needs"),
    ({"example": EXAMPLE, "rounding": "compensated"}, r"^rounding must be nearest or left out without calibration, not 'compensated'"),
    ({"example": EXAMPLE[0]}, r"^example must have the shape \[images, channels, height, width\], not \[3, 16, 16\]"),
    ({"example": EXAMPLE[:0]}, r"^example must hold an input, not 0"),
    ({"example": [1]}, r"^example must be a tensor of images, not list"),
    ({"example": EXAMPLE, "input_range": (0.5, 1.0)}, r"^input_range must be finite and hold zero, not 0.5..1.0 \(black and white when"),
    ({"example": EXAMPLE, "input_range": (-INF, 1.0)}, r"^input_range must be finite and hold zero, not -inf..1.0"),
])  # fmt: skip
def test_arguments(options, message):
    with pytest.raises(QuantizeError, match=message) as caught:
        quantize(nn.Conv2d(3, 2, 1), **options)
    assert "\n" not in str(caught.value)


def test_an_operator_of_which_nothing_is_known():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 4, 1))
    with pytest.raises(QuantizeError, match=r"^calibration must be given for a network with aten.sigmoid.default in module '1', not left"):
        quantize(model, example=EXAMPLE)
