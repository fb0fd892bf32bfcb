"""The importer against the captured networks themselves: convolutions with weights, biases and scales in all their forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from qdq_models import Bias, Conv, Quant, Weight, agree, only, sandwich
from torch import nn

from tercel.hw.config import BASE, SMALL, TINY, Config
from tercel.sw.importer import import_exported

PER_CHANNEL = Config(name="per channel", per_channel_multiplier=True)
SHIFTED = [0.004 * 2.0 ** -(index % 5) for index in range(16)]


UNSIGNED = {"low": 0, "high": 255, "dtype": torch.uint8}
CONVS = {
    "pointwise": (Weight((16, 6, 1, 1)), {}),
    "strided": (Weight((16, 6, 3, 3), scales=0.004), {"stride": 2, "padding": 1}),
    "padded one way": (Weight((16, 6, 3, 5), scales=0.004), {"padding": (1, 2)}),
    "same": (Weight((16, 6, 2, 3), scales=0.004), {"padding": "same"}),
    "dilated": (Weight((16, 6, 3, 2), scales=0.004), {"dilation": (2, 3)}),
    "grouped": (Weight((16, 3, 3, 3)), {"groups": 2}),
    "depthwise": (Weight((6, 1, 3, 3)), {"groups": 6, "padding": 1}),
    "depthwise times two": (Weight((12, 1, 3, 3)), {"groups": 6, "padding": 1}),
    "shifts": (Weight((16, 6, 3, 3), scales=SHIFTED), {"padding": 1}),
    "depthwise shifts": (Weight((6, 1, 3, 3), scales=SHIFTED[:6]), {"groups": 6}),
    "4 bits": (Weight((16, 6, 3, 3), bits=4, scales=0.05), {"padding": 1}),
    "3 bits": (Weight((16, 6, 3, 3), bits=3, scales=0.1), {"padding": 1}),
    "ternary": (Weight((16, 6, 3, 3), limits=(-1, 1), scales=0.2), {"padding": 1}),
    "asymmetric": (Weight((16, 6, 3, 3), unsigned=True, zero_points=117, scales=0.004), {"padding": 1}),
    "asymmetric 4 bits": (Weight((16, 6, 3, 3), unsigned=True, bits=4, zero_points=5, scales=0.04), {"padding": 1}),
    "signed with zero point": (Weight((16, 6, 3, 3), zero_points=-9, scales=0.004), {"padding": 1}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("source", [Quant(0.02, 3), Quant(0.02, 130, **UNSIGNED)], ids=["int8", "uint8"])
@pytest.mark.parametrize("name", CONVS)
def test_convolutions(name: str, source: nn.Module) -> None:
    weight, options = CONVS[name]
    scales = weight.scales.tolist() if not weight.single else weight.scale
    bias = Bias(len(weight.codes), 0.02 * np.array(scales))
    imported = agree(sandwich(Conv(weight, bias, **options), source=source), 6, 9, 8)
    layer = only(imported.graph)
    assert (layer.name, imported.warnings) == ("1.conv2d", ())
    assert layer.source.startswith("aten.conv2d.") and ", qdq_models.py:" in layer.source
    assert layer.spec.kind == ("depthwise" if name.startswith("depthwise") and "two" not in name else "conv")
    assert layer.shift.max() == (4 if "shifts" in name else 0)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("4 bits", {"weight_bits": 4, "gain": 1, "weight_offset": 0}),
        ("3 bits", {"weight_bits": 3, "digits": 2}),
        ("ternary", {"weight_bits": 2}),
        ("asymmetric", {"weight_bits": 8, "gain": 1, "weight_offset": 128 - 117}),
        ("asymmetric 4 bits", {"weight_bits": 4, "weight_offset": 8 - 5}),
        ("signed with zero point", {"weight_bits": 8, "weight_offset": 9}),
        ("grouped", {"groups": 1, "weight_bits": 8}),
        ("depthwise times two", {"groups": 1}),
        ("same", {"padding": (0, 1, 1, 1)}),
        ("padded one way", {"padding": (1, 2, 1, 2)}),
    ],
)
def test_how_weights_are_held(name: str, fields: dict[str, object]) -> None:
    weight, options = CONVS[name]
    spec = only(agree(sandwich(Conv(weight, **options)), 6, 9, 8).graph).spec
    assert {field: getattr(spec, field) for field in fields} == fields


def test_odd_levels() -> None:
    """A grid without a zero takes half the bits: weights -15, -13, .. 15 are 4 bits."""
    codes = np.random.default_rng(0).integers(-8, 8, (16, 6, 3, 3)) * 2 + 1
    layer = only(agree(sandwich(Conv(Weight(codes.shape, codes=codes, limits=(-15, 15), scales=0.03), padding=1)), 6, 9, 8).graph)
    assert (layer.spec.weight_bits, layer.spec.gain, layer.spec.weight_offset) == (4, 2, 1)
    np.testing.assert_array_equal(2 * layer.weights + 1, codes.transpose(0, 2, 3, 1))


def test_groups_of_whole_lanes() -> None:
    """As few groups are merged as fill the lanes; what is between them is zero."""
    weight = Weight((32, 4, 1, 1))
    layer = only(agree(sandwich(Conv(weight, groups=4), scale=0.05), 16, 5, 5).graph)
    assert (layer.spec.groups, layer.weights.shape) == (2, (32, 1, 1, 8))
    assert not layer.weights[:8, ..., 4:].any() and not layer.weights[8:16, ..., :4].any()
    assert only(agree(sandwich(Conv(weight, groups=4), scale=0.05), 16, 5, 5, config=SMALL).graph).spec.groups == 4


@pytest.mark.parametrize("plain", [False, True])
def test_bias_without_codes(plain: bool) -> None:
    """A float bias, and none."""
    bias = torch.randn(16, generator=torch.Generator().manual_seed(0)) * 3 if plain else None
    layer = only(agree(sandwich(Conv(Weight((16, 6, 1, 1)), bias)), 6, 5, 5).graph)
    constant = layer.bias + 3 * layer.weights.reshape(16, -1).sum(axis=1)
    np.testing.assert_array_equal(constant, np.rint(bias.numpy().astype(float) / (0.02 * 0.01)) if plain else np.zeros(16))


@pytest.mark.parametrize("plain", [False, True])
def test_bias_of_shifted_channels(plain: bool) -> None:
    """In units of each channel's own scale."""
    units = 0.02 * np.array(SHIFTED)
    bias = torch.tensor(np.arange(16) * 0.1) if plain else Bias(16, units)
    layer = only(agree(sandwich(Conv(Weight((16, 6, 1, 1), scales=SHIFTED), bias.float() if plain else bias), scale=0.03), 6, 5, 5).graph)
    constant = layer.bias + 3 * layer.weights.reshape(16, -1).sum(axis=1)
    np.testing.assert_array_equal(constant, np.rint(np.arange(16) * 0.1 / units) if plain else bias.codes.numpy())


