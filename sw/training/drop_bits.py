"""Categorical probability quantization whose grid loses its outer points at random in training: DropBits.

The points of a grid of two's complement belong to levels: -1 and 0 to the first, -2 and 1 to the second, -4, -3, 2, 3 to the third. In
each step of the training a mask of 0..1 is drawn for each level but the first, and multiplies the probabilities of the level's points; a
weight goes to the point that is then most probable. How likely a level is to stay is learned, a width for each layer with it.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from tercel.sw.training.category import log_likelihood, round_by_category
from tercel.sw.training.category_weights import CategoryWeights

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1
"""Of the hard-concrete distribution (Louizos, Welling and Kingma, arXiv 1712.01312): a stretched and clipped 0..1."""

_START = 0.9
_FEWEST = 2
_LOGIT_RATE = 30.0
"""A logit goes from 2 to -2 while weights of size 0.1 move by their own size."""


def code_levels(codes: Tensor) -> Tensor:
    """The level of each code: the bits of the smallest two's complement that holds it, int64."""
    magnitude = torch.where(codes < 0, -codes - 1, codes).to(torch.float64)
    return torch.frexp(magnitude).exponent.to(torch.int64) + 1


def draw_masks(logits: Tensor, noise: Tensor) -> Tensor:
    """Hard-concrete masks, 0..1, for ``noise`` of 0..1, of the same shape; ``logits`` of 0 keep half of the probability."""
    stretched = torch.sigmoid((torch.logit(noise) + logits) / TEMPERATURE) * (HIGH - LOW) + LOW
    return stretched.clamp(0, 1)


def keep_probability(logits: Tensor) -> Tensor:
    """The probability that a mask is not zero."""
    return torch.sigmoid(logits - TEMPERATURE * math.log(-LOW / HIGH))


def kept_levels(logits: Tensor) -> Tensor:
    """Which masks are not zero in evaluation, where nothing is drawn; bool."""
    return torch.sigmoid(logits) * (HIGH - LOW) + LOW > 0


def choose_codes(x: Tensor, *, alpha: Tensor, sigma: Tensor, masks: Tensor) -> Tensor:
    """The code of each weight that is most probable when ``masks`` ``[bits - 1]`` multiply the probabilities of levels 2 and up."""
    x, alpha, sigma, masks = x.detach(), alpha.detach(), sigma.detach(), masks.detach()
    nearest = torch.round(x / alpha)
    best = nearest.clamp(-1, 0)
    most = log_likelihood(x, best, alpha=alpha, sigma=sigma)
    for index, log_mask in enumerate(masks.log().tolist()):
        if log_mask == -math.inf:
            continue
        inner, outer = 1 << index, (2 << index) - 1
        # Of a level, only the side where the weight is can win.
        k = torch.where(x < 0, nearest.clamp(-outer - 1, -inner - 1), nearest.clamp(inner, outer))
        found = log_likelihood(x, k, alpha=alpha, sigma=sigma) + log_mask
        best, most = torch.where(found > most, k, best), torch.maximum(found, most)
    return best


class DropBitsWeights(CategoryWeights):
    """Rounds to the grid points that the masks leave; in evaluation, to the levels that the training kept.

    Parameters
    ----------
    weight
        ``[outputs, ...]``.
    bits
        Width to start from, 2..8.
    normalized
        See :func:`~tercel.sw.training.category.round_by_category`.
    nested
        Whether a level counts only when all levels below do, as widths of codes need it. Otherwise grids may have holes.
    """

    rates: ClassVar[Mapping[str, float]] = {"keep_logits": _LOGIT_RATE}

    def __init__(self, weight: Tensor, *, bits: int, normalized: bool = False, nested: bool = True) -> None:
        super().__init__(weight, bits=bits, normalized=normalized)
        self.nested = nested
        self.keep_logits = nn.Parameter(torch.full((bits - 1,), math.log(_START / (1 - _START))))
        self.register_buffer("settled", torch.tensor(False))

    @property
    def code_range(self) -> tuple[int, int]:
        """Two's complement of :attr:`bits` while the width is learned, of :attr:`learned_bits` in evaluation."""
        bits = self.bits if self.training else self.learned_bits
        return -(1 << bits - 1), (1 << bits - 1) - 1

    def masks(self) -> Tensor:
        """Masks of levels 2 and up, ``[bits - 1]``: drawn in training, 0 or 1 in evaluation and once :meth:`settle` was called."""
        drawn = self.training and not self.settled
        if drawn:
            masks = draw_masks(self.keep_logits, torch.rand_like(self.keep_logits).clamp(1e-6, 1 - 1e-6))
        else:
            masks = kept_levels(self.keep_logits).to(self.keep_logits.dtype)
        masks = masks.cumprod(dim=0) if self.nested else masks
        if not drawn:
            masks[: _FEWEST - 1] = 1.0
        return masks

    def forward(self, weight: Tensor) -> Tensor:
        """See the class."""
        low, high = self.code_range
        alpha, sigma, masks = self.log_scale.exp(), self.log_sigma.exp(), self.masks()
        k = choose_codes(weight, alpha=alpha, sigma=sigma, masks=masks)
        keep = torch.cat([masks.new_ones(1), masks])[code_levels(k) - 1]
        return round_by_category(weight, k, alpha=alpha, sigma=sigma, low=low, high=high, normalized=self.normalized, keep=keep)

    def settle(self) -> None:
        """Keep the present width from here on: no more masks are drawn."""
        assert isinstance(self.settled, Tensor)
        self.settled.fill_(True)
        self.keep_logits.requires_grad_(False)

    def penalty(self) -> Tensor | None:
        """The expected number of levels above the first; None when the width is settled."""
        if self.settled:
            return None
        kept = keep_probability(self.keep_logits)
        return (kept.cumprod(dim=0) if self.nested else kept).sum()

    @property
    def learned_bits(self) -> int:
        """The highest level that is kept, at least 2."""
        kept = kept_levels(self.keep_logits.detach()).tolist()
        if self.nested:
            return max(_FEWEST, 1 + (kept.index(False) if False in kept else len(kept)))
        return max(_FEWEST, 1 + max((level for level, stays in enumerate(kept, start=1) if stays), default=0))
