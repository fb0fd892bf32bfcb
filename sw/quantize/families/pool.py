"""Pools, and means over height and width."""

import torch
from torch.fx import Node

from tercel.sw.quantize.families.clamp import absorb_clamps
from tercel.sw.quantize.plan import Plan, is_real, value_shape

_AVERAGES = {torch.ops.aten.avg_pool2d.default, torch.ops.aten.adaptive_avg_pool2d.default}


def _is_spatial_mean(node: Node) -> bool:
    if node.target is not torch.ops.aten.mean.dim or not isinstance(node.args[0], Node) or len(value_shape(node.args[0])) != 4:
        return False
    dims = node.args[1]
    return isinstance(dims, list | tuple) and sorted(dim % 4 for dim in dims if isinstance(dim, int)) == [2, 3]


def is_average(node: Node) -> bool:
    """Whether a node averages over height and width."""
    return node.target in _AVERAGES or _is_spatial_mean(node)


def plan_average(node: Node, plan: Plan) -> bool:
    """An average is rounded to a scale of its own: its range is smaller than that of what it averages."""
    if not is_real(node) or not is_average(node):
        return False
    plan.quantize(node.args[0], absorb_clamps(node, plan))
    return True


def plan_max(node: Node, plan: Plan) -> bool:
    """A maximum is one of its codes."""
    if node.target is not torch.ops.aten.max_pool2d.default or not isinstance(node.args[0], Node) or not is_real(node):
        return False
    plan.share(node.args[0], node)
    return True
