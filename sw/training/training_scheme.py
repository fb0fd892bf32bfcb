"""Training schemes: how weights and activations are rounded, and what gradient passes back, while a network trains."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tercel.sw.quantize.bit_widths import check_width

if TYPE_CHECKING:
    from torch import Tensor

    from tercel.sw.training.activation_quantizer import ActivationQuantizer
    from tercel.sw.training.weight_quantizer import WeightQuantizer


@dataclass(frozen=True, kw_only=True)
class TrainingScheme(ABC):
    """A training scheme; see :data:`~tercel.sw.training.TRAINING_SCHEMES` for the named ones. Making one does not import torch.

    Parameters
    ----------
    name
        As the command line spells it.
    bits
        Width of a layer's weights where the user names none.
    activation_bits
        Width of the tensors that only layers of less than 8 bits read. The network's input and output, operands of adds and averages,
        and inputs of layers of 8 bits have 8 bits in any scheme. None: as many as the weights of those layers.
    edge_bits
        Width of the weights of the first and of the last layer, where the user's patterns do not name them.
    summary
        One line for listings.
    thresholds
        Whether tensors of few bits count thresholds; then PReLU and sums and products with constants may stand before them.
    """

    name: str
    bits: int
    activation_bits: int | None = 8
    edge_bits: int = 8
    summary: str
    thresholds: bool = False

    def __post_init__(self) -> None:
        check_width(self.bits, name="bits")
        check_width(self.edge_bits, name="edge_bits")
        if self.activation_bits is not None:
            check_width(self.activation_bits, name="activation_bits")

    @abstractmethod
    def weight_quantizer(self, weight: "Tensor", *, bits: int) -> "WeightQuantizer":
        """The quantizer of a layer.

        Parameters
        ----------
        weight
            The layer's float weights ``[outputs, inputs of a group, ...]``, to start from; batch norm is not folded into them.
        bits
            2..8.
        """

    @abstractmethod
    def activation_quantizer(self, values: "Tensor", *, bits: int) -> "ActivationQuantizer":
        """The quantizer of a tensor, or of all tensors that share a scale.

        Parameters
        ----------
        values
            What the float network has there on the example images, flat, to start from.
        bits
            2..8, chosen after ``activation_bits``.
        """
