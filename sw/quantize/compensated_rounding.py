"""Rounding a layer's weights so that their errors cancel in its outputs.

Rounded one by one to the nearest code, the errors of an output's weights add up as chance has it. Here the weights of an output are
rounded in turn, and each one's error is passed on to those that are still to come, in the proportion that keeps the output's mean
squared change over the calibration images least (optimal brain surgeon with a fixed order: Frantar et al., arXiv 2210.17323).
The mean of the inputs does not count where biases are corrected: what a mean adds to an output is the bias' to correct. Where they are
not, it counts like any other part of the inputs.

What a layer reads in the quantized network is not what it reads in the float network. Where both are known, it is not the layer's own
weights that are rounded but those that come nearest, from the inputs that there are, to the outputs that there should be, in the mean
square (a regression with the damping of the rounding itself; asymmetric calibration: Li et al., arXiv 2504.02692).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tercel.sw.quantize.prepared_graph import WeightedLayer

_POSITIONS = 256
"""Output positions of an image that count at most; neighbours tell little more."""

_SAMPLES_PER_WEIGHT = 2048
"""Output positions of all images together that count at most, for each weight of an output."""

_DAMPING = 0.01
"""Share of the inputs' mean variance that is added to each one's own, at least."""

_FLOOR = 1e-6
"""Of the damping, as a share of the inputs' mean square; its inverse squared must stay above the precision of float64."""

_BLOCK = 32
"""Weights of an output that are rounded before their errors reach those behind all of them: one product of matrices instead of many."""


@dataclass(frozen=True)
class InputMoments:
    """Of what the weights of each group multiply, in float64.

    ``covariance`` ``[groups, weights, weights]`` and ``mean`` ``[groups, weights, 1]`` of an output's inputs, over ``samples`` of them.
    ``lost_covariance`` and ``lost_mean``, of the same shapes, are those of what the inputs lack of the float network's, with the inputs
    and alone; zero where those are not known.
    """

    covariance: Tensor
    mean: Tensor
    samples: int
    lost_covariance: Tensor
    lost_mean: Tensor

    @property
    def second(self) -> Tensor:
        """Mean products, of the shape of the covariance."""
        return self.covariance + self.mean @ self.mean.transpose(1, 2)

    def products(self, *, mean_counts: bool) -> Tensor:
        """What :func:`compensate` has in place of the mean products of the inputs: without means if they do not count, and damped."""
        products = self.second if mean_counts else self.covariance
        mean_variance = self.covariance.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-30)
        # With few samples for many inputs, most of the covariance is chance: damp it more.
        count = self.mean.shape[1]
        damping = mean_variance * max(_DAMPING, count / self.samples)
        # Inputs that hardly change have means far above their variance; without a floor the matrix would be singular to double precision.
        damping = torch.maximum(damping, _FLOOR * products.diagonal(dim1=1, dim2=2).mean(dim=1))
        return products + damping[:, None, None] * torch.eye(count, dtype=torch.float64)

    def restoring(self, weights: Tensor, *, mean_counts: bool) -> Tensor:
        """The weights that make of these inputs what comes nearest to ``weights`` times the float network's; see the top of the file."""
        lost = self.lost_covariance
        if mean_counts:
            lost = lost + self.lost_mean @ self.mean.transpose(1, 2)
        change: Tensor = torch.linalg.solve(self.products(mean_counts=mean_counts), (weights @ lost).transpose(1, 2))
        return weights + change.transpose(1, 2)


def input_moments(patches: Tensor, real: Tensor | None = None) -> InputMoments:
    """Of ``patches`` ``[groups, weights of an output, samples]``; ``real``, of the same shape, are the float network's."""
    wide = patches.to(torch.float64)
    samples = wide.shape[2]
    mean = wide.mean(dim=2, keepdim=True)
    centred = wide - mean
    covariance = centred @ centred.transpose(1, 2) / samples
    if real is None:
        return InputMoments(covariance, mean, samples, torch.zeros_like(covariance), torch.zeros_like(mean))
    lost = real.to(torch.float64) - wide
    return InputMoments(covariance, mean, samples, lost @ centred.transpose(1, 2) / samples, lost.mean(dim=2, keepdim=True))


def input_patches(layer: WeightedLayer, images: Sequence[Tensor]) -> Tensor:
    """What each output's weights multiply: ``[groups, weights of an output, samples]``.

    ``images`` are the layer's inputs, each of batch size 1.
    """
    weight = layer.weight
    if weight.dim() == 2:
        return torch.cat([image.reshape(-1, weight.shape[1]) for image in images]).T[None]
    stride, padding, dilation, groups = layer.geometry
    height, width = layer.node.meta["val"].shape[2:]
    wanted = min(_POSITIONS, math.ceil(_SAMPLES_PER_WEIGHT * weight[0].numel() / len(images)))
    apart = math.ceil(math.sqrt(height * width / wanted))
    down, right = min(apart, height), min(apart, width)
    # From the middle of the first square of positions: borders would count for more than they are.
    top, left = down // 2 * stride[0], right // 2 * stride[1]
    patches = []
    for image in images:
        padded = functional.pad(image, (padding[1], padding[1], padding[0], padding[0]))[:, :, top:, left:]
        columns = functional.unfold(padded, weight.shape[2:], dilation=dilation, stride=(down * stride[0], right * stride[1]))[0]
        patches.append(columns.reshape(groups, -1, columns.shape[1]))
    return torch.cat(patches, dim=2)


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
    covariance = inputs.products(mean_counts=mean_counts)
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
        inputs = input_moments(input_patches(layer, images), None if real is None else input_patches(layer, real))
        rows = layer.weight.to(torch.float64).reshape(len(inputs.mean), -1, inputs.mean.shape[1])
        return cls(inputs.restoring(rows, mean_counts=mean_counts), inputs, layer.weight_observer.quant_max, mean_counts)

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
