"""Weight scale schemes around the ternary operators."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tercel.sw.quantize.scheme import (
    MAX_SHIFT,
    SMALLEST_SCALE,
    PerChannel,
    PerLayer,
    Reals,
    Scales,
    Scheme,
    Shift,
    Shifts,
    float32_above,
    floor_log2,
)
from tercel.sw.quantize.ternary import Magnitude, Mode, Operator, Ternary, ternarize

Granularity = Literal["layer", "shift", "channel"]

_TERNARY = 2
_STEPS = 8
"""Layer scales per octave that are tried for the channels' magnitudes."""


def nearest_shifts(magnitudes: Reals) -> tuple[float, Shifts]:
    """A layer scale and shifts of 0..15 whose ``scale * 2**-shift`` come nearest to positive magnitudes ``[channels]``.

    Of eight scales to the octave, the one with the least mean squared logarithm of the ratios; zeros have shift 0 and do not count.
    """
    alive = magnitudes > 0
    if not alive.any():
        return SMALLEST_SCALE, np.zeros(len(magnitudes), dtype=np.int64)
    largest = float(magnitudes.max())
    exponents = np.log2(largest / np.where(alive, magnitudes, largest))
    # From half an octave above the largest magnitude down to half an octave below it: no shift is negative then.
    offsets = np.arange(_STEPS) / _STEPS - 0.5 + 0.5 / _STEPS
    shifts = np.clip(np.floor(exponents[None] - offsets[:, None] + 0.5), 0, MAX_SHIFT)
    misfit = np.square(exponents - offsets[:, None] - shifts)[:, alive].mean(axis=1)
    best = int(misfit.argmin())
    return largest * 2.0 ** -float(offsets[best]), np.where(alive, shifts[best], 0).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class TernaryScheme(Scheme):
    """Two bits by a ternary operator; codes are what the operator's thresholds make of each weight.

    Layers of more bits get the scales of the ordinary scheme of the same granularity: ``per_layer``, ``shift8``, ``per_channel``.

    Parameters
    ----------
    operator, mode, magnitude
        See :func:`~tercel.sw.quantize.ternary.ternarize`.
    granularity
        ``layer``: the layer is one group with one scale. ``shift``: each channel is a group, and its scale the power of two times the
        layer's that is nearest to the operator's. ``channel``: each channel is a group with the operator's own scale.
    """

    bits: int = _TERNARY
    operator: Operator
    mode: Mode = "gauss"
    magnitude: Magnitude = "round"
    granularity: Granularity = "shift"

    def scales(self, weights: Reals, *, bits: int, least: Reals) -> Scales:
        """See :meth:`Scheme.scales`. Where a bias would leave its range, shifts are lowered or scales raised; codes stay."""
        if bits != _TERNARY:
            return self._wide.scales(weights, bits=bits, least=least)
        made = self._ternary(weights).scales
        if self.granularity == "shift":
            scale, shifts = nearest_shifts(made)
            scale = float32_above(max(scale, float(least.max(initial=0.0)), SMALLEST_SCALE))
            highest = np.where(least > 0, floor_log2(scale / np.where(least > 0, least, 1.0)), MAX_SHIFT)
            return np.ldexp(np.float32(scale), -np.minimum(shifts, highest)).astype(np.float32)
        if self.granularity == "layer":
            least = np.full_like(least, least.max(initial=0.0))
        made = np.maximum(np.where(made > 0, made, made.max(initial=0.0)), made.max(initial=0.0) * 2.0**-40)  # as PerChannel does
        chosen = np.maximum(np.maximum(made, least), SMALLEST_SCALE)
        return np.array([float32_above(scale) for scale in chosen], dtype=np.float32)

    def rounded(self, weights: Reals, scales: Scales, *, bits: int) -> Reals:
        """The operator's codes times ``scales``; see :meth:`Scheme.rounded`."""
        if bits != _TERNARY:
            return self._wide.rounded(weights, scales, bits=bits)
        return np.asarray(self._ternary(weights).codes * scales[:, None].astype(np.float64))

    @property
    def _wide(self) -> Scheme:
        if self.granularity == "shift":
            return Shift(name=self.name, summary=self.summary, rule="floor")
        return (PerLayer if self.granularity == "layer" else PerChannel)(name=self.name, summary=self.summary)

    def _ternary(self, weights: Reals) -> Ternary:
        return ternarize(
            weights, operator=self.operator, mode=self.mode, per_channel=self.granularity != "layer", magnitude=self.magnitude
        )
