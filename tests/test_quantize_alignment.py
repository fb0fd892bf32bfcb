"""Channels moved onto powers of two: the network's function stays, ranges meet the grid, clamps stop it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

from tercel.sw.quantize import SCHEMES, quantize
from tercel.sw.quantize.alignment import align_channels, aligning_links
from tercel.sw.quantize.calibration import CalibrationImages, calibrate
from tercel.sw.quantize.capture import capture
from tercel.sw.quantize.flow import prepare_pt2e
from tercel.sw.quantize.link_statistics import BINS, expect_links, measure_links
from tercel.sw.quantize.links import find_links
from tercel.sw.quantize.normal import ClippedNormal
from tercel.sw.quantize.prepared_graph import weighted_layers
from tercel.sw.quantize.quantizer import TercelQuantizer
from tercel.sw.quantize.scheme import Shift


class Still(Shift):
    @property
    def aligns(self):
        return False


def aligned(model, *, scheme="shift8", bits=4):
    """The float network after alignment and the ranges of its layers."""
    torch.manual_seed(1)
    images = torch.randn(4, 3, 8, 8)
    stream = CalibrationImages(images)
    prepared = prepare_pt2e(capture(model, stream.example), TercelQuantizer(scheme=scheme, bits=bits))
    kept = calibrate(prepared, stream, progress=lambda *_: None)
    before = [layer.weight.clone() for layer in weighted_layers(prepared)]
    links = aligning_links(find_links(prepared))
    align_channels(links, measure_links(prepared, links, kept))
    layers = list(weighted_layers(prepared))
    with torch.no_grad():
        outputs = torch.cat([prepared(image[None]) for image in images])
        assert torch.allclose(outputs, model.eval()(images), rtol=1e-4, atol=1e-5)
    moved = [not torch.equal(old, layer.weight) for old, layer in zip(before, layers, strict=True)]
    return moved, [layer.weight.reshape(len(layer.weight), -1).abs().amax(dim=1).double().numpy() for layer in layers]


def chain(clamp, *, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), clamp, nn.ConstantPad2d((0, 1, 0, 1), 0.0), nn.Conv2d(8, 8, 3, groups=8), clamp, nn.Conv2d(8, 12, 1), clamp,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Conv2d):
                layer.weight *= torch.rand(len(layer.weight), 1, 1, 1) + 0.1
    return model


def misfit(ranges):
    """How far each channel is below the next power of two of the largest, 0..1."""
    exponent = np.log2(ranges.max() / ranges)
    return exponent - np.floor(exponent)


@pytest.mark.parametrize("bits", [4, 7])
@pytest.mark.parametrize("clamp", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(0.0, 50.0)])
def test_ranges_meet_powers_of_two(clamp, bits):
    moved, ranges = aligned(chain(clamp), bits=bits)
    assert moved == [True] * 4
    assert np.mean(misfit(ranges[0]) < 0.01) >= 0.75  # a depthwise reader costs nothing
    assert np.mean(misfit(ranges[1])) < 0.3 and np.mean(misfit(ranges[2])) < 0.3


@pytest.mark.parametrize(("options", "clamp"), [
    ({"bits": 8}, nn.ReLU()), ({"scheme": "per_channel"}, nn.ReLU()), ({"scheme": "shift_search"}, nn.ReLU()), ({}, nn.Hardtanh(-1.0, 1.0)),
])  # fmt: skip
def test_what_is_left_alone(options, clamp):
    assert not any(aligned(chain(clamp), **options)[0])


def test_channels_that_reach_the_clamp_stay():
    model = chain(nn.ReLU6())
    model[0].bias.data[:4] = 20.0
    before = model[0].weight.detach().reshape(8, -1).abs().amax(dim=1).double().numpy()
    _, ranges = aligned(model)
    assert np.array_equal(ranges[0][:4], before[:4]) and not np.array_equal(ranges[0][4:], before[4:])


def test_a_tensor_with_two_readers_stays():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = self.one(x).relu()
            return self.two(x) + self.three(x)

    assert aligned(Fork())[0] == [False] * 3


def test_outputs_err_less():
    errors = {"moved": 0.0, "stays": 0.0}
    for seed in range(2, 10):
        model = chain(nn.ReLU6(), seed=seed)
        with torch.no_grad():
            for layer in model:
                if isinstance(layer, nn.Conv2d):
                    layer.weight *= 6
                    layer.bias.abs_()
        torch.manual_seed(2)
        images, fresh = torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)
        for name, scheme in (("moved", SCHEMES["shift8"]), ("stays", Still(name="still", summary=""))):
            # To the nearest codes: compensated rounding also takes back what alignment would have spared.
            program = quantize(model, calibration=images, scheme=scheme, bits=4, rounding="nearest").module()
            with torch.no_grad():
                outputs, exact = torch.cat([program(image[None]) for image in fresh]), model.eval()(fresh)
            errors[name] += float((outputs - exact).square().mean() / exact.var())
    assert errors["moved"] < 0.8 * errors["stays"]


def test_statistics_as_measured_and_as_expected():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU6(), nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.6, 0.8]])[:, :, None, None])
        model[0].bias.copy_(torch.tensor([0.5, 1.0, 0.0]))
    images = torch.randn(4, 2, 64, 64)
    prepared = prepare_pt2e(capture(model, images[:1]), TercelQuantizer())
    kept = calibrate(prepared, CalibrationImages(images), progress=lambda *_: None)
    (link,) = find_links(prepared)
    measured = measure_links(prepared, [link], kept)[link.layer.node]
    found = {
        link.layer.node: ClippedNormal(torch.tensor([0.5, 1.0, 0.0]).double(), torch.tensor([1.0, 2.0, 1.0]).double()),
        link.layer.input_node: ClippedNormal(torch.zeros(2).double(), torch.ones(2).double()),
    }
    expected = expect_links(found, [link])[link.layer.node]
    assert measured.shares.shape == expected.shares.shape == (3, BINS) and measured.end == expected.end
    for known in (measured, expected):
        assert torch.allclose(known.shares.sum(dim=1), torch.ones(3).double())
        assert torch.allclose(known.shares @ known.centres, torch.tensor([0.5, 1.0, 0.0]).double(), atol=0.1)
        assert torch.allclose(known.input_variance, torch.ones(2).double(), atol=0.05)
    assert (measured.shares - expected.shares).abs().sum(dim=1).max() < 0.15
