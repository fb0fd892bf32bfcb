"""Clamps (ReLU, ReLU6, hardtanh, clamp): part of the operator before them, or a clamp of codes."""

import math
from typing import cast

import torch
from torch.fx import Node

from tercel.sw.quantize.families.pointwise import pointwise_input
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


def clamp_limits(node: Node) -> tuple[float, float]:
    """The ends of a clamp's interval, infinite where it has none."""
    target, limits = node.target, list(node.args[1:])
    if target is torch.ops.aten.relu.default:
        return 0.0, math.inf
    if target is torch.ops.aten.relu6.default:
        return 0.0, 6.0
    if target is torch.ops.aten.hardtanh.default:
        limits = [*limits, *(-1.0, 1.0)[len(limits) :]]
    elif target is torch.ops.aten.clamp_max.default:
        limits = [None, *limits]
    low, high = (*limits, None, None)[:2]
    return -math.inf if low is None else float(cast(float, low)), math.inf if high is None else float(cast(float, high))


def absorb_clamps(node: Node, plan: Plan) -> Node:
    """The last of the clamps that alone read ``node``, or ``node``: where the fused operator's only rounding stands.

    Where codes count thresholds, functions of each value may stand among the clamps.
    """
    while len(node.users) == 1:
        user = next(iter(node.users))
        clamps = is_clamp(user) and user.args[0] is node
        if not clamps and not (plan.thresholds and pointwise_input(user) is node):
            break
        plan.fused.add(user)
        node = user
    return node


def plan_clamp(node: Node, plan: Plan) -> bool:
    """A clamp of a tensor that others read too works on codes: one scale before and after."""
    if not is_clamp(node) or not isinstance(node.args[0], Node) or not is_real(node.args[0]):
        return False
    plan.share(node.args[0], node)
    return True
