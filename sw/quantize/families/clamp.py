"""Clamps (ReLU, ReLU6, hardtanh, clamp): part of the operator before them, or a clamp of codes."""

import torch
from torch.fx import Node

from tercel.sw.quantize.plan import Plan, is_real

_CLAMPS = {
    torch.ops.aten.relu.default,
    torch.ops.aten.relu6.default,
    torch.ops.aten.hardtanh.default,
    torch.ops.aten.clamp.default,
    torch.ops.aten.clamp_min.default,
    torch.ops.aten.clamp_max.default,
}


def is_clamp(node: Node) -> bool:
    """Whether a node limits each value by constants."""
    return node.target in _CLAMPS and is_real(node) and not any(isinstance(limit, Node) for limit in node.args[1:])


def absorb_clamps(node: Node, plan: Plan) -> Node:
    """The last of the clamps that alone read ``node``, or ``node``: where the fused operator's only rounding stands."""
    while len(node.users) == 1 and is_clamp(user := next(iter(node.users))) and user.args[0] is node:
        plan.fused.add(user)
        node = user
    return node


def plan_clamp(node: Node, plan: Plan) -> bool:
    """A clamp of a tensor that others read too works on codes: one scale before and after."""
    if not is_clamp(node) or not isinstance(node.args[0], Node) or not is_real(node.args[0]):
        return False
    plan.share(node.args[0], node)
    return True
