"""Activations on a grid of even steps, with a learned scale."""

import math

import torch
from torch import Tensor, nn

from tercel.sw.quantize.code_range import best_range, scale_and_zero_point
from tercel.sw.quantize.histogram import BINS, Histogram
from tercel.sw.training.activation_quantizer import ActivationQuantizer
from tercel.sw.training.learned_step import LearnedStep


def _histogram(values: Tensor) -> Histogram:
    histogram = Histogram()
    histogram.make_room(float(values.min()), float(values.max()))
    if histogram.reach > 0:
        counts = torch.histc(values, bins=2 * BINS, min=-histogram.reach, max=histogram.reach)
        histogram.add(counts.numpy().astype("float64"))
    return histogram


def first_scale(values: Tensor, *, bits: int) -> tuple[float, int]:
    """Scale and zero point of the even steps that lose the least squared error of ``values``, ``2**bits`` codes in all."""
    codes = (1 << bits) - 1
    low, high = best_range(_histogram(values.detach().flatten()), codes=codes)
    return scale_and_zero_point(low, high, codes=codes)


class UniformActivations(ActivationQuantizer):
    """``scale * (clip(round(x / scale) + z, 0, largest code) - z)`` with a learned scale and a fixed zero point ``z``.

    The gradient passes to values that are not clipped, and to the scale as in learned step size quantization (Esser et al.,
    arXiv 1902.08153). The scale's logarithm is the parameter.

    Parameters
    ----------
    values
        Values of the tensor; the range that loses the least squared error of them is the first one.
    bits
        2..8.
    """

    def __init__(self, values: Tensor, *, bits: int) -> None:
        super().__init__(bits=bits)
        scale, zero_point = first_scale(values, bits=bits)
        self.log_scale = nn.Parameter(torch.tensor([math.log(scale)]))
        self.register_buffer("offset", torch.tensor([float(zero_point)]))

    @property
    def scale(self) -> float:
        """The learned one."""
        return float(self.log_scale.detach().exp())

    def get_scale(self) -> Tensor:
        """See the base class."""
        return self.log_scale.detach().exp()

    @property
    def zero_point(self) -> int:
        """As chosen at the start."""
        assert isinstance(self.offset, Tensor)
        return int(self.offset)

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        share = (values.numel() / len(values) * self.largest_code) ** -0.5
        ends = -self.zero_point, self.largest_code - self.zero_point
        rounded: Tensor = LearnedStep.apply(values, self.log_scale.exp(), ends, share)  # type: ignore[no-untyped-call]
        return rounded