def test_fewer_activation_bits() -> None:
    """A quantizer of 16 codes is a clamp; the input gets a layer that clamps it."""
    imported = agree(
        nn.Sequential(Quant(0.203, 8, low=0, high=15, dtype=torch.uint8), Conv(Weight((16, 6, 1, 1))), Quant(0.0287, 0, low=-8, high=7)),
        6,
        5,
        5,
        share=0.05,
    )
    clamp, layer = imported.graph.layers()
    assert (clamp.spec.low, clamp.spec.high, clamp.spec.out_signed) == (0, 15, False)
    assert (layer.spec.low, layer.spec.high) == (-8, 7)


def test_snapped_scales() -> None:
    """Scales that are no powers of two apart: a warning with the error, weights rounded anew and none clipped."""
    scales = [0.004 * ratio for ratio in (1.0, 0.9, 0.6, 0.3, 0.24, 0.126, 0.5, 0.25)]
    weight = Weight((8, 6, 1, 1), scales=scales)
    model = sandwich(Conv(weight), scale=0.02)
    imported = agree(model, 6, 9, 9, share=0.2)
    layer = only(imported.graph)
    assert layer.shift.tolist() == [0, 0, 0, 1, 2, 2, 1, 2]
    (warning,) = imported.warnings
    assert warning.startswith(
        "1.conv2d: ratios of the channels' weight scales should be powers of two up to 2**15, not 98.4% off at most (the weights were "
    )
    real = weight.codes.numpy()[:, :, 0, 0] * np.array(scales)[:, None]
    stored = layer.weights[:, 0, 0] * (0.004 * 2.0 ** -layer.shift[:, None])
    assert (np.abs(real - stored) <= 0.002 * 2.0 ** -layer.shift[:, None] * 1.0001).all()


