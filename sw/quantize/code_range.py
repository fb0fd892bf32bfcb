"""Scale and zero point of a tensor of unsigned codes."""

import numpy as np

from tercel.sw.quantize.histogram import BINS, Histogram, Reals

SMALLEST_SCALE = 2.0**-60


def scale_and_zero_point(low: float, high: float, *, codes: int) -> tuple[float, int]:
    """The float32 scale and the zero point of ``codes`` + 1 codes from ``low`` to ``high``; zero (always inside) is exactly a code."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / codes, SMALLEST_SCALE)
    return float(np.float32(scale)), int(np.clip(np.round(-low / scale), 0, codes))


def _loss(values: Reals, counts: Reals, low: float, high: float, *, codes: int) -> float:
    scale, zero_point = scale_and_zero_point(low, high, codes=codes)
    rounded = (np.clip(np.round(values / scale) + zero_point, 0, codes) - zero_point) * scale
    return float((np.square(values - rounded) * counts).sum())


def best_range(histogram: Histogram, *, codes: int) -> tuple[float, float]:
    """Low and high end that lose the least squared error of the values seen, rounding and clipping together.

    Ends are tried at 1/64 of the values' own range, from all of it down to 1/4; the ends take turns until neither moves.
    """
    present = histogram.counts > 0
    values: Reals = ((np.arange(2 * BINS, dtype=np.float64) - BINS + 0.5) * np.float64(histogram.width))[present]
    counts = histogram.counts[present]
    low, high = histogram.low, histogram.high
    fractions = np.arange(64, 15, -1) / 64
    for _ in range(4):
        before = low, high
        if histogram.high > 0:
            high = histogram.high * float(min(fractions, key=lambda part: _loss(values, counts, low, histogram.high * part, codes=codes)))
        if histogram.low < 0:
            low = histogram.low * float(min(fractions, key=lambda part: _loss(values, counts, histogram.low * part, high, codes=codes)))
        if (low, high) == before:
            break
    return low, high
