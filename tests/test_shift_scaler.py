"""The shift per channel, from weights to output codes: oracles of the weight equalizing shift scaler that need no data."""

import numpy as np
import pytest

from tercel.sw.numeric import clamp, requantize, saturate
from tercel.sw.quantize import SCHEMES
from tercel.sw.quantize.scheme import channel_ranges, quantized

MULTIPLIER, EXPONENT = 62076, 24
"""0.0037 with 16 bits."""


def layer(*, channels=64, fan_in=256, seed=0, decades=4):
    random = np.random.default_rng(seed)
    weights = random.uniform(-1, 1, (channels, fan_in)) * 10.0 ** random.uniform(-decades, 0, (channels, 1))
    return weights.astype(np.float32).astype(np.float64)


def scales(name, weights, *, bits=8):
    return SCHEMES[name].scales(weights, bits=bits, least=np.zeros(len(weights))).astype(np.float64)


def shifts(chosen):
    return np.log2(chosen.max() / chosen).astype(np.int64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shifted_weights_come_back_bit_for_bit(dtype):
    weights = (layer() / 3).astype(dtype)
    assert np.ldexp(weights, 15).dtype == dtype
    for shift in range(16):
        assert np.array_equal(np.ldexp(np.ldexp(weights, shift), -shift), weights)


def test_shifted_ranges_fill_the_upper_half():
    """``R / 2 < r * 2**n <= R``, equality included: where ranges are exact powers of two, logarithms in floating point go wrong."""
    powers = np.ldexp(1.0, -np.arange(16))
    for ranges in (channel_ranges(layer(seed=3)), powers, powers[:, None] * [1 - 1e-6, 1 + 1e-6] / (1 + 1e-6)):
        weights = ranges.reshape(-1, 1) * np.linspace(-1, 1, 101)
        chosen, largest = scales("shift8", weights), ranges.max()
        shifted = np.ldexp(ranges.reshape(-1), shifts(chosen))
        # Scales are float32, which is nearer to what they stand for than the halves above.
        assert shifted.max() == largest and (shifted <= largest).all() and (shifted > largest / 2 * (1 - 1e-12)).all()
        assert (shifted[shifts(chosen) < 15] > largest / 2).all()
        assert chosen.max() == scales("per_layer", weights)[0]


def test_shifting_weights_or_scales_is_the_same():
    weights = layer()
    chosen = scales("shift8", weights)
    step, shift = chosen.max(), shifts(chosen)[:, None]
    assert np.array_equal(np.round(np.ldexp(weights, shift) / step), np.round(weights / np.ldexp(step, -shift)))
    assert step == pytest.approx(np.abs(weights).max() / 127) and step == pytest.approx(scales("per_layer", weights)[0])


def test_steps_are_within_a_bit_of_channelwise_ones():
    weights = layer(seed=1)
    ratio = scales("shift8", weights) / scales("per_channel", weights)
    assert ratio.min() >= 1 - 1e-6 and ratio.max() < 2


def test_signal_to_noise_of_ranges_four_decades_apart():
    weights, found = layer(seed=2), {}
    for name in ("per_layer", "shift8", "per_channel"):
        rounded = quantized(weights, scales(name, weights)[:, None], bits=8)
        error = np.square(rounded - weights).sum(axis=1)
        found[name] = np.mean(10 * np.log10(np.square(weights).sum(axis=1) / error))
        if name == "per_layer":
            assert (rounded == 0).all(axis=1).sum() > 16
    assert found["per_layer"] < 20 and 43 < found["shift8"] < 47 and 46 < found["per_channel"] < 50


def test_beyond_fifteen_shifts_less_and_less_is_recovered():
    errors = []
    for exponent in range(12, 24):
        weights = np.stack([np.linspace(-1, 1, 101), np.ldexp(np.linspace(-1, 1, 101), -exponent)])
        chosen = scales("shift8", weights)
        assert shifts(chosen)[1] == min(exponent, 15)
        rounded = quantized(weights, chosen[:, None], bits=8)
        errors.append(np.square(rounded[1] - weights[1]).sum() / np.square(weights[1]).sum())
    assert np.allclose(errors[:4], errors[0]) and (np.diff(errors[3:]) > 0).all()


def test_worked_numbers():
    ranges = np.array([1, 0.3, 0.06, 0.0001])
    chosen = scales("shift8", ranges[:, None] * np.linspace(-1, 1, 11))
    assert shifts(chosen).tolist() == [0, 1, 4, 13] and chosen.max() == pytest.approx(1 / 127)
    assert np.ldexp(ranges, shifts(chosen)).tolist() == pytest.approx([1, 0.6, 0.96, 0.8192])
    # 0.0037 with 31 bits, and with the 16 that the machine has.
    assert [round(0.0037 * 2.0**39), round(0.0037 * 2.0**EXPONENT)] == [2034096511, MULTIPLIER]
    wide = requantize(123456, multiplier=2034096511, exponent=39 + np.array([0, 1, 4, 13]))
    assert wide.tolist() == [457, 228, 29, 0]
    found = requantize(123456, multiplier=MULTIPLIER, exponent=EXPONENT + np.array([0, 1, 4, 13]))
    assert found.tolist() == [457, 228, 29, 0]


@pytest.mark.parametrize("shift", range(16))
def test_one_rounding_stays_within_half_a_code(shift):
    sums = np.random.default_rng(shift).integers(-(1 << 28), 1 << 28, 20_000)
    exact = sums * (MULTIPLIER / 2.0**EXPONENT) / 2.0**shift
    assert np.abs(requantize(sums, multiplier=MULTIPLIER, exponent=EXPONENT + shift) - exact).max() <= 0.5


def test_two_roundings_differ():
    sums = np.random.default_rng(0).integers(-(1 << 16), 1 << 16, 100_000)
    once = requantize(sums, multiplier=MULTIPLIER, exponent=EXPONENT + 3)
    twice = requantize(requantize(sums, multiplier=MULTIPLIER, exponent=EXPONENT), multiplier=1, exponent=3)
    assert 0.03 < (once != twice).mean() < 0.1


def outputs(weights, chosen, bias, inputs, *, step_in=0.02, step_out=0.05):
    """Output codes of a layer in integers, 8 bits around 128, one multiplier for all channels."""
    shift = shifts(chosen)
    codes = np.round(weights / chosen[:, None]).astype(np.int64)
    biases = np.round(bias / (step_in * chosen)).astype(np.int64)
    factor = chosen.max() * step_in / step_out
    exponent = 15 - int(np.frexp(factor)[1])
    sums = codes @ inputs + biases[:, None]
    q = requantize(sums, multiplier=round(factor * 2.0**exponent), exponent=exponent + shift[:, None])
    return clamp(saturate(q, zero_point=128), lo=0, hi=255)


def test_layers_of_equal_ranges_are_the_plain_operator():
    weights = layer(channels=8, decades=0)
    weights /= channel_ranges(weights)[:, None]
    inputs = np.random.default_rng(1).integers(0, 256, (256, 50))
    found = [outputs(weights, scales(name, weights), np.linspace(-1, 1, 8), inputs) for name in ("shift8", "per_layer")]
    assert not shifts(scales("shift8", weights)).any() and np.array_equal(*found)


def test_a_bias_alone_is_its_own_code_for_every_shift():
    weights = np.ldexp(np.ones((16, 4)), -np.arange(16)[:, None])
    bias = np.linspace(-5, 5, 16)
    chosen = scales("shift8", weights)
    assert shifts(chosen).tolist() == list(range(16))
    found = outputs(weights, chosen, bias, np.zeros((4, 1), dtype=np.int64))[:, 0]
    assert np.abs(found - (bias / 0.05 + 128)).max() <= 0.51


def test_depthwise_channels_survive():
    """A depthwise layer of ranges 3 decades apart: with one scale the small channels' outputs are lost, with shifts they are not."""
    weights = layer(channels=32, fan_in=9, decades=3, seed=5)
    inputs = np.random.default_rng(6).normal(size=(9, 400))
    exact = weights @ inputs
    error = {}
    for name in ("per_layer", "shift8"):
        rounded = quantized(weights, scales(name, weights)[:, None], bits=8)
        error[name] = np.sqrt(np.square(rounded @ inputs - exact).sum(axis=1) / np.square(exact).sum(axis=1))
    small = channel_ranges(weights) < 0.005 * channel_ranges(weights).max()
    assert small.sum() > 3 and error["per_layer"][small].mean() > 0.5 and error["shift8"][small].max() < 0.02
