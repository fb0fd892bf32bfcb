"""Residual adds: of two tensors of codes, or of a convolution's sums and a tensor of codes under one rounding."""

import torch
from torch.fx import Node

from tercel.sw.quantize.families.clamp import absorb_clamps
from tercel.sw.quantize.plan import Plan, is_real


def _operands(node: Node) -> tuple[Node, Node] | None:
    """Both operands of an add of two computed tensors of one shape, else None."""
    if node.target is not torch.ops.aten.add.Tensor or node.kwargs.get("alpha", 1) != 1:
        return None
    left, right = node.args[:2]
    if not (isinstance(left, Node) and isinstance(right, Node) and is_real(left) and is_real(right)):
        return None
    if "get_attr" in (left.op, right.op) or left.meta["val"].shape != right.meta["val"].shape:
        return None
    return left, right


def _has_sums(operand: Node) -> bool:
    """Whether an operand is a convolution on the array that nobody else reads; a depthwise one runs where no residual is added."""
    if operand.target is not torch.ops.aten.conv2d.default or len(operand.users) != 1 or not isinstance(operand.args[1], Node):
        return False
    groups = operand.args[6] if len(operand.args) > 6 else 1
    depthwise = groups != 1 and groups == operand.meta["val"].shape[1]
    return operand.args[1].op == "get_attr" and not depthwise


def absorbs(node: Node) -> Node | None:
    """The convolution whose sums an add takes before they are rounded: the later of two, None where there is none."""
    operands = _operands(node)
    if operands is None or operands[0] is operands[1]:
        return None
    candidates = [operand for operand in operands if _has_sums(operand)]
    return max(candidates) if candidates else None


def plan_add(node: Node, plan: Plan) -> bool:
    """Codes of any two scales go in, except for a convolution's sums; codes come out behind the clamps."""
    operands = _operands(node)
    if operands is None:
        return False
    fused = absorbs(node)
    plan.quantize(*(operand for operand in operands if operand is not fused))
    plan.quantize(absorb_clamps(node, plan))
    return True
