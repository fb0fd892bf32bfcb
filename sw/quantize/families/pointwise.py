"""PReLU, batch norm by itself, sums and products with constants: functions of each value that only thresholds can take up."""

import torch
from torch.fx import Node

from tercel.sw.quantize.plan import is_real

_SLOPES = {torch.ops.aten.prelu.default, torch.ops.aten.leaky_relu.default}
_BATCH_NORM = torch.ops.aten.batch_norm.default
_NORM_MODULE = "tercel batch norm"
_WITH_CONSTANT = {torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor}


def is_constant(value: object) -> bool:
    """Whether a value is a number, a parameter or a buffer, or made of such alone."""
    if not isinstance(value, Node):
        return isinstance(value, int | float)
    return value.op == "get_attr" or (value.op == "call_function" and all(is_constant(node) for node in value.all_input_nodes))


def is_norm_module(node: Node) -> bool:
    """Whether a node calls a module that was put in the place of a batch norm (see :func:`mark_norm_module`)."""
    return node.op == "call_module" and bool(node.meta.get(_NORM_MODULE))


def mark_norm_module(node: Node) -> None:
    """Note that the module which ``node`` calls is a batch norm, for plans made later."""
    node.meta[_NORM_MODULE] = True


def pointwise_input(node: Node) -> Node | None:
    """What a function of each value reads; None for other operators."""
    if node.target in _SLOPES or node.target is _BATCH_NORM or is_norm_module(node):
        operands = [node.args[0]]
    elif node.target in _WITH_CONSTANT:
        operands = [operand for operand in node.args[:2] if not is_constant(operand)]
    else:
        return None
    (source,) = operands if len(operands) == 1 else (None,)
    return source if isinstance(source, Node) and is_real(node) and is_real(source) and not is_constant(source) else None
