"""The ternary operators as weight scale schemes: magnitudes on powers of two, codes by thresholds, wider layers."""

from dataclasses import replace

import numpy as np
import pytest

from tercel.sw.quantize import SCHEMES, quantize
from tercel.sw.quantize.ternary import ternarize
from tercel.sw.quantize.ternary_scheme import TernaryScheme, nearest_shifts

NAMES = [name for name, scheme in SCHEMES.items() if isinstance(scheme, TernaryScheme)]
ROOT = 2**0.5


def layer(*, channels=48, fan_in=27, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(channels, fan_in)) * 10.0 ** random.uniform(-2, 0, size=(channels, 1))


def made(name, weights, *, bits=2, least=None):
    scheme = SCHEMES[name]
    scales = scheme.scales(weights, bits=bits, least=np.zeros(len(weights)) if least is None else least)
    return scales, scheme.rounded(weights, scales, bits=bits)


def operator(name, weights):
    scheme = SCHEMES[name]
    return ternarize(
        weights, operator=scheme.operator, mode=scheme.mode, per_channel=scheme.granularity != "layer", magnitude=scheme.magnitude
    )


def test_every_operator_has_three_granularities():
    assert len(NAMES) == 16
    assert [name for name in NAMES if SCHEMES[name].magnitude == "least_squares"] == [name for name in NAMES if name.endswith("_fitted")]
    assert {SCHEMES[name].granularity for name in NAMES if name.endswith("_per_channel")} == {"channel"}
    assert {SCHEMES[name].granularity for name in NAMES if name.endswith("_per_layer")} == {"layer"}


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_the_operators_and_scales_near_them(name):
    weights = layer()
    scales, rounded = made(name, weights)
    expected = operator(name, weights)
    assert np.array_equal(np.round(rounded / scales[:, None].astype(float)), expected.codes)
    ratio = scales / expected.scales
    if SCHEMES[name].granularity == "shift":
        # Within half an octave, and a sixteenth more for the layer scales that are tried.
        assert ratio.max() <= ROOT * 2**0.0625 and ratio.min() >= 1 / (ROOT * 2**0.0625) and len(np.unique(scales)) < 10
    else:
        assert np.allclose(ratio, 1, rtol=1e-6) and (len(np.unique(scales)) == 1) == (SCHEMES[name].granularity == "layer")


@pytest.mark.parametrize("name", NAMES)
def test_a_bias_that_needs_a_larger_scale_leaves_the_codes(name):
    weights = layer()
    least = np.where(np.arange(48) % 3 == 0, 0.3, 0.0)
    scales, rounded = made(name, weights, least=least)
    assert (scales.astype(float) >= least).all()
    assert np.array_equal(np.sign(rounded), operator(name, weights).codes)


@pytest.mark.parametrize(
    ("name", "plain"), [("tquant", "shift8"), ("mquant_per_layer", "per_layer"), ("mquant_per_channel", "per_channel")]
)
def test_wider_layers_take_the_ordinary_scheme(name, plain):
    weights = layer()
    for bits in (3, 8):
        for found, expected in zip(made(name, weights, bits=bits), made(plain, weights, bits=bits), strict=True):
            assert np.array_equal(found, expected)


def test_nearest_shifts():
    scale, shifts = nearest_shifts(np.array([1.0, 0.5, 0.0, 0.125]))
    assert shifts.tolist() == [0, 1, 0, 3] and abs(np.log2(scale)) <= 1 / 16
    scale, shifts = nearest_shifts(np.array([1.0, 0.7, 0.7, 0.35, 0.7]))  # four of five agree on 0.7
    assert np.ldexp(scale, -shifts[1:]).tolist() == pytest.approx([0.7, 0.7, 0.35, 0.7], rel=0.05)
    assert nearest_shifts(np.array([1.0, 1e-9]))[1].tolist() == [0, 15]
    assert nearest_shifts(np.zeros(2))[1].tolist() == [0, 0]


def test_a_scheme_of_ones_own_fits_the_scale():
    weights = layer(fan_in=300)
    fitted = replace(SCHEMES["tquant_per_channel"], name="mine", magnitude="least_squares")
    scales = fitted.scales(weights, bits=2, least=np.zeros(48))
    error = np.square(fitted.rounded(weights, scales, bits=2) - weights).sum()
    assert error < np.square(made("tquant_per_channel", weights)[1] - weights).sum()


@pytest.mark.parametrize("name", ["mquant_tertiles", "tquant_per_layer"])
def test_the_codes_of_the_program(name):
    torch = pytest.importorskip("torch")
    from small_torch_networks import calls, constants, pictures

    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 8, 3)
    expected = operator(name, model.weight.detach().double().reshape(8, -1).numpy()).codes.reshape(8, 3, 3, 3)
    for corrected in (False, True):
        program = quantize(model, calibration=pictures(2), scheme=name, bias_correction=corrected, rounding="nearest")
        codes = constants(program, calls(program, "conv2d.default")[0].args[1])[0]
        assert np.array_equal(codes.numpy(), expected)
