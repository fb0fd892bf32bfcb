"""Weight scale schemes: oracles that need no data, edges, and the named schemes."""

import numpy as np
import pytest

from tercel.sw.quantize import SCHEMES, QuantizeError
from tercel.sw.quantize.bit_widths import assign_bits, check_bits
from tercel.sw.quantize.scheme import PerChannel, channel_ranges, floor_log2, largest_code, quantized
from tercel.sw.quantize.schemes import find_scheme

TERNARY = ["ternary_naive", "tquant", "mquant", "mquant_tertiles"]
SHIFTED = ["shift8", "shift_round", "shift_signed", "shift_search", "ternary", *TERNARY]
NONE = np.zeros(1)


def layer(ranges, *, fan_in=9, seed=0):
    """Weights whose channels have exactly the given ranges."""
    weights = np.random.default_rng(seed).uniform(-1, 1, (len(ranges), fan_in))
    return weights / np.abs(weights).max(axis=1, keepdims=True) * np.asarray(ranges, dtype=float)[:, None]


def scales(name, weights, *, bits=8, least=None):
    return SCHEMES[name].scales(weights, bits=bits, least=np.zeros(len(weights)) if least is None else least)


def shifts(chosen):
    return np.log2(chosen.max() / chosen.astype(np.float64))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("name", SHIFTED)
def test_shifted_scales_are_exact_powers_of_two_apart(name, bits):
    chosen = scales(name, layer(10.0 ** np.random.default_rng(1).uniform(-4, 0, 64)), bits=bits)
    assert chosen.dtype == np.float32
    found = shifts(chosen)
    assert np.array_equal(found, np.round(found)) and found.min() == 0 and found.max() <= 15
    assert np.array_equal(np.ldexp(chosen, found.astype(int)), np.full(64, chosen.max()))


def test_rule_a_worked_numbers():
    chosen = scales("shift8", layer([1, 0.3, 0.06, 0.0001]))
    assert shifts(chosen).tolist() == [0, 1, 4, 13]
    assert chosen[0] == pytest.approx(1 / 127, rel=1e-6)


def test_rule_a_fills_at_least_half_the_range_and_never_clips():
    ranges = 10.0 ** np.random.default_rng(2).uniform(-4, 0, 200)
    weights = layer(ranges)
    codes = np.round(weights / scales("shift8", weights)[:, None])
    largest = np.abs(codes).max(axis=1)
    assert largest.max() == 127 and largest.min() >= 63


def test_rule_a_is_exact_at_powers_of_two():
    assert shifts(scales("shift8", layer([1.0, 0.5, 0.25, 2.0**-15, 2.0**-16]))).tolist() == [0, 1, 2, 15, 15]
    third = 1 / 3
    assert shifts(scales("shift8", layer([third, third / 2, np.nextafter(third / 2, 1)]))).tolist() == [0, 1, 0]


def test_equal_ranges_reproduce_the_plain_layer_operator():
    weights = layer([0.7] * 8)
    for name in ("shift8", "shift_round", "shift_signed", "per_channel"):
        assert np.array_equal(scales(name, weights), scales("per_layer", weights))


def test_rule_b_takes_the_nearest_power():
    chosen = scales("shift_round", layer([1, 0.3, 0.8]))
    assert shifts(chosen).tolist() == [0, 2, 0]
    assert chosen[0] == pytest.approx(1.2 / 127, rel=1e-6)


def test_rule_c_looks_from_the_median_channel():
    chosen = scales("shift_signed", layer([1000.0, 1.0, 1.0, 1.0, 0.001]))
    assert shifts(chosen).tolist() == [0, 8, 8, 8, 15]


def test_rule_d_errs_no_more_than_rule_a():
    weights = layer(10.0 ** np.random.default_rng(3).uniform(-3, 0, 64), fan_in=64)
    weights *= np.random.default_rng(4).uniform(0, 1, weights.shape) ** 2
    error = {}
    for name in ("shift8", "shift_search"):
        rounded = quantized(weights, scales(name, weights, bits=4)[:, None].astype(float), bits=4)
        error[name] = (np.square(rounded - weights).sum(axis=1) / np.square(weights).sum(axis=1)).sum()
    assert error["shift_search"] < error["shift8"]


