"""Taking the batch norms behind layers out of a captured graph, to put them back as modules that train."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.quantize.families.weighted import is_weighted
from tercel.sw.quantize.plan import constant, module_path
from tercel.sw.training.norm import ShiftNorm

BATCH_NORM = torch.ops.aten.batch_norm.default
_MOMENTUM = 0.1


@dataclass(frozen=True)
class CapturedNorm:
    """A batch norm: path of its module, nodes of gain, bias, running mean and variance (or None), and its numbers."""

    path: str
    operands: tuple[Node | None, ...]
    momentum: float
    eps: float

    def module(self, graph_module: GraphModule) -> ShiftNorm:
        """A norm that trains from the present values on."""
        weight, bias, mean, variance = (None if node is None else constant(graph_module, node) for node in self.operands)
        if mean is None or variance is None:
            raise QuantizeError(f"module {self.path!r} must have running statistics (make it with track_running_stats=True)")
        # The captured operator has momentum 0 where the module averages over all batches.
        return ShiftNorm(weight, bias, mean, variance, momentum=self.momentum or _MOMENTUM, eps=self.eps)


def captured_norm(node: Node) -> CapturedNorm:
    """The batch norm that an operator of a graph computes."""
    operands: Any = node.args[1:5]
    numbers: Any = node.args[6:8]
    return CapturedNorm(module_path(node), tuple(operands), *numbers)


def take_norms(graph_module: GraphModule, values: dict[Node, Any]) -> dict[Node, CapturedNorm]:
    """Take out each batch norm that alone reads a convolution or linear layer.

    Returns them by the layer's node, whose entry in ``values`` becomes the norm's output.
    """
    norms = {}
    for node in list(graph_module.graph.nodes):
        layer = node.args[0] if node.target is BATCH_NORM else None
        if not isinstance(layer, Node) or not is_weighted(layer) or len(layer.users) != 1:
            continue
        norms[layer] = captured_norm(node)
        values[layer] = values[node]
        node.replace_all_uses_with(layer)
        graph_module.graph.erase_node(node)
    return norms


@torch.no_grad()
def make_gains_positive(graph_module: GraphModule, norms: dict[Node, CapturedNorm]) -> None:
    """Give the sign of a negative gain to the weights of its channel: scales are positive. Nothing changes in what is computed."""
    turned: dict[Node, Node] = {}
    for layer, norm in norms.items():
        gain_node, _, mean_node, _ = norm.operands
        weight_node = layer.args[1]
        assert isinstance(weight_node, Node)
        if gain_node is None or turned.setdefault(weight_node, gain_node) is not gain_node:
            continue
        gain: Tensor = constant(graph_module, gain_node)
        signs = torch.where(gain < 0, -1.0, 1.0)
        gain.mul_(signs)
        weight = constant(graph_module, weight_node)
        weight.mul_(signs.reshape(-1, *[1] * (weight.dim() - 1)))
        bias = layer.args[2] if len(layer.args) > 2 else None
        for node in (mean_node, bias):
            if isinstance(node, Node):
                constant(graph_module, node).mul_(signs)
