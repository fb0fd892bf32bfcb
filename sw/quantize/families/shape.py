"""Operators that move codes without computing: reshapes, pads, slices, concatenation."""

import torch
from torch.fx import Node

from tercel.sw.quantize.plan import Plan, is_real

MOVES = {
    torch.ops.aten.flatten.using_ints,
    torch.ops.aten.reshape.default,
    torch.ops.aten.view.default,
    torch.ops.aten.squeeze.dim,
    torch.ops.aten.squeeze.dims,
    torch.ops.aten.squeeze.default,
    torch.ops.aten.unsqueeze.default,
    torch.ops.aten.contiguous.default,
    torch.ops.aten.clone.default,
    torch.ops.aten.dropout.default,
    torch.ops.aten.feature_dropout.default,
    torch.ops.aten.pad.default,
    torch.ops.aten.constant_pad_nd.default,
    torch.ops.aten.slice.Tensor,
}


def plan_move(node: Node, plan: Plan) -> bool:
    """The same codes go in and out."""
    if node.target not in MOVES or not isinstance(node.args[0], Node) or not is_real(node) or node.args[0].op == "get_attr":
        return False
    plan.share(node.args[0], node)
    return True


def plan_concatenation(node: Node, plan: Plan) -> bool:
    """All inputs share the output's scale."""
    if node.target is not torch.ops.aten.cat.default or not isinstance(node.args[0], list | tuple):
        return False
    parts = [part for part in node.args[0] if isinstance(part, Node) and is_real(part) and part.op != "get_attr"]
    if len(parts) != len(node.args[0]):
        return False
    plan.share(*parts, node)
    return True
