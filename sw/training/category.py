"""The probability that a weight with logistic noise falls into the cell of a grid point, and rounding with its gradient.

With grid points ``alpha * k`` and noise of scale ``sigma``, a weight ``x`` falls into the cell of ``k`` with the probability::

    p(k) = S(upper) - S(lower)        upper, lower = ((k + 1/2) * alpha - x) / sigma, ((k - 1/2) * alpha - x) / sigma

with ``S(u) = 1 / (1 + exp(-u))``. The most probable point is the nearest one. Categorical probability quantization rounds to it and takes
the gradient of its probability (arXiv 2109.02100): zero at the grid point, and largest at the ends of the cell, towards the point when
the loss wants the weight to be there, and out of the cell when it does not.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Backward = Literal["literal", "all"]


def cell_ends(x: Tensor, k: Tensor, *, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower end of the cells of ``k`` as seen from ``x``, in units of the noise."""
    return ((k + 0.5) * alpha - x) / sigma, ((k - 0.5) * alpha - x) / sigma


def probability(x: Tensor, k: Tensor, *, alpha: Tensor, sigma: Tensor) -> Tensor:
    """``p(k)``; ``x`` and ``k`` broadcast. Written as a product, so that nothing cancels far away from the cell."""
    upper, lower = cell_ends(x, k, alpha=alpha, sigma=sigma)
    return torch.sigmoid(upper) * torch.sigmoid(-lower) * -torch.expm1(-alpha / sigma)


def log_likelihood(x: Tensor, k: Tensor, *, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The logarithm of ``p(k)``, but for a term that is the same for all ``x`` and ``k``."""
    upper, lower = cell_ends(x, k, alpha=alpha, sigma=sigma)
    return logsigmoid(upper) + logsigmoid(-lower)


def whole_grid(x: Tensor, *, alpha: Tensor, sigma: Tensor, low: int, high: int) -> Tensor:
    """The sum of ``p(k)`` over ``low..high``: what the normalised probabilities are divided by."""
    upper = cell_ends(x, torch.tensor(float(high)), alpha=alpha, sigma=sigma)[0]
    lower = cell_ends(x, torch.tensor(float(low)), alpha=alpha, sigma=sigma)[1]
    return torch.sigmoid(upper) * torch.sigmoid(-lower) * -torch.expm1(lower - upper)


def nearest_code(x: Tensor, *, alpha: Tensor, low: int, high: int) -> Tensor:
    """The most probable ``k`` of ``low..high``."""
    return torch.clamp(torch.round(x.detach() / alpha.detach()), low, high)


def _all_points(x: Tensor, *, alpha: Tensor, sigma: Tensor, low: int, high: int, normalized: bool) -> Tensor:
    """The mean grid point in steps, ``sum of k * p(k)``, summed by parts: one sigmoid for each border between cells."""
    upper = torch.sigmoid(((high + 0.5) * alpha - x) / sigma)
    lower = torch.sigmoid(((low - 0.5) * alpha - x) / sigma)
    mean = high * upper - low * lower
    for border in range(low, high):
        mean = mean - torch.sigmoid(((border + 0.5) * alpha - x) / sigma)
    return mean / whole_grid(x, alpha=alpha, sigma=sigma, low=low, high=high) if normalized else mean


def round_by_category(
    x: Tensor,
    k: Tensor,
    *,
    alpha: Tensor,
    sigma: Tensor,
    low: int,
    high: int,
    backward: Backward = "literal",
    normalized: bool = False,
    keep: Tensor | None = None,
) -> Tensor:
    """``alpha * k`` with the gradient of categorical probability quantization.

    Parameters
    ----------
    x
        Weights.
    k
        The codes that were chosen for them, whole numbers in ``low..high``, of the same shape.
    alpha, sigma
        Step of the grid and scale of the noise, positive scalars.
    low, high
        Ends of the grid, in steps.
    backward
        ``literal``: the gradient of the output's one category, ``alpha * k * dp(k)``, which is zero for weights that are zero. ``all``: of
        all categories, ``sum of alpha * j * dp(j)``.
    normalized
        Whether probabilities are divided by their sum over the grid. Without, a weight beyond the grid is pulled back to its end.
    keep
        What masks multiply the probability of each weight's category by, of the shape of ``x``; for ``literal`` only.
    """
    step = alpha.detach()
    if backward == "all":
        soft = step * _all_points(x, alpha=alpha, sigma=sigma, low=low, high=high, normalized=normalized)
        return alpha * k + (soft - soft.detach())
    chosen = probability(x, k, alpha=alpha, sigma=sigma)
    if normalized:
        chosen = chosen / whole_grid(x, alpha=alpha, sigma=sigma, low=low, high=high)
    if keep is not None:
        chosen = chosen * keep
    return alpha * k + step * k * (chosen - chosen.detach())
