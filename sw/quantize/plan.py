"""Which tensors of a captured graph carry codes, and which of them share a scale."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import GraphModule, Node


def is_real(value: object) -> bool:
    """Whether a value is a node that makes a tensor of real numbers."""
    return isinstance(value, Node) and isinstance(tensor := value.meta.get("val"), torch.Tensor) and tensor.is_floating_point()


def value_shape(node: Node) -> tuple[int, ...]:
    """Shape of the tensor that a node makes; that of an observer is its source's."""
    while node.op == "call_module":
        node = node.all_input_nodes[0]
    return tuple(node.meta["val"].shape)


def module_path(node: Node) -> str:
    """Path of the module whose ``forward`` called the operator (``features.3.conv.0.0``), or the node's name outside modules."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack and stack[-1][0] else node.name


def constant(graph_module: GraphModule, node: Node) -> Tensor:
    """The parameter or buffer that a node reads."""
    owner, _, name = str(node.target).rpartition(".")
    value = getattr(graph_module.get_submodule(owner), name)
    assert isinstance(value, Tensor)
    return value


@dataclass
class Plan:
    """Decisions about one graph, taken operator by operator in the graph's order.

    Parameters
    ----------
    quantized
        Tensors that carry codes.
    weighted
        Convolutions and linear layers, whose weights and biases carry codes too.
    fused
        Operators that are part of an earlier one: they need no decision of their own.
    thresholds
        Whether tensors may be rounded by counting thresholds, which take up functions of each value before them.
    """

    quantized: set[Node] = field(default_factory=set)
    weighted: list[Node] = field(default_factory=list)
    fused: set[Node] = field(default_factory=set)
    thresholds: bool = False
    _parents: dict[Node, Node] = field(default_factory=dict)

    def quantize(self, *tensors: object) -> None:
        """Give tensors codes; anything but a real tensor that is computed (or the input) is passed over."""
        self.quantized |= {tensor for tensor in tensors if isinstance(tensor, Node) and is_real(tensor) and tensor.op != "get_attr"}

    def share(self, first: Node, *others: Node) -> None:
        """Give tensors codes of one scale."""
        self.quantize(first, *others)
        for other in others:
            one, two = sorted((self.root(first), self.root(other)))
            if one is not two:
                self._parents[two] = one

    def root(self, tensor: Node) -> Node:
        """The first of the tensors that share their scale with this one."""
        while tensor in self._parents:
            tensor = self._parents[tensor]
        return tensor
