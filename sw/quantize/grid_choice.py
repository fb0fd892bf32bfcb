"""The grid that a layer's outputs lose least on, and the gain that rounding took from them.

With few codes a layer loses less on a grid that clips some of its largest weights, but clipping and rounding for the least error make its
outputs smaller as well. Noise of many layers adds up like noise; what they take from the gain adds up in one direction. So an output
``y`` that became ``a * y + e`` is judged by ``mean(e**2) + 30 * (gain * a - 1)**2 * mean(y**2)``, and the scales, which are free as a
whole, give the mean gain back.

With scales a power of two apart, channels are not free to take the grid they like best: all choose for each of a few scales of the layer,
and the one with the least sum of errors, relative to the outputs' variances, is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tercel.sw.quantize.compensated_rounding import RoundedWeights, RoundingProblem, round_weights
from tercel.sw.quantize.input_moments import QUIET, importance
from tercel.sw.quantize.prepared_graph import WeightedLayer
from tercel.sw.quantize.weight_scales import least_scales

MOST_BITS = 5
"""Of more codes, clipping costs more than it gains."""

_GAIN_WEIGHT = 30.0

_ROUNDS = 3
"""Choosing grids for a gain and the gain for these grids settles at once."""


@dataclass(frozen=True)
class _Outcome:
    """Outputs with rounded weights ``[grids, channels, weights]`` against those with the real ones."""

    problem: RoundingProblem
    rounded: Tensor

    @cached_property
    def _reads(self) -> Tensor:
        return self.problem.weights @ self.problem.inputs.covariance

    @cached_property
    def variance(self) -> Tensor:
        """Of the outputs, ``[channels]``."""
        return (self._reads * self.problem.weights).sum(dim=2).flatten()

    @cached_property
    def slope(self) -> Tensor:
        """Gain of each output, ``[grids, channels]``; 1 where an output hardly changes."""
        shared = (self._reads.flatten(0, 1) * self.rounded).sum(dim=2)
        loud = self.variance > QUIET * self.variance.mean()
        return torch.where(loud, shared / self.variance.clamp(min=1e-30), torch.ones_like(shared))

    @cached_property
    def noise(self) -> Tensor:
        """Mean square of what is no gain, ``[grids, channels]``."""
        groups, outputs, count = self.problem.weights.shape
        products = self.problem.inputs.products(mean_counts=self.problem.mean_counts)
        change = (self.rounded - self.problem.weights.reshape(-1, count)).reshape(-1, groups, outputs, count)
        error = ((change @ products) * change).sum(dim=3).flatten(1)
        return (error - (1 - self.slope).square() * self.variance).clamp(min=0)


@dataclass(frozen=True)
class _Choice:
    """A grid for each channel, by number, the gain that all get back, and the error that is left."""

    grids: Tensor
    gain: float
    error: float


def _choose(outcome: _Outcome, grids: range) -> _Choice:
    variance = outcome.variance
    shares = importance(variance)
    slope, noise = outcome.slope[grids.start : grids.stop], outcome.noise[grids.start : grids.stop]
    gain = 1.0
    for _ in range(_ROUNDS):
        errors = (noise * gain**2 + _GAIN_WEIGHT * (gain * slope - 1).square() * variance) * shares
        best = errors.min(dim=0)
        kept = (slope.gather(0, best.indices[None])[0] * variance * shares).sum()
        gain = float((variance * shares).sum() / kept) if kept > 0 else 1.0
    return _Choice(best.indices + grids.start, gain, float(best.values.sum()))


def round_on_best_grids(
    layer: WeightedLayer, images: Sequence[Tensor], real: Sequence[Tensor] | None = None, *, mean_counts: bool
) -> RoundedWeights:
    """Like :func:`~tercel.sw.quantize.compensated_rounding.round_weights`, and replaces the layer's scales.

    Of ``MOST_BITS`` and below, channels choose among the grids that the scheme offers, and the gain goes into the scales, and with them
    into the weights that were aimed at.
    """
    watched = layer.weight_observer
    if watched.bits > MOST_BITS:
        return round_weights(layer, images, real, mean_counts=mean_counts)
    problem = RoundingProblem.of(layer, images, real, mean_counts=mean_counts)
    scales = watched.calculate_qparams()[0]
    ranges = layer.weight.flatten(1).abs().amax(dim=1).double().numpy()
    offered = torch.from_numpy(watched.scheme.grids(scales.numpy(), ranges, bits=watched.bits, least=least_scales(layer)))
    options = offered.shape[1]
    tried = offered.flatten(0, 1)
    outcome = _Outcome(problem, problem.round(tried))
    choices = [_choose(outcome, range(start, start + options)) for start in range(0, len(tried), options)]
    best = min(choices, key=lambda choice: choice.error)
    chosen = tried.gather(0, best.grids[None])[0]
    codes = outcome.rounded[best.grids, torch.arange(len(chosen))] / chosen[:, None]
    gained = torch.from_numpy(watched.scheme.with_gain(chosen.numpy(), best.gain))
    watched.replace(gained)
    aimed_at = problem.weights.reshape(codes.shape) / chosen[:, None]
    on_grid, gained_aim = ((values * gained[:, None]).reshape(layer.weight.shape).to(torch.float32) for values in (codes, aimed_at))
    return RoundedWeights(on_grid, gained_aim)
