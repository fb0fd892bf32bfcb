"""What stands between a layer's real weights and its convolution while the network trains."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn


class WeightQuantizer(nn.Module, ABC):
    """Rounds a layer's weights to codes times scales, and tells how a gradient passes back.

    A subclass has :meth:`scales`, :meth:`forward` and :attr:`code_range`; what it learns are parameters of its own, what it must keep in
    checkpoints are buffers. It never changes the weights. In front of a batch norm only the codes matter: the norm undoes the scales.

    Parameters
    ----------
    bits
        Width of a code, 2..8.
    """

    per_channel = True
    """Whether channels have scales of their own. The machine has one multiplier for all channels and a shift for each: scales that are
    not behind a batch norm are then brought to powers of two."""

    rates: ClassVar[Mapping[str, float]] = {}
    """Learning rates of parameters, by name, in units of the other parameters' rate; 1 for those that are left out."""

    def __init__(self, *, bits: int) -> None:
        super().__init__()
        self.bits = bits

    @property
    @abstractmethod
    def code_range(self) -> tuple[int, int]:
        """Lowest and highest code. ``(-7, 7)`` and ``(-8, 7)`` are 4 bits; ``(-3, 3)`` with odd codes only is a grid of 2 bits."""

    @abstractmethod
    def scales(self, weight: Tensor) -> Tensor:
        """The present scale of each output channel: positive ``[outputs]``, equal values unless :attr:`per_channel`."""

    @abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """``weight`` ``[outputs, ...]`` on its grid, ``scale * code``, of the same shape; differentiable, in training and evaluation."""

    @torch.no_grad()
    def codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The codes, int64 of the weight's shape inside :attr:`code_range`, and their scales, float32 ``[outputs]``.

        ``scale * code`` is what :meth:`forward` gives in evaluation mode.
        """
        scales = self.scales(weight)
        codes = torch.round(self(weight) / scales.reshape(-1, *[1] * (weight.dim() - 1)))
        return codes.to(torch.int64), scales.to(torch.float32)

    def align(self, weight: Tensor, gains: Tensor) -> None:
        """Before training starts: choose scales such that ``scale * gain`` are powers of two, where the quantizer is free to.

        ``gains`` ``[outputs]`` is what the batch norm behind the layer multiplies each channel by; 1 where there is none.
        """

    def settle(self) -> None:
        """Learn no more about the width (see :func:`tercel.sw.training.settle_bits`)."""

    def penalty(self) -> Tensor | None:
        """What the layer adds to the loss (see :func:`tercel.sw.training.regularizer`); None for nothing."""
        return None

    @property
    def learned_bits(self) -> int:
        """The width that training arrived at; :attr:`bits` where widths are not learned."""
        return self.bits
