"""Rounding a layer's weights so that their errors cancel in its outputs.

Rounded one by one to the nearest code, the errors of an output's weights add up as chance has it. Here the weights of an output are
rounded in turn, and each one's error is passed on to those that are still to come, in the proportion that keeps the output's mean
squared change over the calibration images least (optimal brain surgeon with a fixed order: Frantar et al., arXiv 2210.17323).
Only the codes change, not the grid. The mean of the inputs does not count: what a mean adds to an output is the bias' to correct.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tercel.sw.quantize.prepared_graph import WeightedLayer

_POSITIONS = 256
"""Output positions of an image that count at most; neighbours tell little more."""

_DAMPING = 0.01
"""Share of the inputs' mean variance that is added to each one's own, at least."""


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


def compensate(weights: Tensor, scales: Tensor, patches: Tensor, *, limit: int) -> Tensor:
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
    """
    count, samples = patches.shape[1:]
    centred = patches.to(torch.float64)
    centred = centred - centred.mean(dim=2, keepdim=True)
    covariance = centred @ centred.transpose(1, 2) / samples
    mean_variance = covariance.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-30)
    # With few samples for many inputs, most of the covariance is chance: damp it more.
    damping = mean_variance * max(_DAMPING, count / samples)
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


def round_weights(layer: WeightedLayer, images: Sequence[Tensor]) -> Tensor:
    """The layer's weights on their grid, for its inputs in ``images``; of the layer's shape, float32."""
    weight = layer.weight
    patches = input_patches(layer, images)
    groups = len(patches)
    scales = layer.weight_observer.calculate_qparams()[0].to(torch.float64).reshape(groups, -1)
    rows = weight.to(torch.float64).reshape(groups, scales.shape[1], -1)
    return compensate(rows, scales, patches, limit=layer.weight_observer.quant_max).reshape(weight.shape).to(torch.float32)
