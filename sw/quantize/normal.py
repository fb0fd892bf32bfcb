"""Normal distributions, clipped: what is known of a tensor's channels without images."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TAIL = 10.0
"""Standard deviations from the mean beyond which nothing is expected. Nagel et al. take 6; activations have heavier tails than a normal
distribution, and values that are clipped cost more than the codes that a wider range leaves unused."""

_ROOT = math.sqrt(2.0)
_DENSITY = 1 / math.sqrt(2 * math.pi)
_LEAST = 1e-12
"""Standard deviation of a constant, so that nothing is divided by zero."""


@dataclass(frozen=True)
class ClippedNormal:
    """One distribution per channel: normal of ``mean`` and ``std`` (float64 ``[channels]``), then clipped to ``low..high``."""

    mean: Tensor
    std: Tensor
    low: float = -math.inf
    high: float = math.inf

    def clip(self, low: float, high: float) -> "ClippedNormal":
        """Clipped once more."""
        return ClippedNormal(self.mean, self.std, min(max(self.low, low), high), max(min(self.high, high), low))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation behind the clipping, ``[channels]`` each.

        With ``a`` and ``b`` the limits in standard deviations from the mean, ``phi`` the density and ``Phi`` the distribution::

            E[y]   = low Phi(a) + high (1 - Phi(b)) + mean (Phi(b) - Phi(a)) - std (phi(b) - phi(a))
            E[y^2] = low^2 Phi(a) + high^2 (1 - Phi(b)) + (mean^2 + std^2) (Phi(b) - Phi(a))
                     - 2 mean std (phi(b) - phi(a)) - std^2 (b phi(b) - a phi(a))

        For a clamp at zero alone these are those of Nagel et al., arXiv 1906.04721.
        """
        std = self.std.clamp(min=_LEAST)
        (at_low, mass_low, edge_low), (at_high, mass_high, edge_high) = (self._end(limit, std) for limit in (self.low, self.high))
        inside = mass_high - mass_low
        density = edge_high[0] - edge_low[0]
        first = at_low * mass_low + at_high * (1 - mass_high) + self.mean * inside - std * density
        second = at_low**2 * mass_low + at_high**2 * (1 - mass_high) + (self.mean**2 + std**2) * inside
        second = second - 2 * self.mean * std * density - std**2 * (edge_high[1] - edge_low[1])
        return first, (second - first**2).clamp(min=0).sqrt()

    def share_below(self, edges: Tensor) -> Tensor:
        """How much of each channel is expected below each of ``edges`` (ascending, ``[edges]``): ``[channels, edges]``."""
        shares = _distribution((edges - self.mean[:, None]) / self.std.clamp(min=_LEAST)[:, None])
        return torch.where(edges <= self.low, 0.0, torch.where(edges > self.high, 1.0, shares))

    def ends(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value expected of each channel."""
        low, high = self.mean - TAIL * self.std, self.mean + TAIL * self.std
        return low.clamp(self.low, self.high), high.clamp(self.low, self.high)

    def _end(self, limit: float, std: Tensor) -> tuple[float, Tensor, tuple[Tensor, Tensor]]:
        """The limit (0 for none, where it has no weight), the mass below it, and ``phi(z)`` and ``z phi(z)`` there."""
        if math.isinf(limit):
            zero = torch.zeros_like(std)
            return 0.0, zero + float(limit > 0), (zero, zero)
        z = (limit - self.mean) / std
        density = _DENSITY * torch.exp(-z.square() / 2)
        return limit, _distribution(z), (density, torch.where(density > 0, z, 0.0) * density)


def _distribution(z: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-z / _ROOT)