def test_scales_of_channels_as_multipliers() -> None:
    scales = [0.004 * ratio for ratio in (1.0, 0.9, 0.6, 0.3, 0.24, 0.126, 0.0001, 0.25)]
    imported = agree(
        sandwich(Conv(Weight((8, 6, 1, 1), scales=scales), Bias(8, 0.02 * np.array(scales))), scale=0.02), 6, 9, 9, config=PER_CHANNEL
    )
    layer = only(imported.graph)
    assert imported.warnings == ()
    factors = layer.multipliers * 2.0 ** -(layer.spec.shift + layer.shift)
    np.testing.assert_allclose(factors, 0.02 * np.array(scales) / 0.02, rtol=2.0**-16)
    assert (layer.multipliers >= 1 << 15).all()


def test_dead_channels() -> None:
    """A channel of zero weights has any scale, and a bias in units of the others'."""
    codes = np.random.default_rng(0).integers(-128, 128, (8, 6, 1, 1))
    codes[3] = 0
    scales = [0.004] * 8
    scales[3] = 1e-12
    imported = agree(sandwich(Conv(Weight(codes.shape, codes=codes, scales=scales), torch.full((8,), 0.7)), scale=0.02), 6, 5, 5)
    layer = only(imported.graph)
    assert (layer.shift.max(), layer.bias[3], imported.warnings) == (0, round(0.7 / (0.02 * 0.004)), ())


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_multiplier_bits(bits: int) -> None:
    share = {8: 0.2, 12: 0.02, 16: 2e-3}[bits]
    layer = only(
        agree(sandwich(Conv(Weight((16, 6, 3, 3), scales=0.004))), 6, 9, 9, config=replace(BASE, multiplier_bits=bits), share=share).graph
    )
    assert 1 << bits - 1 <= layer.spec.multiplier < 1 << bits


def test_without_a_depthwise_engine() -> None:
    """Depthwise convolutions and averages run on the array, in groups of whole lanes."""
    model = nn.Sequential(
        Quant(0.02, 3), Conv(Weight((8, 1, 3, 3)), groups=8, padding=1), nn.ReLU(), Quant(0.05, -128), nn.AvgPool2d(2), Quant(0.0407, -128)
    )
    depthwise, average = agree(model, 8, 6, 6, config=TINY, share=0.02).graph.layers()
    assert (depthwise.spec.kind, depthwise.spec.groups, depthwise.weights.shape) == ("conv", 2, (8, 3, 3, 4))
    assert (average.spec.kind, average.spec.kernel, average.spec.weight_bits) == ("conv", (2, 2), 2)


def test_a_dynamic_batch() -> None:
    model = nn.Sequential(Quant(0.02, 3), Conv(Weight((8, 6, 1, 1))), Quant(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Quant(0.0987))
    program = torch.export.export(model.eval(), (torch.zeros(2, 6, 5, 5),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    graph = import_exported(program, config=BASE).graph
    assert [layer.spec.output for layer in graph.layers()] == [(5, 5, 8), (1, 1, 8)]
