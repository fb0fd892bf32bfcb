"""The training schemes by name."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.training.training_scheme import TrainingScheme

if TYPE_CHECKING:
    from torch import Tensor

    from tercel.sw.training.activation_quantizer import ActivationQuantizer
    from tercel.sw.training.weight_quantizer import WeightQuantizer

_EVEN_BITS = 8
"""At this width rounding costs nothing, and every scheme takes the even grid of symmetric codes."""


@dataclass(frozen=True, kw_only=True)
class Uniform(TrainingScheme):
    """Even steps with learned scales, one for each output channel; the clipped straight-through estimator. Base of the other schemes."""

    def weight_quantizer(self, weight: "Tensor", *, bits: int) -> "WeightQuantizer":
        """See :meth:`~tercel.sw.training.training_scheme.TrainingScheme.weight_quantizer`."""
        from tercel.sw.training.uniform_weights import UniformWeights

        return UniformWeights(weight, bits=bits)

    def activation_quantizer(self, values: "Tensor", *, bits: int) -> "ActivationQuantizer":
        """See :meth:`~tercel.sw.training.training_scheme.TrainingScheme.activation_quantizer`."""
        from tercel.sw.training.uniform_activations import UniformActivations

        return UniformActivations(values, bits=bits)


@dataclass(frozen=True, kw_only=True)
class Ternary(Uniform):
    """Layers of 2 bits are ternary, others have even steps.

    Parameters
    ----------
    operator
        See :func:`~tercel.sw.training.ternary_weights.ternary_thresholds`.
    """

    bits: int = 2
    operator: Literal["naive", "tquant", "mquant"]

    def weight_quantizer(self, weight: "Tensor", *, bits: int) -> "WeightQuantizer":
        """See :meth:`~tercel.sw.training.training_scheme.TrainingScheme.weight_quantizer`."""
        from tercel.sw.training.ternary_weights import TernaryWeights

        return TernaryWeights(operator=self.operator) if bits == 2 else super().weight_quantizer(weight, bits=bits)


@dataclass(frozen=True, kw_only=True)
class Category(Uniform):
    """Categorical probability quantization below 8 bits, one step for the layer.

    Parameters
    ----------
    estimator
        ``literal`` and ``all``: see :func:`~tercel.sw.training.category.round_by_category`; ``identity``: the straight-through
        estimator on the same grid.
    normalized
        Whether probabilities are divided by their sum over the grid.
    """

    estimator: Literal["literal", "all", "identity"] = "literal"
    normalized: bool = False

    def weight_quantizer(self, weight: "Tensor", *, bits: int) -> "WeightQuantizer":
        """See :meth:`~tercel.sw.training.training_scheme.TrainingScheme.weight_quantizer`."""
        from tercel.sw.training.category_weights import CategoryWeights, IdentityWeights

        if bits == _EVEN_BITS:
            return super().weight_quantizer(weight, bits=bits)
        if self.estimator == "identity":
            return IdentityWeights(weight, bits=bits)
        return CategoryWeights(weight, bits=bits, backward=self.estimator, normalized=self.normalized)


@dataclass(frozen=True, kw_only=True)
class DropBits(Uniform):
    """Categorical probability quantization below 8 bits that learns the width of each layer.

    Parameters
    ----------
    normalized, nested
        See :class:`~tercel.sw.training.drop_bits.DropBitsWeights`.
    """

    normalized: bool = False
    nested: bool = True

    def weight_quantizer(self, weight: "Tensor", *, bits: int) -> "WeightQuantizer":
        """See :meth:`~tercel.sw.training.training_scheme.TrainingScheme.weight_quantizer`."""
        from tercel.sw.training.drop_bits import DropBitsWeights

        if bits == _EVEN_BITS:
            return super().weight_quantizer(weight, bits=bits)
        return DropBitsWeights(weight, bits=bits, normalized=self.normalized, nested=self.nested)


@dataclass(frozen=True, kw_only=True)
class Nonuniform(Uniform):
    """Odd levels for weights and learned thresholds for activations of 2, 3 and 4 bits, even steps for others."""

    bits: int = 4
    activation_bits: int | None = None
    thresholds: bool = True

    def weight_quantizer(self, weight: "Tensor", *, bits: int) -> "WeightQuantizer":
        """See :meth:`~tercel.sw.training.training_scheme.TrainingScheme.weight_quantizer`."""
        from tercel.sw.training.n2uq.learned_thresholds import WIDTHS
        from tercel.sw.training.n2uq.odd_weights import OddWeights

        return OddWeights(bits=bits) if bits in WIDTHS else super().weight_quantizer(weight, bits=bits)

    def activation_quantizer(self, values: "Tensor", *, bits: int) -> "ActivationQuantizer":
        """See :meth:`~tercel.sw.training.training_scheme.TrainingScheme.activation_quantizer`."""
        from tercel.sw.training.n2uq.learned_thresholds import WIDTHS, LearnedThresholds

        return LearnedThresholds(values, bits=bits) if bits in WIDTHS else super().activation_quantizer(values, bits=bits)


_ALL: tuple[TrainingScheme, ...] = (
    Uniform(name="uniform", bits=4, summary="even steps, a learned scale per channel, clipped straight-through estimator"),
    Ternary(name="ternary_naive", operator="naive", summary="weights -1, 0, 1: rounded to the nearest of them times the largest"),
    Ternary(name="tquant", operator="tquant", summary="weights -1, 0, 1 with the least largest error"),
    Ternary(name="mquant", operator="mquant", summary="weights -1, 0, 1, a third of each if they are normally distributed"),
    Category(name="cpq", bits=4, summary="categorical probability quantization: the gradient of the chosen point's probability"),
    Category(name="cpq_all", bits=4, estimator="all", summary="like cpq, with the gradient of all points' probabilities"),
    Category(name="identity_ste", bits=4, estimator="identity", summary="cpq's grid with the straight-through estimator"),
    DropBits(name="cpq_dropbits", bits=4, summary="like cpq, with masks that learn a width for each layer"),
    Nonuniform(name="n2uq", summary="N2UQ: learned thresholds for activations, weights on odd levels, both of 2, 3 or 4 bits"),
)

TRAINING_SCHEMES: dict[str, TrainingScheme] = {scheme.name: scheme for scheme in _ALL}


def find_training_scheme(scheme: str | TrainingScheme) -> TrainingScheme:
    """A scheme by name; a :class:`~tercel.sw.training.training_scheme.TrainingScheme` of your own passes through."""
    if isinstance(scheme, TrainingScheme):
        return scheme
    if scheme not in TRAINING_SCHEMES:
        raise QuantizeError(f"scheme must be one of {', '.join(TRAINING_SCHEMES)}, not {scheme!r} (or a TrainingScheme of your own)")
    return TRAINING_SCHEMES[scheme]
