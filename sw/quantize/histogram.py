"""A histogram of a tensor's values over many images, and the range of codes that loses least of them."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

BINS = 4096
"""Bins on either side of zero."""

Reals = npt.NDArray[np.float64]


@dataclass
class Histogram:
    """Counts in ``2 * BINS`` bins of equal width around zero; the width doubles when a value does not fit.

    Doubling merges pairs of bins, so counts do not depend on which values came first, except for the first width.

    Parameters
    ----------
    width
        Of a bin; 0 until a value other than zero was seen.
    low, high
        Smallest and largest value seen; zero is always inside.
    """

    width: float = 0.0
    low: float = 0.0
    high: float = 0.0
    counts: Reals = field(default_factory=lambda: np.zeros(2 * BINS))

    @property
    def reach(self) -> float:
        """Magnitude that the bins hold."""
        return BINS * self.width

    def make_room(self, low: float, high: float) -> None:
        """Extend the range so that values of ``low..high`` fit."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        extent = max(-self.low, self.high)
        if self.width == 0.0 and extent > 0:
            self.width = math.ldexp(1.0, math.frexp(extent)[1]) / BINS
        while self.reach < extent:
            merged = self.counts.reshape(BINS, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(BINS // 2), merged, np.zeros(BINS // 2)])
            self.width *= 2

    def add(self, counts: Reals) -> None:
        """Add ``[2 * BINS]`` counts of bins of the present width."""
        self.counts += counts
