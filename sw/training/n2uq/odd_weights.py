"""Weights on odd levels, scaled so that all levels are used alike."""

import torch
from torch import Tensor

from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.training.n2uq.learned_thresholds import WIDTHS
from tercel.sw.training.weight_quantizer import WeightQuantizer

_SMALLEST = 2.0**-60


class OddWeights(WeightQuantizer):
    """``m / 2**(bits - 1) * k`` with odd k in -N..N, N = 2**bits - 1; m is the mean magnitude of the output channel's weights.

    k is N times the nearest level to ``clip(v, -1, 1)``, where ``v = w * 2**(bits - 1) / (N * m)``: weights that are spread evenly over
    ``-2m..2m`` fall on all 2**bits levels alike. There is no level 0. The gradient is that of the method's authors: it passes from a
    quantized weight to v, clipped or not, so that ``dL/dw = dL/dq * 2**(bits - 1) / (N * m)``; m is taken as a constant. With Adam, which
    divides by a gradient's size, the factor does not matter; with plain gradient descent take smaller steps.

    Parameters
    ----------
    bits
        2, 3 or 4.
    """

    def __init__(self, *, bits: int) -> None:
        if bits not in WIDTHS:
            raise QuantizeError(f"bits must be 2, 3 or 4, not {bits} (odd levels: at 8 bits take even steps)")
        super().__init__(bits=bits)

    @property
    def code_range(self) -> tuple[int, int]:
        """Odd codes only."""
        return 1 - (1 << self.bits), (1 << self.bits) - 1

    def scales(self, weight: Tensor) -> Tensor:
        """``m / 2**(bits - 1)``."""
        return weight.detach().abs().flatten(1).mean(dim=1).clamp(min=_SMALLEST) / (1 << self.bits - 1)

    def forward(self, weight: Tensor) -> Tensor:
        """See the class."""
        largest = self.code_range[1]
        scales = self.scales(weight).reshape(-1, *[1] * (weight.dim() - 1))
        scaled = weight / (scales * largest)
        index = torch.round((scaled.detach().clamp(-1, 1) + 1) * (largest / 2))
        quantized = scales * (2 * index - largest)
        return quantized + (scaled - scaled.detach())
