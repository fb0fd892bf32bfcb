"""Rounding a layer's weights so that their errors cancel in its outputs.

Rounded one by one to the nearest code, the errors of an output's weights add up as chance has it. Here the weights of an output are
rounded in turn, and each one's error is passed on to those that are still to come, in the proportion that keeps the output's mean
squared change over the calibration images least (optimal brain surgeon with a fixed order: Frantar et al., arXiv 2210.17323).
The mean of the inputs does not count where biases are corrected: what a mean adds to an output is the bias' to correct. Where they are
not, it counts like any other part of the inputs.

Whether a channel loses less on a finer grid that clips its largest weights shows only then: with :func:`round_on_finer_grids`, a scheme
may offer finer scales, and a channel takes its own where its outputs err less.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tercel.sw.quantize.prepared_graph import WeightedLayer
from tercel.sw.quantize.weight_scales import least_scales

_POSITIONS = 256
"""Output positions of an image that count at most; neighbours tell little more."""

_DAMPING = 0.01
"""Share of the inputs' mean variance that is added to each one's own, at least."""

_FLOOR = 1e-6
"""Of the damping, as a share of the inputs' mean square; its inverse squared must stay above the precision of float64."""

_MOST_CLIPPED_BITS = 7
"""Finer grids are tried up to this width: of more codes, clipping costs more than it gains."""

_FEWEST_WEIGHTS = 32
"""Weights of an output from which on finer grids are tried: among fewer, too many clip."""


def input_patches(layer: WeightedLayer, images: Sequence[Tensor]) -> Tensor:
    """What each output's weights multiply: ``[groups, weights of an output, samples]``.

    ``images`` are the layer's inputs, each of batch size 1.
    """
    weight = layer.weight
    if weight.dim() == 2:
        return torch.cat([image.reshape(-1, weight.shape[1]) for image in images]).T[None]
    stride, padding, dilation, groups = layer.geometry
    patches = []
    for image in images:
        columns = functional.unfold(image, weight.shape[2:], dilation=dilation, padding=padding, stride=stride)[0]
        step = -(-columns.shape[1] // _POSITIONS)
        patches.append(columns[:, ::step].reshape(groups, -1, len(columns[0, ::step])))
    return torch.cat(patches, dim=2)


def compensate(weights: Tensor, scales: Tensor, patches: Tensor, *, limit: int, mean_counts: bool = False) -> Tensor:
    """Weights on the grid.

    Parameters
    ----------
    weights
        ``[groups, outputs of a group, weights of an output]``, float64.
    scales
        ``[groups, outputs of a group]``: the grid is ``scale * (-limit..limit)``.
    patches
        ``[groups, weights of an output, samples]``.
    limit
        Largest code.
    mean_counts
        Whether to keep the outputs' means as well.
    """
    count, samples = patches.shape[1:]
    centred = patches.to(torch.float64)
    mean = centred.mean(dim=2, keepdim=True)
    centred = centred - mean
    covariance = centred @ centred.transpose(1, 2) / samples
    mean_variance = covariance.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-30)
    if mean_counts:
        covariance = covariance + mean @ mean.transpose(1, 2)
    # With few samples for many inputs, most of the covariance is chance: damp it more.
    damping = mean_variance * max(_DAMPING, count / samples)
    # Inputs that hardly change have means far above their variance; without a floor the matrix would be singular to double precision.
    damping = torch.maximum(damping, _FLOOR * covariance.diagonal(dim1=1, dim2=2).mean(dim=1))
    covariance = covariance + damping[:, None, None] * torch.eye(count, dtype=torch.float64)
    order = covariance.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    covariance = covariance.gather(1, order[:, :, None].expand_as(covariance)).gather(2, order[:, None, :].expand_as(covariance))
    left = weights.gather(2, order[:, None, :].expand_as(weights)).clone()
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(covariance)), upper=True)
    for index in range(count):
        column = left[:, :, index]
        rounded = torch.clamp(torch.round(column / scales), -limit, limit) * scales
        error = (column - rounded) / factor[:, index, index, None]
        left[:, :, index] = rounded
        left[:, :, index + 1 :] -= error[:, :, None] * factor[:, index, None, index + 1 :]
    return torch.empty_like(left).scatter(2, order[:, None, :].expand_as(left), left)


@dataclass(frozen=True)
class _Problem:
    """A layer's weights by group, float64, and what they multiply; see :func:`compensate`."""

    weights: Tensor
    patches: Tensor
    limit: int
    mean_counts: bool

    def round(self, scales: Tensor) -> Tensor:
        return compensate(self.weights, scales, self.patches, limit=self.limit, mean_counts=self.mean_counts)

    def errors(self, rounded: Tensor) -> Tensor:
        """Mean squared change of each output, ``[groups, outputs of a group]``."""
        change = (rounded - self.weights) @ self.patches.to(torch.float64)
        return change.square().mean(dim=2) if self.mean_counts else change.var(dim=2, correction=0)


def _problem(layer: WeightedLayer, images: Sequence[Tensor], *, mean_counts: bool) -> _Problem:
    patches = input_patches(layer, images)
    rows = layer.weight.to(torch.float64).reshape(len(patches), -1, patches.shape[1])
    return _Problem(rows, patches, layer.weight_observer.quant_max, mean_counts)


def _scales(layer: WeightedLayer) -> Tensor:
    return layer.weight_observer.calculate_qparams()[0]


def round_weights(layer: WeightedLayer, images: Sequence[Tensor], *, mean_counts: bool = False) -> Tensor:
    """The layer's weights on their grid, for its inputs in ``images``; of the layer's shape, float32."""
    problem = _problem(layer, images, mean_counts=mean_counts)
    scales = _scales(layer).to(torch.float64).reshape(problem.weights.shape[:2])
    return problem.round(scales).reshape(layer.weight.shape).to(torch.float32)


def round_on_finer_grids(layer: WeightedLayer, images: Sequence[Tensor], *, mean_counts: bool) -> Tensor:
    """Like :func:`round_weights`, and replaces the scales of channels whose outputs err less on finer ones that the scheme offers."""
    watched, scales = layer.weight_observer, _scales(layer)
    finer = watched.scheme.finer(scales.numpy()) if watched.bits <= _MOST_CLIPPED_BITS else None
    problem = _problem(layer, images, mean_counts=mean_counts)
    if finer is None or problem.weights.shape[2] < _FEWEST_WEIGHTS:
        return round_weights(layer, images, mean_counts=mean_counts)
    shape = problem.weights.shape[:2]
    allowed = torch.from_numpy(finer >= least_scales(layer))
    other = torch.where(allowed, torch.from_numpy(finer), scales)
    plain, clipped = (problem.round(tried.to(torch.float64).reshape(shape)) for tried in (scales, other))
    better = problem.errors(clipped) < problem.errors(plain)
    watched.replace(torch.where(better.flatten(), other, scales))
    return torch.where(better[:, :, None], clipped, plain).reshape(layer.weight.shape).to(torch.float32)
