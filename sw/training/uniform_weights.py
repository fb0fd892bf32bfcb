"""Weights on a symmetric grid of even steps, with the clipped straight-through estimator."""

import torch
from torch import Tensor, nn

from tercel.sw.quantize.scheme import largest_code
from tercel.sw.training.weight_quantizer import WeightQuantizer

_SMALLEST = 2.0**-60
_CANDIDATES = 48


def best_scales(rows: Tensor, *, low: int, high: int) -> Tensor:
    """The scale of least squared error of each row of ``[rows, weights]`` on the grid ``scale * (low..high)``; positive ``[rows]``.

    Of 48 scales, from the one that clips nothing down to a quarter of it.
    """
    reach = torch.maximum(rows.amax(dim=1) / high, rows.amin(dim=1) / low).clamp(min=_SMALLEST)
    best, least = reach, torch.full_like(reach, float("inf"))
    for step in range(_CANDIDATES):
        scale = reach * (1 - 0.75 * step / _CANDIDATES)
        rounded = torch.clamp(torch.round(rows / scale[:, None]), low, high) * scale[:, None]
        error = (rounded - rows).square().sum(dim=1)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


class UniformWeights(WeightQuantizer):
    """``scale[c] * clip(round(w / scale[c]), -limit, limit)``, a learned scale for each output channel.

    The gradient passes to weights that are not clipped, and to the scale as in learned step size quantization (Esser et al.,
    arXiv 1902.08153): the rounding error in steps, or the limit where a weight is clipped. The scale's logarithm is the parameter.

    Parameters
    ----------
    weight
        ``[outputs, ...]``; the scales of least squared error on it are the first ones.
    bits
        2..8; ``limit`` is ``2**(bits - 1) - 1``.
    learned
        Whether the scales learn.
    """

    log_scale: Tensor

    def __init__(self, weight: Tensor, *, bits: int, learned: bool = True) -> None:
        super().__init__(bits=bits)
        low, high = self.code_range
        scales = best_scales(weight.detach().flatten(1), low=low, high=high)
        self.log_scale = nn.Parameter(scales.log(), requires_grad=learned)
        self.register_buffer("zeros", torch.zeros_like(scales), persistent=False)

    @property
    def code_range(self) -> tuple[int, int]:
        """Symmetric."""
        return -largest_code(self.bits), largest_code(self.bits)

    def scales(self, weight: Tensor) -> Tensor:
        """The learned ones."""
        return self.log_scale.exp()

    def forward(self, weight: Tensor) -> Tensor:
        """See the class."""
        share = (weight[0].numel() * self.code_range[1]) ** -0.5
        assert isinstance(self.zeros, Tensor)
        return torch._fake_quantize_learnable_per_channel_affine(weight, self.scales(weight), self.zeros, 0, *self.code_range, share)

    @torch.no_grad()
    def align(self, weight: Tensor, gains: Tensor) -> None:
        """Scales between those of least error and about one and a half of them: the next that suits the powers of two."""
        reach = self.log_scale.exp() * gains.clamp(min=_SMALLEST)
        # With few codes, clipping a little costs less than coarser steps.
        tolerance = 0.02 if self.bits == 8 else 0.4
        powers = torch.exp2(torch.ceil(reach.log2() - tolerance))
        self.log_scale.copy_((powers / gains.clamp(min=_SMALLEST)).log())
