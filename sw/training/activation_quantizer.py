"""What stands behind an operator whose output the machine stores as codes, while the network trains."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node


class ActivationQuantizer(nn.Module, ABC):
    """Rounds a tensor to unsigned codes, and tells how a gradient passes back.

    Several tensors that share their scale share one quantizer. What it learns are its parameters.

    Parameters
    ----------
    bits
        Width of a code, 2..8.
    """

    counts_thresholds = False
    """Whether a code is the number of thresholds passed. They are then moved to whole numbers with all constants before them, so that
    a layer's bias is not rounded."""
    rates: ClassVar[Mapping[str, float]] = {}
    """Learning rates of parameters, by name, in units of the other parameters' rate; 1 for those that are left out."""

    def __init__(self, *, bits: int) -> None:
        super().__init__()
        self.bits = bits

    @property
    def largest_code(self) -> int:
        """Codes are ``0..largest_code``."""
        return (1 << self.bits) - 1

    @property
    @abstractmethod
    def scale(self) -> float:
        """Positive, a float32 number: a code stands for ``scale * (code - zero_point)``."""

    def get_scale(self) -> Tensor:
        """:attr:`scale` as a tensor, without a gradient."""
        return torch.tensor(self.scale)

    @property
    def zero_point(self) -> int:
        """The code of 0.0, in ``0..largest_code``."""
        return 0

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """``values`` rounded to what codes can stand for, of the same shape; differentiable, in training and evaluation."""

    def insert_codes(self, graph_module: GraphModule, value: Node) -> Node:
        """Write the operators that turn ``value`` into codes into a graph that is being converted; returns the node of uint8 codes.

        New nodes go where ``graph_module.graph`` inserts at the moment; constants become buffers of ``graph_module``, under a name of
        their own. The codes stand for what :meth:`forward` returns. This one rounds to the nearest code.
        """
        return self.insert_rounding(graph_module, value)

    def insert_rounding(self, graph_module: GraphModule, value: Node) -> Node:
        """As :meth:`insert_codes`, for values that :meth:`forward` has already rounded (behind a max pool, a reshape and their kind)."""
        arguments = (value, self.scale, self.zero_point, 0, self.largest_code, torch.uint8)
        node: Node = graph_module.graph.call_function(torch.ops.quantized_decomposed.quantize_per_tensor.default, arguments)
        return node
