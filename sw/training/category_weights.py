"""Weights rounded by categorical probability quantization, and the straight-through estimator on the same grid."""

from torch import Tensor, nn

from tercel.sw.training.category import Backward, nearest_code, round_by_category
from tercel.sw.training.uniform_weights import best_scales
from tercel.sw.training.weight_quantizer import WeightQuantizer

_NOISE = 1 / 3
"""Scale of the noise in steps of the grid, to start from."""


class GridWeights(WeightQuantizer):
    """Base of quantizers with one learned step for the layer and the codes ``-2**(bits - 1) .. 2**(bits - 1) - 1``.

    Parameters
    ----------
    weight
        ``[outputs, ...]``; the step of least squared error on it is the first one.
    bits
        2..8.
    """

    per_channel = False

    def __init__(self, weight: Tensor, *, bits: int) -> None:
        super().__init__(bits=bits)
        low, high = self.code_range
        self.log_scale = nn.Parameter(best_scales(weight.detach().reshape(1, -1), low=low, high=high).log()[0])

    @property
    def code_range(self) -> tuple[int, int]:
        """Two's complement."""
        return -(1 << self.bits - 1), (1 << self.bits - 1) - 1

    def scales(self, weight: Tensor) -> Tensor:
        """The step for all."""
        return self.log_scale.exp().expand(len(weight))


class IdentityWeights(GridWeights):
    """The nearest grid point; the gradient passes to all weights as if they were not rounded.

    The step's gradient is that of learned step size quantization.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """See the class."""
        low, high = self.code_range
        alpha = self.log_scale.exp()
        k = nearest_code(weight, alpha=alpha, low=low, high=high)
        inside = (weight.detach() / alpha.detach()).clamp(low, high)
        return alpha * (k - inside) + (alpha * inside).detach() + (weight - weight.detach())


class CategoryWeights(GridWeights):
    """The nearest grid point, with the gradient of its probability under logistic noise (:mod:`~tercel.sw.training.category`).

    The step and the scale of the noise are learned, one of each for the layer.

    Parameters
    ----------
    weight, bits
        As in the base.
    backward, normalized
        See :func:`~tercel.sw.training.category.round_by_category`.
    """

    def __init__(self, weight: Tensor, *, bits: int, backward: Backward = "literal", normalized: bool = False) -> None:
        super().__init__(weight, bits=bits)
        self.backward: Backward = backward
        self.normalized = normalized
        self.log_sigma = nn.Parameter((self.log_scale.detach().exp() * _NOISE).log())

    def forward(self, weight: Tensor) -> Tensor:
        """See the class."""
        low, high = self.code_range
        alpha, sigma = self.log_scale.exp(), self.log_sigma.exp()
        k = nearest_code(weight, alpha=alpha, low=low, high=high)
        return round_by_category(
            weight, k, alpha=alpha, sigma=sigma, low=low, high=high, backward=self.backward, normalized=self.normalized
        )
