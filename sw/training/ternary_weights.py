"""Ternary weights in training: three operators that choose the threshold below which a weight is zero."""

from typing import Literal

import torch
from torch import Tensor

from tercel.sw.training.weight_quantizer import WeightQuantizer

TernaryOperator = Literal["naive", "tquant", "mquant"]

_SMALLEST = 2.0**-60
_TERTILE = 0.43072729929545744
"""The standard normal distribution has a third of its mass within plus or minus this."""


def ternary_thresholds(weight: Tensor, *, operator: TernaryOperator) -> Tensor:
    """The threshold of each output channel of ``weight`` ``[outputs, ...]``: a weight of at most that magnitude is zero.

    ``naive`` rounds to the nearest of -m, 0, m, with m the largest magnitude: m / 2. ``tquant`` keeps the largest error least: m / 3.
    ``mquant`` gives each code a third of the weights, if they are normally distributed around zero: 0.4307 of their root mean square.
    (After Yvinec, Dapogny and Bailly, arXiv 2306.17442.)
    """
    rows = weight.detach().flatten(1)
    if operator == "mquant":
        return rows.square().mean(dim=1).sqrt() * _TERTILE
    return rows.abs().amax(dim=1) / (2 if operator == "naive" else 3)


class TernaryWeights(WeightQuantizer):
    """``2 * threshold[c] * (-1, 0 or 1)``, the threshold computed anew from the weights in each step.

    Thresholds are constants of the gradient, which passes to all weights as if they were not rounded.

    Parameters
    ----------
    operator
        See :func:`ternary_thresholds`.
    """

    def __init__(self, *, operator: TernaryOperator) -> None:
        super().__init__(bits=2)
        self.operator: TernaryOperator = operator

    @property
    def code_range(self) -> tuple[int, int]:
        """Three codes."""
        return -1, 1

    def scales(self, weight: Tensor) -> Tensor:
        """Twice the thresholds."""
        return (2 * ternary_thresholds(weight, operator=self.operator)).clamp(min=_SMALLEST)

    def forward(self, weight: Tensor) -> Tensor:
        """See the class."""
        scales = self.scales(weight).reshape(-1, *[1] * (weight.dim() - 1))
        rounded = torch.where(weight.detach().abs() > scales / 2, weight.detach().sign() * scales, 0.0)
        return rounded + (weight - weight.detach())
