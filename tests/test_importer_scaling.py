"""Scale factors as multipliers and shifts: nearest, normalised, in range, with the residual in step."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tercel.hw.config import exponents
from tercel.sw.importer.report import Rejection
from tercel.sw.importer.scaling import channel_numbers, channel_shifts, normalise, shared_numbers
from tercel.sw.importer.weights import Weights, merged_groups

factors = st.floats(2.0**-30, 2.0**10)


@given(factors, st.integers(8, 16))
@example(255.5, 9)
@example(255.75, 9)
def test_normalised(factor: float, bits: int) -> None:
    """Half a step below the next power rounds up to it."""
    least, most = max(1, exponents(bits).start), exponents(bits)[-1]
    if factor >= 2.0 ** (bits - least) * (1 - 2.0 ** -(bits + 1)):
        with pytest.raises(Rejection, match=r"input scale \* weight scale / output scale must be below"):
            normalise(factor, bits=bits)
        return
    multiplier, shift = normalise(factor, bits=bits)
    assert multiplier < 1 << bits
    assert least <= shift <= most
    if shift < most:
        assert multiplier >= 1 << bits - 1
        assert abs(multiplier / 2**shift / factor - 1) <= 2.0**-bits
    else:
        assert abs(multiplier - factor * 2**shift) <= 0.5 or multiplier == 1


def test_tiny_factors_keep_what_the_shift_allows() -> None:
    assert normalise(2.0**-31 * 1.5, bits=16) == (384, 39)
    assert normalise(2.0**-31 * 1.5, bits=16, channel_shift=3) == (48, 36)
    assert normalise(2.0**-60, bits=16) == (1, 39)


def test_rounding_up_to_the_next_power() -> None:
    """0.99999 would be 65536 of 16 bits."""
    assert normalise(0.999999, bits=16) == (32768, 15)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20))
def test_shifts_never_clip(scales: list[float]) -> None:
    """A channel's new scale is not smaller than its own, and less than twice as large unless it is out of reach."""
    values = np.array(scales)
    base, shifts, change = channel_shifts(values, np.ones(len(values), dtype=bool))
    new = base * np.exp2(-shifts)
    assert base == values.max()
    assert (new >= values * (1 - 2e-6)).all()
    assert ((new < 2 * values) | (shifts == 15)).all()
    assert change == pytest.approx(np.abs(new / values - 1).max() if np.abs(new / values - 1).max() > 1e-6 else 0.0)


def test_exact_powers_stay() -> None:
    octaves = np.array([0, 3, 15, 7])
    base, shifts, change = channel_shifts(np.float32(0.0123) * np.exp2(-octaves).astype(np.float32), np.ones(4, dtype=bool))
    assert (base, shifts.tolist(), change) == (pytest.approx(0.0123), octaves.tolist(), 0.0)


def test_dead_channels_have_no_say() -> None:
    base, shifts, change = channel_shifts(np.array([9.0, 0.5, 0.25]), np.array([False, True, True]))
    assert (base, shifts.tolist(), change) == (0.5, [0, 0, 1], 0.0)


@given(st.lists(st.floats(1e-5, 0.5), min_size=1, max_size=20), st.integers(8, 16))
def test_multipliers_of_channels(values: list[float], bits: int) -> None:
    numbers = channel_numbers(np.array(values), bits=bits)
    real = numbers.multipliers / np.exp2(numbers.shift + numbers.channel_shift)
    reachable = np.array(values) * 2.0 ** (numbers.shift + 15) >= 1 << bits - 1
    assert (np.abs(real / values - 1)[reachable] <= 2.0**-bits).all()
    assert (numbers.multipliers < 1 << bits).all()
    assert (numbers.multipliers[reachable] >= 1 << bits - 1).all()


@given(st.floats(1e-3, 0.9), st.floats(1e-3, 4.0), st.lists(st.integers(0, 15), min_size=1, max_size=4))
def test_residuals(factor: float, residual: float, shifts: list[int]) -> None:
    """Both factors to 2**-9 or better, and never a shift that the machine cuts off."""
    numbers = shared_numbers(factor, np.array(shifts), bits=16, residual=residual)
    assert 1 <= numbers.res_multiplier <= 65535
    assert numbers.res_shift >= 0 and numbers.res_shift + max(shifts) <= 31
    assert abs(numbers.multiplier / 2**numbers.shift / factor - 1) < 2.0**-9
    real = numbers.res_multiplier * 2.0 ** (numbers.res_shift - numbers.shift)
    assert abs(real / residual - 1) < 2.0**-5


def test_residual_out_of_reach() -> None:
    with pytest.raises(Rejection, match="residual scale / output scale must be within"):
        shared_numbers(1e-9, np.array([15]), bits=16, residual=1e6)


@given(st.lists(st.integers(-2, 1), min_size=1, max_size=6), st.sampled_from([(1, 0), (2, 1), (1, -30)]))
def test_quadrupled_weights_are_the_same_in_smaller_units(codes: list[int], grid: tuple[int, int]) -> None:
    gain, offset = grid
    weights = Weights(codes=np.array([codes]).T, scales=np.full(len(codes), 0.375), bits=2, gain=gain, offset=offset)
    finer = weights.quadrupled()
    assert finer.bits == 4 and finer.codes.min() >= -8 and finer.codes.max() <= 7
    assert (finer.values * finer.scales[:, None] == weights.values * weights.scales[:, None]).all()


@given(st.sampled_from([1, 2, 3, 4, 6, 12, 24]), st.integers(1, 4), st.integers(1, 4), st.sampled_from([2, 4, 8]))
def test_merged_groups_compute_the_same(groups: int, inputs: int, outputs: int, lanes: int) -> None:
    random = np.random.default_rng(groups)
    codes = random.integers(-8, 8, (groups * outputs, inputs, 1, 1))
    weights = Weights(codes=codes, scales=np.ones(len(codes)), bits=4)
    merged, left = merged_groups(weights, groups=groups, lanes=lanes)
    x = random.integers(-9, 9, groups * inputs)
    expected = np.concatenate([codes[g * outputs : (g + 1) * outputs, :, 0, 0] @ x[g * inputs : (g + 1) * inputs] for g in range(groups)])
    rows, columns = len(codes) // left, len(x) // left
    got = np.concatenate([merged.codes[g * rows : (g + 1) * rows, :, 0, 0] @ x[g * columns : (g + 1) * columns] for g in range(left)])
    np.testing.assert_array_equal(got, expected)
    assert left == 1 or (columns % lanes == 0 and rows % lanes == 0)
