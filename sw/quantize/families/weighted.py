"""Convolutions and linear layers, with the clamps that follow them."""

import torch
from torch.fx import Node

from tercel.sw.quantize.families.add import absorbs
from tercel.sw.quantize.families.clamp import absorb_clamps
from tercel.sw.quantize.plan import Plan, is_real

_CONV = torch.ops.aten.conv2d.default
_LINEAR = torch.ops.aten.linear.default


def is_weighted(node: Node) -> bool:
    """Whether a node is a convolution or linear layer with constant weights and a constant bias or none."""
    if node.target not in (_CONV, _LINEAR) or not is_real(node):
        return False
    weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else None
    return isinstance(weight, Node) and weight.op == "get_attr" and (bias is None or (isinstance(bias, Node) and bias.op == "get_attr"))


def plan_weighted(node: Node, plan: Plan) -> bool:
    """Codes go in, and come out behind the clamps, or behind the residual add that takes this convolution's sums."""
    if not is_weighted(node):
        return False
    plan.weighted.append(node)
    plan.quantize(node.args[0])
    if not any(absorbs(user) is node for user in node.users):
        plan.quantize(absorb_clamps(node, plan))
    return True
