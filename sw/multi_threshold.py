"""The operator ``tercel::multi_threshold``: how converted networks write an activation that is a number of thresholds passed.

Importing this module registers it with PyTorch.
"""

import torch
from torch import Tensor

MAX_THRESHOLDS = 15
"""Thresholds that the machine compares one value with; codes of 4 bits have so many."""


@torch.library.custom_op("tercel::multi_threshold", mutates_args=())
def multi_threshold(x: Tensor, thresholds: Tensor) -> Tensor:
    """The number of thresholds below each value: ``#{i : x > thresholds[c, i]}`` for values of channel c.

    Parameters
    ----------
    x
        ``[batch, channels, ...]``, real.
    thresholds
        ``[count]`` for all channels, or ``[channels, count]``; in any order, infinities allowed; count in 1..15.

    Returns
    -------
    uint8 codes of the shape of ``x``. ``ValueError`` for thresholds of another shape.
    """
    table = _table(x, thresholds)
    shape = (-1, *[1] * (x.dim() - 2))
    codes = torch.zeros(x.shape, dtype=torch.uint8, device=x.device)
    for column in table.unbind(1):
        codes += x > column.reshape(shape)
    return codes


@multi_threshold.register_fake
def _(x: Tensor, thresholds: Tensor) -> Tensor:
    _table(x, thresholds)
    return torch.empty_like(x, dtype=torch.uint8)


def _table(x: Tensor, thresholds: Tensor) -> Tensor:
    """``[channels or 1, count]``."""
    if x.dim() < 2:
        raise ValueError(f"x must have at least 2 dimensions, not {x.dim()} (batch and channels come first)")
    rows = thresholds.shape[0] if thresholds.dim() == 2 else 1
    count = thresholds.shape[-1] if thresholds.dim() in (1, 2) else 0
    if not 1 <= count <= MAX_THRESHOLDS or rows not in (1, x.shape[1]):
        limit = f"of shape (1..{MAX_THRESHOLDS},) or ({x.shape[1]}, 1..{MAX_THRESHOLDS})"
        raise ValueError(f"thresholds must be {limit}, not {tuple(thresholds.shape)} (one row a channel, or one for all)")
    return thresholds.reshape(rows, count)
