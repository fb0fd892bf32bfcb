"""Weights that give back, to a layer's outputs, what the layers before it lost by being quantized.

What a layer reads in the quantized network is not what it reads in the float network. From the inputs that there are, other weights than
its own may come nearer to the outputs that there should be: those of a regression (asymmetric calibration: Li et al., arXiv 2504.02692).

A regression of many weights on few images finds much that holds on these images alone, and harms on all others. So what is found on one
half of the images is tried on the other.
"""

import torch
from torch import Tensor

from tercel.sw.quantize.input_moments import InputMoments, importance

_DAMPINGS = (0.0, 0.1, 1.0, 10.0)
"""Shares of the inputs' mean variance to choose from, besides the damping of the rounding."""


def least_squares_change(weights: Tensor, inputs: InputMoments, *, damping: float, mean_counts: bool) -> Tensor:
    """What to add to the weights to make of ``inputs`` what comes nearest to ``weights`` times the float network's.

    ``damping`` is a share of the inputs' mean variance: the more, the less is added.
    """
    mean_variance = inputs.covariance.diagonal(dim1=1, dim2=2).mean(dim=1)
    ridge = (damping * mean_variance)[:, None, None] * torch.eye(inputs.mean.shape[1], dtype=torch.float64)
    products = inputs.damped(mean_counts=mean_counts) + ridge
    change: Tensor = torch.linalg.solve(products, (weights @ inputs.lost(mean_counts=mean_counts)).transpose(1, 2))
    return change.transpose(1, 2)


def _gain(change: Tensor, weights: Tensor, inputs: InputMoments, *, mean_counts: bool) -> float:
    """How much less the outputs err with ``weights + change`` than with ``weights``: mean squares over the outputs' variances, summed."""
    variance = ((weights @ inputs.covariance) * weights).sum(dim=2)
    less = 2 * weights @ inputs.lost(mean_counts=mean_counts) - change @ inputs.products(mean_counts=mean_counts)
    return float(((change * less).sum(dim=2) * importance(variance)).sum())


def restored(weights: Tensor, halves: tuple[InputMoments, InputMoments], *, mean_counts: bool) -> Tensor:
    """The weights that make of the inputs what comes nearest to ``weights`` times the float network's.

    Parameters
    ----------
    weights
        ``[groups, outputs of a group, weights of an output]``, float64.
    halves
        The inputs on two halves of the images. Of several dampings the one counts that, found on either of them, gains most on the other;
        where none gains anything, the weights stay.
    mean_counts
        Whether the outputs' means are to be given back as well.
    """
    best, most = None, 0.0
    for damping in _DAMPINGS:
        gain = 0.0
        for half, other in (halves, halves[::-1]):
            change = least_squares_change(weights, half, damping=damping, mean_counts=mean_counts)
            gain += _gain(change, weights, other, mean_counts=mean_counts)
        if gain > most:
            best, most = damping, gain
    if best is None:
        return weights
    whole = halves[0].with_more(halves[1])
    return weights + least_squares_change(weights, whole, damping=best, mean_counts=mean_counts)
