"""Real scale factors as the machine's whole numbers: multipliers, shifts of a layer and of its channels, residual scales."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tercel.hw.config import exponents, unit_exponent
from tercel.sw.importer.report import Rejection
from tercel.sw.layer_spec import Integers

Reals = npt.NDArray[np.float64]
MAX_CHANNEL_SHIFT = 15
_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What a layer's requantization holds: ``(multiplier or multipliers) / 2**(shift + channel_shift)`` for each channel.

    ``multipliers`` is empty where one serves all channels. The residual's factor is ``res_multiplier * 2**res_shift / 2**shift``.
    """

    multiplier: int
    multipliers: Integers
    shift: int
    channel_shift: Integers
    res_multiplier: int = 0
    res_shift: int = 0


def normalise(factor: float, *, bits: int, channel_shift: int = 0) -> tuple[int, int]:
    """M of ``bits`` bits and E with ``M / 2**E`` nearest to ``factor``, and E + ``channel_shift`` a shift that the machine has.

    M has its top bit set, unless E is the largest possible.
    """
    mantissa, exponent = np.frexp(factor)
    multiplier, shift = round(float(mantissa) * 2**bits), bits - int(exponent)
    if multiplier == 1 << bits:
        multiplier, shift = multiplier >> 1, shift - 1
    least, most = unit_exponent(bits), exponents(bits)[-1] - channel_shift
    if shift < least:
        raise Rejection(
            "input scale * weight scale / output scale", f"below 2**{bits - least}", f"{factor:.6g}", "calibrate the output's range"
        )
    if shift > most:
        multiplier, shift = max(1, round(factor * 2.0**most)), most
    return multiplier, shift


def channel_shifts(scales: Reals, live: npt.NDArray[np.bool_]) -> tuple[float, Integers, float]:
    """Scales of channels as ``base * 2**-shift``.

    Parameters
    ----------
    scales
        One a channel.
    live
        Channels with a weight that is not zero; the scale of the others means nothing, and their shift is 0.

    Returns
    -------
    The largest live scale; shifts in 0..15, rounded down, so that no scale becomes smaller and no weight is clipped; and the largest
    relative change of a live scale, 0 where all ratios are powers of two to within 1e-6.
    """
    if not live.any():
        return float(scales.max()), np.zeros(len(scales), dtype=np.int64), 0.0
    base = float(scales[live].max())
    octaves = np.where(live, np.log2(base / np.where(live, scales, base)), 0.0)
    shifts = np.clip(np.floor(octaves + _TOLERANCE), 0, MAX_CHANNEL_SHIFT).astype(np.int64)
    change = float(np.abs(base * np.exp2(-shifts)[live] / scales[live] - 1).max())
    return base, shifts, change if change > _TOLERANCE else 0.0


def shared_numbers(factor: float, shifts: Integers, *, bits: int, residual: float | None = None) -> Numbers:
    """One multiplier for the layer, a shift for each channel."""
    multiplier, shift = normalise(factor, bits=bits, channel_shift=int(shifts.max(initial=0)))
    numbers = Numbers(multiplier=multiplier, multipliers=np.zeros(0, dtype=np.int64), shift=shift, channel_shift=shifts)
    return numbers if residual is None else _with_residual(numbers, residual, bits=bits)


def channel_numbers(factors: Reals, *, bits: int, residual: float | None = None) -> Numbers:
    """One multiplier for each channel, all but the tiniest with their top bit set."""
    _, shift = normalise(float(factors.max()), bits=bits)
    octaves = np.floor(np.log2(((1 << bits) - 0.5) / (factors * 2.0**shift)))
    shifts = np.clip(octaves, 0, min(MAX_CHANNEL_SHIFT, exponents(bits)[-1] - shift)).astype(np.int64)
    multipliers = np.minimum(np.rint(factors * np.exp2(shift + shifts)), (1 << bits) - 1).astype(np.int64)
    numbers = Numbers(multiplier=0, multipliers=multipliers, shift=shift, channel_shift=shifts)
    return numbers if residual is None else _with_residual(numbers, residual, bits=bits)


def _with_residual(numbers: Numbers, factor: float, *, bits: int) -> Numbers:
    """Add R (16 bits) and k with ``R * 2**k / 2**shift`` nearest to ``factor``.

    The machine shifts a residual by at most 31, channel shift included: where its scale is so much coarser than the layer's own
    products, the layer's multiplier gives up low bits.
    """
    mantissa, exponent = np.frexp(factor)
    res_multiplier = round(float(mantissa) * 65536)
    res_multiplier, exponent = (32768, int(exponent) + 1) if res_multiplier == 65536 else (res_multiplier, int(exponent))
    most = 31 - int(numbers.channel_shift.max(initial=0))
    shift = min(numbers.shift, most + 16 - exponent)
    res_shift = shift - 16 + exponent
    if res_shift < 0:
        res_multiplier, res_shift = round(factor * 2.0**shift), 0
    lost = numbers.shift - shift
    multiplier = (numbers.multiplier + (1 << lost >> 1)) >> lost
    multipliers = (numbers.multipliers + (1 << lost >> 1)) >> lost
    if shift < unit_exponent(bits) or res_multiplier < 1 or (multiplier < 1 and not numbers.multipliers.size):
        way_out = "quantize both to similar ranges, or quantize the sum's other operand first"
        raise Rejection("residual scale / output scale", "within 2**31 of the layer's own factor", f"{factor:.6g}", way_out)
    return Numbers(
        multiplier=multiplier,
        multipliers=multipliers,
        shift=shift,
        channel_shift=numbers.channel_shift,
        res_multiplier=res_multiplier,
        res_shift=res_shift,
    )
