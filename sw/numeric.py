"""The numeric contract: every rounding, wrap and clamp between an activation code and the next one, on NumPy arrays.

::

    weight code d --encode_digits--> 2-bit fields, top plane first --digit_value--> digits; d = sum of digits * 4**i + digit_offset
    sum --wrap--> v --requantize--> q --saturate--> p --clamp or count_thresholds--> y --code_byte--> stored byte

All arithmetic is in int64, where every intermediate value of the machine fits: ``v * M`` has 48 bits, a residual term 57.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from tercel.hw.config import exponents

Integers = npt.NDArray[np.int64]
DigitSet = Literal["radix4", "ternary"]

MAX_DIGITS = 4
_DIGIT_OFFSETS = (0, 2, 10, 42)
_DIGITS: dict[DigitSet, npt.NDArray[np.int8]] = {
    "radix4": np.array([0, 1, -2, -1], dtype=np.int8),
    "ternary": np.array([0, 1, 0, -1], dtype=np.int8),
}


def digit_offset(digits: int) -> int:
    """The constant c that ``digits`` planes (1..4) lose: 0, 2, 10, 42."""
    if not 1 <= digits <= MAX_DIGITS:
        raise ValueError(f"digits must be in 1..{MAX_DIGITS}, not {digits} (one digit holds 2 bits of a weight)")
    return _DIGIT_OFFSETS[digits - 1]


def sum_factor(*, digits: int, gain: int, offset: int) -> int:
    """The factor g*c + h of the sum of activations in a layer of weights ``gain`` * d + ``offset``."""
    return gain * digit_offset(digits) + offset


def encode_digits(codes: npt.ArrayLike, *, digits: int, digit_set: DigitSet = "radix4") -> npt.NDArray[np.uint8]:
    """2-bit digit fields of weight codes.

    Parameters
    ----------
    codes
        Whole numbers of ``2 * digits`` bits, two's complement; -1..1 for a ternary machine. Any shape.
    digits
        Planes, 1..4 (1 for a ternary machine).
    digit_set
        The machine's digits.

    Returns
    -------
    uint8 of shape ``[digits, *codes.shape]``, the top plane first, values 0..3.
    """
    values = np.asarray(codes, dtype=np.int64)
    half = 1 << 2 * digits - 1
    low, high = (-1, 1) if digit_set == "ternary" else (-half, half - 1)
    digit_offset(digits)
    if digit_set == "ternary" and digits != 1:
        raise ValueError(f"digits must be 1, not {digits} (a ternary machine has no other planes)")
    if values.size and (values.min() < low or values.max() > high):
        raise ValueError(f"codes must be in {low}..{high}, not {values.min()}..{values.max()} ({digits} {digit_set} digits a weight)")
    shifted = values + half
    # u's base-4 digit minus 2, as a 2-bit two's complement number, is the digit with its upper bit inverted.
    return np.stack([(shifted >> 2 * plane & 3 ^ 2).astype(np.uint8) for plane in reversed(range(digits))])


def digit_value(field: npt.NDArray[np.uint8], digit_set: DigitSet) -> npt.NDArray[np.int8]:
    """What a 2-bit field multiplies by: 0, 1, -2, -1, or 0, 1, 0, -1 on a ternary machine."""
    return _DIGITS[digit_set][field]


def wrap(value: npt.ArrayLike, *, bits: int) -> Integers:
    """``value`` modulo ``2**bits``, signed: the content of a register of ``bits`` bits (1..62)."""
    half = np.int64(1 << bits - 1)
    return ((np.asarray(value, dtype=np.int64) + half) & np.int64((1 << bits) - 1)) - half


def residual_term(code: npt.ArrayLike, *, zero_point: int, multiplier: int, shift: int, channel_shift: npt.ArrayLike) -> Integers:
    """``(r - z_res) * R << min(res_shift + s, 31)``; at most 57 bits for r of 9 bits, z_res of 9 and R of 16."""
    amount = np.minimum(np.asarray(channel_shift, dtype=np.int64) + shift, 31)
    return ((np.asarray(code, dtype=np.int64) - zero_point) * multiplier) << amount


def total_shift(shift: int, channel_shift: npt.ArrayLike, *, multiplier_bits: int, narrow: bool = False) -> Integers:
    """The total shift e = E + s as a machine takes it: modulo the number of its :func:`~tercel.hw.config.exponents`, in their range."""
    window = exponents(multiplier_bits, narrow=narrow)
    return window.start + (np.asarray(channel_shift, dtype=np.int64) + shift - window.start) % len(window)


def requantize(value: npt.ArrayLike, *, multiplier: npt.ArrayLike, exponent: npt.ArrayLike, residual: npt.ArrayLike = 0) -> Integers:
    """``floor((v*M + residual + 2**(e-1)) / 2**e)``: one rounding, half up.

    ``value`` is signed of up to 32 bits, ``multiplier`` unsigned of up to 16, ``exponent`` in 0..62 (0 rounds nothing), ``residual`` signed
    of up to 58 bits; they broadcast against each other.
    """
    e = np.asarray(exponent, dtype=np.int64)
    total = np.asarray(value, dtype=np.int64) * np.asarray(multiplier, dtype=np.int64)
    total = total + np.asarray(residual, dtype=np.int64)
    return (total + (np.left_shift(np.int64(1), e) >> 1)) >> e


def saturate(q: npt.ArrayLike, *, zero_point: int) -> Integers:
    """``min(max(q + z_out, -32768), 32767)``: the value that thresholds and clamp see."""
    return np.clip(np.asarray(q, dtype=np.int64) + zero_point, -32768, 32767)


def clamp(p: npt.ArrayLike, *, lo: int, hi: int) -> Integers:
    """``min(max(p, lo), hi)``; ``hi`` where ``lo > hi``."""
    return np.minimum(np.maximum(np.asarray(p, dtype=np.int64), lo), hi)


def count_thresholds(p: npt.ArrayLike, thresholds: npt.ArrayLike) -> Integers:
    """Number of thresholds below ``p``: ``p`` is ``[..., channels]``, ``thresholds`` ``[channels or 1, count]`` in any order."""
    values = np.asarray(p, dtype=np.int64)
    table = np.asarray(thresholds, dtype=np.int64)
    count = np.zeros(values.shape, dtype=np.int64)
    for column in table.T:
        count += values > column
    return count


def code_byte(y: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """The low 8 bits of ``y``, as stored."""
    return (np.asarray(y, dtype=np.int64) & 0xFF).astype(np.uint8)