def test_resolution_against_layerwise_and_channelwise():
    weights = layer(10.0 ** np.random.default_rng(5).uniform(-4, 0, 64), fan_in=256)
    gain = {}
    for name in ("per_layer", "shift8", "per_channel"):
        error = quantized(weights, scales(name, weights)[:, None].astype(float), bits=8) - weights
        gain[name] = np.mean(10 * np.log10(np.square(weights).sum(axis=1) / np.maximum(np.square(error).sum(axis=1), 1e-30)))
    assert gain["per_layer"] < 20 and 40 < gain["shift8"] < gain["per_channel"] < gain["shift8"] + 6.03


@pytest.mark.parametrize("name", SCHEMES)
def test_scales_keep_to_their_least(name):
    weights = layer([1.0, 0.1, 1e-6, 0.0])
    least = np.array([0.0, 1e-3, 1e-3, 0.5])
    chosen = scales(name, weights, least=least)
    assert (chosen.astype(np.float64) >= least).all()
    if name in SHIFTED:
        found = shifts(chosen)
        assert np.array_equal(found, np.round(found))


@pytest.mark.parametrize("name", SCHEMES)
def test_a_layer_of_zeros_has_ordinary_scales(name):
    chosen = scales(name, np.zeros((3, 4)))
    assert (chosen > 0).all() and np.isfinite(1 / chosen).all()


@pytest.mark.parametrize("name", SHIFTED)
def test_dead_channels_are_not_shifted(name):
    chosen = scales(name, layer([1.0, 0.0, 0.25]))
    assert chosen[1] == chosen.max()


def test_ternary_grid_uses_all_three_codes():
    weights = np.random.default_rng(6).normal(size=(16, 144)) * np.random.default_rng(7).uniform(0.1, 1, (16, 1))
    chosen = scales("ternary", weights, bits=2)[:, None].astype(float)
    codes = np.round(quantized(weights, chosen, bits=2) / chosen)
    assert set(np.unique(codes)) == {-1.0, 0.0, 1.0}
    density = (codes != 0).mean()
    assert 0.3 < density < 0.75


def test_a_gain_leaves_powers_of_two():
    chosen = scales("shift8", layer([1.0, 0.5, 0.3, 2.0**-15]))
    gained = SCHEMES["shift8"].with_gain(chosen, 1.0123)
    assert (gained / gained[0] == chosen / chosen[0]).all() and gained[0] == pytest.approx(1.0123 * chosen[0])


def test_numbers():
    assert [largest_code(bits) for bits in (2, 3, 4, 8)] == [1, 3, 7, 127]
    assert floor_log2(np.array([1.0, 0.999, 2.0, 3.9, 0.0])).tolist() == [0, -1, 1, 1, 0]
    assert channel_ranges(np.array([[1.0, -3.0], [0.0, 0.0]])).tolist() == [3.0, 0.0]


def test_scheme_by_name_or_of_your_own():
    assert find_scheme("shift8") is SCHEMES["shift8"] and SCHEMES["shift8"].bits == 8 and SCHEMES["ternary"].bits == 2
    own = PerChannel(name="mine", summary="")
    assert find_scheme(own) is own
    with pytest.raises(QuantizeError, match=r"^scheme must be one of per_layer, shift8, .*, ternary, .*, not 'shift9' \(or a Scheme .*\)$"):
        find_scheme("shift9")


@pytest.mark.parametrize("bits", [1, 9, 0, 8.0, True])
def test_bits_out_of_range(bits):
    with pytest.raises(QuantizeError, match=rf"^bits must be a whole number in 2..8, not {bits!r} \(2 bits are -1, 0, 1\)$"):
        check_bits(bits)
    with pytest.raises(QuantizeError, match=r"^bits\['a\*'\] must be"):
        check_bits({"a*": bits})


def test_bits_by_pattern():
    names = ["features.0.0", "features.1.conv", "features.18.0", "classifier.1"]
    assert assign_bits(check_bits({"*": 8, "features.1*": 4, "features.18.*": 6}), names, default=8) == [8, 4, 6, 8]
    assert assign_bits(check_bits(None), names, default=2) == [2] * 4
    assert assign_bits(check_bits(3), names, default=8) == [3] * 4
    with pytest.raises(
        QuantizeError,
        match=r"^bits\['feature.\*'\] must match a layer with weights, but matches none of 4 \(features.0.0, .*, classifier.1\)$",
    ):
        assign_bits({"feature.*": 4}, names, default=8)
