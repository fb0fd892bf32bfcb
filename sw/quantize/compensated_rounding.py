"""Rounding a layer's weights so that their errors cancel in its outputs.

Rounded one by one to the nearest code, the errors of an output's weights add up as chance has it. Here the weights of an output are
rounded in turn, and each one's error is passed on to those that are still to come, in the proportion that keeps the output's mean
squared change over the calibration images least (optimal brain surgeon with a fixed order: Frantar et al., arXiv 2210.17323).
The mean of the inputs does not count where biases are corrected: what a mean adds to an output is the bias' to correct. Where they are
not, it counts like any other part of the inputs.

Where the float network's inputs are known too, it is not the layer's own weights that are rounded but the
:mod:`restored ones <tercel.sw.quantize.restored_weights>`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tercel.sw.quantize.input_moments import InputMoments, input_moments, input_patches
from tercel.sw.quantize.prepared_graph import WeightedLayer
from tercel.sw.quantize.restored_weights import restored

_BLOCK = 32
"""Weights of an output that are rounded before their errors reach those behind all of them: one product of matrices instead of many."""


def compensate(weights: Tensor, scales: Tensor, inputs: InputMoments, *, limit: int, mean_counts: bool = False) -> Tensor:
    """Weights on the grid.

    Parameters
    ----------
    weights
        ``[groups, outputs of a group, weights of an output]``, float64.
    scales
        ``[groups, outputs of a group]``: the grid is ``scale * (-limit..limit)``.
    inputs
        What the weights multiply.
    limit
        Largest code.
    mean_counts
        Whether to keep the outputs' means as well.
    """
    count = weights.shape[2]
    covariance = inputs.damped(mean_counts=mean_counts)
    order = covariance.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    covariance = covariance.gather(1, order[:, :, None].expand_as(covariance)).gather(2, order[:, None, :].expand_as(covariance))
    left = weights.gather(2, order[:, None, :].expand_as(weights))
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(covariance)), upper=True)
    for start in range(0, count, _BLOCK):
        block, end = left[:, :, start : start + _BLOCK], min(start + _BLOCK, count)
        errors = torch.empty_like(block)
        for place, index in enumerate(range(start, end)):
            column = block[:, :, place]
            rounded = torch.clamp(torch.round(column / scales), -limit, limit) * scales
            errors[:, :, place] = (column - rounded) / factor[:, index, index, None]
            block[:, :, place] = rounded
            block[:, :, place + 1 :] -= errors[:, :, place, None] * factor[:, index, None, index + 1 : end]
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    return torch.empty_like(left).scatter(2, order[:, None, :].expand_as(left), left)


@dataclass(frozen=True)
class RoundingProblem:
    """Weights to be rounded, float64 ``[groups, outputs of a group, weights of an output]``, and what they multiply; see
    :func:`compensate`.
    """

    weights: Tensor
    inputs: InputMoments
    limit: int
    mean_counts: bool

    @classmethod
    def of(
        cls, layer: WeightedLayer, images: Sequence[Tensor], real: Sequence[Tensor] | None = None, *, mean_counts: bool
    ) -> "RoundingProblem":
        """For the layer's inputs in ``images``, each of batch size 1, and in the float network, where they are known."""
        rows = layer.weight.to(torch.float64).reshape(layer.group_count, -1, layer.weight[0].numel())
        limit = layer.weight_observer.quant_max
        if real is None or len(images) < 2:
            return cls(rows, input_moments(input_patches(layer, images)), limit, mean_counts)
        one, two = (input_moments(input_patches(layer, images[start::2]), input_patches(layer, real[start::2])) for start in (0, 1))
        return cls(restored(rows, (one, two), mean_counts=mean_counts), one.with_more(two), limit, mean_counts)

    def round(self, scales: Tensor) -> Tensor:
        """The weights on grids of ``scales`` ``[grids, channels]``: ``[grids, channels, weights of an output]``."""
        groups, outputs, count = self.weights.shape
        many = scales.to(torch.float64).reshape(len(scales), groups, outputs).transpose(0, 1).reshape(groups, -1)
        weights = self.weights[:, None].expand(-1, len(scales), -1, -1).reshape(groups, -1, count)
        rounded = compensate(weights, many, self.inputs, limit=self.limit, mean_counts=self.mean_counts)
        return rounded.reshape(groups, len(scales), outputs, count).transpose(0, 1).reshape(len(scales), -1, count)


@dataclass(frozen=True)
class RoundedWeights:
    """A layer's weights ``on_grid``, and those that were rounded to them; of the layer's shape, float32."""

    on_grid: Tensor
    aimed_at: Tensor


def round_weights(
    layer: WeightedLayer, images: Sequence[Tensor], real: Sequence[Tensor] | None = None, *, mean_counts: bool = False
) -> RoundedWeights:
    """Round the layer's weights to their grid.

    ``images`` are its inputs, ``real`` the float network's, where they are known; see :func:`compensate` for ``mean_counts``.
    """
    problem = RoundingProblem.of(layer, images, real, mean_counts=mean_counts)
    scales = layer.weight_observer.calculate_qparams()[0]
    on_grid, shape = problem.round(scales[None]), layer.weight.shape
    return RoundedWeights(on_grid.reshape(shape).to(torch.float32), problem.weights.reshape(shape).to(torch.float32))
