"""Weight scale schemes: how a layer's real weights get their scales.

A scheme turns the weights of one layer into one scale per output channel; the code of a weight is then ``round(weight / scale)`` on a
symmetric grid of ``bits`` bits, unless the scheme has thresholds of its own (:mod:`~tercel.sw.quantize.ternary_scheme`). What the
schemes differ in is which scales the machine has to hold::

    per_layer      one scale
    shift8, ...    one scale and a 4-bit shift n per channel: scale[c] = scale * 2**-n[c]
    per_channel    a free scale per channel (needs a multiplier per channel in the machine)

The shifted scales are made as ``ldexp(scale, -n)``, so that their ratios are exact powers of two in float32.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tercel.sw.quantize.bit_widths import check_width

Reals = npt.NDArray[np.float64]
Scales = npt.NDArray[np.float32]
Shifts = npt.NDArray[np.int64]
ShiftRule = Literal["floor", "round", "signed", "search"]

MAX_SHIFT = 15

_TURNS = 8
"""Layer scales in an octave that compensated rounding chooses from."""

SMALLEST_SCALE = 2.0**-100
"""Scale of a layer that is zero everywhere; large enough that shifted scales and products of scales stay normal float32 numbers."""


def largest_code(bits: int) -> int:
    """The grid of ``bits`` bits is ``-largest_code..largest_code``: 127 for 8 bits, 1 for 2."""
    return (1 << bits - 1) - 1


def channel_ranges(weights: Reals) -> Reals:
    """Largest magnitude of each row of ``[channels, weights]``."""
    return np.asarray(np.abs(weights).max(axis=1, initial=0.0))


def quantized(weights: Reals, scale: Reals | float, *, bits: int) -> Reals:
    """``weights`` ``[channels, weights]`` on the grid of ``scale``, which broadcasts against them."""
    limit = largest_code(bits)
    return np.asarray(np.clip(np.round(weights / scale), -limit, limit) * scale)


def floor_log2(ratios: Reals) -> Shifts:
    """``floor(log2(ratio))``, exact at powers of two; 0 where a ratio is 0."""
    mantissa, exponent = np.frexp(ratios)
    return np.where(mantissa == 0, 0, exponent - 1).astype(np.int64)


def float32_above(value: float) -> float:
    """The smallest float32 number that is no less than ``value``."""
    nearest = np.float32(value)
    return float(nearest if float(nearest) >= value else np.nextafter(nearest, np.float32(np.inf)))


@dataclass(frozen=True, kw_only=True)
class Scheme(ABC):
    """A weight scale scheme; see :data:`SCHEMES` for the named ones.

    Parameters
    ----------
    name
        As the command line spells it.
    bits
        Width of a layer's weights where the user names none.
    summary
        One line for listings.
    """

    name: str
    bits: int = 8
    summary: str

    def __post_init__(self) -> None:
        check_width(self.bits, name="bits")

    @abstractmethod
    def scales(self, weights: Reals, *, bits: int, least: Reals) -> Scales:
        """Scales of a layer's output channels.

        Parameters
        ----------
        weights
            ``[channels, weights of a channel]``, finite.
        bits
            2..8.
        least
            Smallest scale that each channel may have, for its bias to fit (see :mod:`~tercel.sw.quantize.weight_scales`); 0 for no limit.

        Returns
        -------
        Positive float32 ``[channels]``, each at least ``least``.
        """

    def rounded(self, weights: Reals, scales: Scales, *, bits: int) -> Reals:
        """A layer's weights on the grid, where each is rounded by itself: to the nearest code unless the scheme has thresholds of its own.

        Parameters
        ----------
        weights
            ``[channels, weights of a channel]``, finite.
        scales
            What :meth:`scales` chose for them.
        bits
            2..8.

        Returns
        -------
        Codes times scales, ``[channels, weights of a channel]``.
        """
        return quantized(weights, scales[:, None].astype(np.float64), bits=bits)

    @property
    def aligns(self) -> bool:
        """Whether channels that may be scaled (:mod:`~tercel.sw.quantize.alignment`) make better use of a grid of powers of two."""
        return False

    def grids(self, scales: Scales, ranges: Reals, *, bits: int, least: Reals) -> Scales:
        """Scales that rounding may choose from where it sees what outputs lose.

        Parameters
        ----------
        scales
            What :meth:`scales` chose, ``[channels]``.
        ranges
            Largest magnitude of each channel's weights, ``[channels]``.
        bits, least
            As for :meth:`scales`.

        Returns
        -------
        ``[layer scales, options, channels]``: all channels take options of one layer scale. Here the chosen scales only.
        """
        return scales[None, None]

    def with_gain(self, scales: Scales, gain: float) -> Scales:
        """``scales`` times ``gain``, their ratios the same to the bit where they are powers of two."""
        largest = scales.max(initial=0.0)
        return np.asarray(scales / largest * np.float32(largest * gain), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class PerLayer(Scheme):
    """One scale for the layer: its largest weight becomes the largest code."""

    def scales(self, weights: Reals, *, bits: int, least: Reals) -> Scales:
        """All equal; see :meth:`Scheme.scales`."""
        scale = max(float(channel_ranges(weights).max(initial=0.0)) / largest_code(bits), float(least.max(initial=0.0)), SMALLEST_SCALE)
        return np.full(len(weights), float32_above(scale), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class PerChannel(Scheme):
    """A free scale for each channel: its largest weight becomes the largest code. The yardstick for the shifts."""

    def scales(self, weights: Reals, *, bits: int, least: Reals) -> Scales:
        """Each the channel's own; a channel of zeros takes the layer's largest. See :meth:`Scheme.scales`."""
        ranges = channel_ranges(weights)
        ranges = np.where(ranges == 0, ranges.max(initial=0.0), ranges)
        # A channel 2**-40 below the layer's largest adds nothing to any output, but would push its bias out of range.
        ranges = np.maximum(ranges, ranges.max(initial=0.0) * 2.0**-40)
        chosen = np.maximum(np.maximum(ranges / largest_code(bits), least), SMALLEST_SCALE)
        return np.array([float32_above(scale) for scale in chosen], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Shift(Scheme):
    """A scale for the layer and a shift of 0..15 for each channel, which scales its weights up before they are rounded.

    With ``r[c]`` a channel's largest magnitude and ``R`` that of the layer, the rules for the shift ``n[c]`` are

    ``floor``
        ``floor(log2(R / r))``: the shifted ranges lie in ``R/2..R``, nothing clips, the layer's scale stays ``R / largest code``.
    ``round``
        ``round(log2(R / r))``: the shifted ranges lie within a factor of sqrt(2) of ``R``; the layer's scale follows the largest.
    ``signed``
        ``floor(log2(median(r) / r))`` in -8..7: like ``floor``, seen from the median channel; the smallest shift becomes 0, and the
        layer's scale takes up the difference.
    ``search``
        of the 16 shifts, the one with the least squared error of the channel's rounded weights, clipping included; and of ``2**fraction``
        layer scales within the octave below ``R / largest code``, the one with the least sum of the channels' relative errors.

    A channel of zeros has shift 0. Where a bias would leave its range, the channel's shift is lowered, and the layer's scale raised
    when shift 0 is not enough. Below 8 bits, with ``floor``, channels are also moved onto the grid of powers of two where the network lets
    them (:mod:`~tercel.sw.quantize.alignment`). Up to 5 bits, compensated rounding chooses a scale for the layer, and adds a shift where
    outputs then err less (:mod:`~tercel.sw.quantize.grid_choice`).

    Parameters
    ----------
    rule
        As above.
    fraction
        Bits after the point of the layer scale's exponent that ``search`` tries; 0 keeps ``R / largest code``.
    """

    rule: ShiftRule = "floor"
    fraction: int = 0

    def scales(self, weights: Reals, *, bits: int, least: Reals) -> Scales:
        """Powers of two apart from each other; see :meth:`Scheme.scales`."""
        limit = largest_code(bits)
        ranges = channel_ranges(weights)
        full = float(ranges.max(initial=0.0))
        floor = max(float(least.max(initial=0.0)), SMALLEST_SCALE)
        if full / limit <= floor:
            full = floor * limit
        if self.rule == "search":
            scale, shifts = self._search(weights, bits=bits, scale=full / limit)
        else:
            scale, shifts = full / limit, _RULES[self.rule](ranges, full)
            shifts = np.clip(np.where(ranges == 0, 0, shifts), 0, MAX_SHIFT)
            scale = float(np.ldexp(ranges, shifts).max(initial=0.0)) / limit
        scale = float32_above(max(scale, floor))
        highest = np.where(least > 0, floor_log2(scale / np.where(least > 0, least, 1.0)), MAX_SHIFT)
        return np.ldexp(np.float32(scale), -np.minimum(shifts, highest)).astype(np.float32)

    @property
    def aligns(self) -> bool:
        """Rule ``floor`` does."""
        return self.rule == "floor"

    def grids(self, scales: Scales, ranges: Reals, *, bits: int, least: Reals) -> Scales:
        """With rule ``floor``, eight layer scales to the octave, and one shift more for each channel. See :meth:`Scheme.grids`."""
        if self.rule != "floor":
            return super().grids(scales, ranges, bits=bits, least=least)
        offered = []
        for turn in range(_TURNS):
            base = np.float32(float(scales.max()) * 2.0 ** (-turn / _TURNS))
            if turn and base < least.max(initial=0.0):
                break
            shifts = np.where(ranges == 0, 0, floor_log2(base * largest_code(bits) / np.where(ranges == 0, 1.0, ranges)))
            if not turn:
                shifts = floor_log2(base / scales.astype(np.float64))
            highest = np.where(least > 0, floor_log2(base / np.where(least > 0, least, 1.0)), MAX_SHIFT)
            highest = np.clip(highest, 0, MAX_SHIFT)
            offered.append([np.ldexp(base, -np.minimum(np.maximum(shifts, 0) + more, highest)) for more in (0, 1)])
        return np.array(offered, dtype=np.float32)

    def _search(self, weights: Reals, *, bits: int, scale: float) -> tuple[float, Shifts]:
        energy = np.square(weights).sum(axis=1)
        alive = energy > 0
        best = (math.inf, scale, np.zeros(len(weights), dtype=np.int64))
        for step in range(1 << self.fraction):
            candidate = scale * 2.0 ** (-step / (1 << self.fraction))
            errors = np.stack(
                [
                    np.square(quantized(weights, math.ldexp(candidate, -shift), bits=bits) - weights).sum(axis=1)
                    for shift in range(MAX_SHIFT + 1)
                ]
            )
            shifts = np.where(alive, errors.argmin(axis=0), 0)
            total = float((errors.min(axis=0)[alive] / energy[alive]).sum())
            if total < best[0]:
                best = (total, candidate, shifts)
        return best[1:]


def _floor_shifts(ranges: Reals, full: float) -> Shifts:
    safe = np.where(ranges == 0, full, ranges)
    shifts = floor_log2(full / safe)
    # The quotient is rounded: compare with exact products.
    shifts = np.where(np.ldexp(safe, shifts) > full, shifts - 1, shifts)
    return np.where(np.ldexp(safe, shifts + 1) <= full, shifts + 1, shifts)


def _round_shifts(ranges: Reals, full: float) -> Shifts:
    safe = np.where(ranges == 0, full, ranges)
    return np.floor(np.log2(full / safe) + 0.5).astype(np.int64)


def _signed_shifts(ranges: Reals, full: float) -> Shifts:
    alive = ranges[ranges > 0]
    middle = float(np.median(alive)) if alive.size else full
    shifts = np.clip(_floor_shifts(ranges, middle), -8, 7)
    return np.asarray(shifts - shifts[ranges > 0].min(initial=7))


_RULES: dict[str, Callable[[Reals, float], Shifts]] = {"floor": _floor_shifts, "round": _round_shifts, "signed": _signed_shifts}
