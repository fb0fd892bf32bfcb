"""Training PyTorch networks to low-bit weights and activations, in a loop of the user's own.

Importing the package does not import torch; its functions do, when they are called.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tercel.sw.training.schemes import TRAINING_SCHEMES
from tercel.sw.training.training_scheme import TrainingScheme

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

__all__ = [
    "TRAINING_SCHEMES",
    "TrainingScheme",
    "convert",
    "learned_bits",
    "parameter_groups",
    "prepare",
    "regularizer",
    "settle_bits",
    "zero_shares",
]


def prepare(
    model: "nn.Module",
    *,
    example: "Tensor",
    scheme: str | TrainingScheme = "uniform",
    bits: int | Mapping[str, int] | None = None,
) -> "nn.Module":
    """Make a network that computes, while it trains, what the machine will compute.

    Weights and activations are rounded in every forward pass, and the scheme says what gradient passes back. Scales are held to what the
    machine has: of a layer's folded weight scales each is a power of two of the others. The result trains as any module: with an
    optimizer, ``train()`` and ``eval()``, ``state_dict()``, ``to(device)`` and any number of images. Parameters keep their names; what is
    learned about rounding stands beside them (``features.0.0.weight_quantizer.log_scale``), and :func:`parameter_groups` knows the
    learning rates for it. :func:`convert` turns the result into codes.

    Parameters
    ----------
    model
        Stays as it is; trained or not. Its mode, training or evaluation, is the result's.
    example
        Images ``[images, channels, height, width]`` as the network will see them, a batch or so: they give activations their first ranges.
    scheme
        A name in :data:`TRAINING_SCHEMES` or a :class:`TrainingScheme`.
    bits
        Weight bits, 2..8. A number is for all layers but the first and the last, which keep the scheme's ``edge_bits``; patterns on module
        names (``{"features.1*": 3}``) are for what they match, the last match counting. None, and layers without a match, take the
        scheme's own.

    Raises
    ------
    QuantizeError
        For arguments out of range, values that are not finite, and networks that ``torch.export`` refuses.
    """
    from tercel.sw.training.preparation import prepare_model

    return prepare_model(model, example=example, scheme=scheme, bits=bits)


def convert(prepared: "nn.Module") -> "ExportedProgram":
    """Turn what :func:`prepare` made into codes: a program as :func:`tercel.quantize` returns, for :func:`tercel.compile`.

    Batch norms are folded, weights are codes with a scale for each output channel, biases are int32. It computes what ``prepared`` does
    in evaluation mode, but for the rounding of biases. ``prepared`` stays as it is.

    Raises
    ------
    QuantizeError
        For a module that :func:`prepare` did not make, and parameters that are not finite.
    """
    from tercel.sw.training.conversion import convert_model

    return convert_model(prepared)


def parameter_groups(prepared: "nn.Module", *, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """All parameters as an optimizer takes them: at ``lr``, but for those of quantizers that ask for another rate.

    ``weight_decay`` is for weights alone, not for biases, norms and what quantizers learn.
    """
    from tercel.sw.training.learning_rates import make_groups

    return make_groups(prepared, lr=lr, weight_decay=weight_decay)


def regularizer(prepared: "nn.Module") -> "Tensor":
    """What to add to the loss, times a factor: the expected number of levels of all layers that learn their width; zero without such."""
    from tercel.sw.training.layers import sum_penalties

    return sum_penalties(prepared)


def learned_bits(prepared: "nn.Module") -> dict[str, int]:
    """Weight bits of each layer by its path, as far as training has taken them; a mapping that ``bits`` takes."""
    from tercel.sw.training.layers import quantized_layers

    return {name: quantizer.learned_bits for name, quantizer, _ in quantized_layers(prepared)}


def settle_bits(prepared: "nn.Module") -> None:
    """End the learning of widths: layers keep those that they have now, and train on with them.

    Call it when some of the training is left, so that weights and batch norms get used to the network as it will be.
    """
    from tercel.sw.training.layers import quantized_layers

    for _, quantizer, _ in quantized_layers(prepared):
        quantizer.settle()


def zero_shares(prepared: "nn.Module") -> dict[str, float]:
    """The share of each layer's weights that are zero as codes. With scheme ``cpq`` no gradient reaches them."""
    from tercel.sw.training.layers import quantized_layers

    return {name: float((quantizer.codes(weight)[0] == 0).double().mean()) for name, quantizer, weight in quantized_layers(prepared)}
