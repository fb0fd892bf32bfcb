"""Means and mean products of what a layer's weights multiply, from the layer's inputs on calibration images."""

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
"""Output positions of all images together that count, for each weight of an output: about, and at most."""

_DAMPING = 0.01
"""Share of the inputs' mean variance that is added to each one's own, at least."""

_FLOOR = 1e-6
"""Of the damping, as a share of the inputs' mean square; its inverse squared must stay above the precision of float64."""

QUIET = 1e-3
"""Variance of an output, as a share of the mean of all, below which its errors count no more than at this one."""


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

    def products(self, *, mean_counts: bool) -> Tensor:
        """Mean products, of the shape of the covariance; without means if they do not count."""
        return self.covariance + self.mean @ self.mean.transpose(1, 2) if mean_counts else self.covariance

    def damped(self, *, mean_counts: bool) -> Tensor:
        """The mean products, more on their diagonal: so that they can be inverted, and chance is not taken for correlation."""
        products = self.products(mean_counts=mean_counts)
        mean_variance = self.covariance.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-30)
        # With few samples for many inputs, most of the covariance is chance.
        count = self.mean.shape[1]
        damping = mean_variance * max(_DAMPING, count / self.samples)
        # Inputs that hardly change have means far above their variance; without a floor the matrix would be singular to double precision.
        damping = torch.maximum(damping, _FLOOR * products.diagonal(dim1=1, dim2=2).mean(dim=1))
        return products + damping[:, None, None] * torch.eye(count, dtype=torch.float64)

    def lost(self, *, mean_counts: bool) -> Tensor:
        """Mean products of what the inputs lack with the inputs, without means if they do not count."""
        return self.lost_covariance + self.lost_mean @ self.mean.transpose(1, 2) if mean_counts else self.lost_covariance

    def with_more(self, other: "InputMoments") -> "InputMoments":
        """Of the samples of both."""
        samples = self.samples + other.samples
        here, there = self.samples / samples, other.samples / samples
        apart = here * there * (self.mean - other.mean).transpose(1, 2)
        return InputMoments(
            here * self.covariance + there * other.covariance + (self.mean - other.mean) @ apart,
            here * self.mean + there * other.mean,
            samples,
            here * self.lost_covariance + there * other.lost_covariance + (self.lost_mean - other.lost_mean) @ apart,
            here * self.lost_mean + there * other.lost_mean,
        )


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

    ``images`` are the layer's inputs, each of batch size 1. Of large outputs every few positions down and across count.
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


def importance(variance: Tensor) -> Tensor:
    """What the squared error of an output counts for, by the outputs' variances: relative to its own unless it is quiet."""
    return 1 / torch.maximum(variance, QUIET * variance.mean()).clamp(min=1e-30)
