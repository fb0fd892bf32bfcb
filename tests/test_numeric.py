"""The numeric contract against the same formulas on Python's unbounded integers."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercel.sw import numeric

DIGITS = {"radix4": {0: 0, 1: 1, 2: -2, 3: -1}, "ternary": {0: 0, 1: 1, 2: 0, 3: -1}}


def signed(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)


def unsigned(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


@pytest.mark.parametrize(("digits", "constant"), [(1, 0), (2, 2), (3, 10), (4, 42)])
def test_every_code_is_its_digits_plus_the_constant(digits: int, constant: int) -> None:
    """Exhaustive, for every number of planes."""
    codes = np.arange(-(1 << 2 * digits - 1), 1 << 2 * digits - 1)
    fields = numeric.encode_digits(codes, digits=digits)
    assert fields.shape == (digits, len(codes))
    assert fields.dtype == np.uint8
    assert fields.max() < 4
    assert numeric.digit_offset(digits) == constant
    for position, code in enumerate(codes.tolist()):
        planes = [DIGITS["radix4"][int(field)] for field in fields[:, position]]
        assert sum(4**i * digit for i, digit in enumerate(reversed(planes))) + constant == code
    values = numeric.digit_value(fields, "radix4").astype(int)
    assert np.array_equal(sum(4 ** (digits - 1 - i) * plane for i, plane in enumerate(values)) + constant, codes)


@pytest.mark.parametrize("digit_set", ["radix4", "ternary"])
def test_digit_values(digit_set: str) -> None:
    """Any shape of fields."""
    values = numeric.digit_value(np.arange(4, dtype=np.uint8).reshape(2, 2), digit_set)
    assert values.tolist() == [[DIGITS[digit_set][0], DIGITS[digit_set][1]], [DIGITS[digit_set][2], DIGITS[digit_set][3]]]


def test_ternary_codes() -> None:
    """One plane, never -2."""
    fields = numeric.encode_digits([-1, 0, 1], digits=1, digit_set="ternary")
    assert numeric.digit_value(fields, "ternary").tolist() == [[-1, 0, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codes": [-3], "digits": 1}, "codes must be in -2..1, not -3..-3 (1 radix4 digits a weight)"),
        ({"codes": [0, 128], "digits": 4}, "codes must be in -128..127, not 0..128 (4 radix4 digits a weight)"),
        ({"codes": [-2], "digits": 1, "digit_set": "ternary"}, "codes must be in -1..1, not -2..-2 (1 ternary digits a weight)"),
        ({"codes": [0], "digits": 5}, "digits must be in 1..4, not 5 (one digit holds 2 bits of a weight)"),
        ({"codes": [0], "digits": 2, "digit_set": "ternary"}, "digits must be 1, not 2 (a ternary machine has no other planes)"),
    ],
)
def test_codes_that_do_not_fit(arguments: dict, message: str) -> None:
    """The message names the limit and the way out."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        numeric.encode_digits(**arguments)


@given(st.integers(1, 4), st.sampled_from([1, 2]), st.integers(-255, 255), st.lists(st.tuples(signed(2), signed(9)), min_size=1))
def test_sum_factor_restores_the_weights(digits: int, gain: int, offset: int, pairs: list[tuple[int, int]]) -> None:
    """Digits and the sum of activations together make the product with g*d + h."""
    codes, acts = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    planes = numeric.digit_value(numeric.encode_digits(codes, digits=digits), "radix4").astype(int)
    acc = sum(4 ** (digits - 1 - i) * int(plane @ np.array(acts)) for i, plane in enumerate(planes))
    factor = numeric.sum_factor(digits=digits, gain=gain, offset=offset)
    assert gain * acc + factor * sum(acts) == sum((gain * d + offset) * a for d, a in pairs)


@given(signed(62), st.sampled_from([8, 18, 32]))
def test_wrap(value: int, bits: int) -> None:
    """Congruent and in range."""
    wrapped = int(numeric.wrap(value, bits=bits))
    assert (wrapped - value) % (1 << bits) == 0
    assert -(1 << bits - 1) <= wrapped < 1 << bits - 1


@given(
    requantizer=st.tuples(signed(32), unsigned(16), st.integers(1, 48), unsigned(4)),
    added=st.tuples(st.integers(-128, 255), signed(9), unsigned(16), unsigned(5)),
    output=st.tuples(signed(9), signed(9), signed(9)),
)
def test_requantize_with_residual(requantizer: tuple[int, ...], added: tuple[int, ...], output: tuple[int, ...]) -> None:
    """Each step of the drain on its own and all together."""
    v, multiplier, shift, channel_shift = requantizer
    code, z_res, res_multiplier, res_shift = added
    z_out, lo, hi = output
    e = shift + channel_shift
    residual = (code - z_res) * res_multiplier * 2 ** min(res_shift + channel_shift, 31)
    expected_q = (v * multiplier + residual + 2 ** (e - 1)) // 2**e
    expected_p = min(max(expected_q + z_out, -32768), 32767)

    term = numeric.residual_term(
        code, zero_point=z_res, multiplier=res_multiplier, shift=res_shift, channel_shift=np.array([channel_shift])
    )
    q = numeric.requantize(v, multiplier=multiplier, exponent=e, residual=term)
    p = numeric.saturate(q, zero_point=z_out)
    y = numeric.clamp(p, lo=lo, hi=hi)
    assert (term.tolist(), q.tolist(), p.tolist()) == ([residual], [expected_q], [expected_p])
    assert y.tolist() == [min(max(expected_p, lo), hi)]
    assert numeric.code_byte(y).tolist() == [min(max(expected_p, lo), hi) % 256]


@pytest.mark.parametrize("v", [-(1 << 31), (1 << 31) - 1])
@pytest.mark.parametrize("residual", [-511 * 65535 << 31, 511 * 65535 << 31])
@pytest.mark.parametrize("exponent", [1, 62])
def test_requantize_at_the_ends_of_its_range(v: int, residual: int, exponent: int) -> None:
    """No intermediate value leaves int64."""
    q = numeric.requantize(v, multiplier=65535, exponent=exponent, residual=residual)
    assert int(q) == (v * 65535 + residual + 2 ** (exponent - 1)) // 2**exponent


def test_half_rounds_up() -> None:
    """Also below zero."""
    assert numeric.requantize([-3, -1, 1, 3], multiplier=1, exponent=1).tolist() == [-1, 0, 1, 2]


def test_requantize_per_channel() -> None:
    """Multipliers and exponents broadcast over pixels."""
    value = np.array([[100, -100, 7], [3, 4, 5]])
    multiplier, exponent = np.array([3, 5, 65535]), np.array([1, 3, 20])
    expected = [
        [(v * m + 2 ** (e - 1)) // 2**e for v, m, e in zip(row, multiplier.tolist(), exponent.tolist(), strict=True)]
        for row in value.tolist()
    ]
    assert numeric.requantize(value, multiplier=multiplier, exponent=exponent).tolist() == expected


@given(st.lists(signed(16), min_size=1, max_size=6), st.lists(signed(16), max_size=15), st.booleans())
def test_thresholds(values: list[int], thresholds: list[int], shared: bool) -> None:
    """Strictly above, whatever their order."""
    table = [thresholds] if shared else [[t + channel for t in thresholds] for channel in range(len(values))]
    expected = [sum(p > t for t in table[0 if shared else channel]) for channel, p in enumerate(values)]
    assert numeric.count_thresholds([values], np.array(table).reshape(len(table), -1)).tolist() == [expected]
