"""Which widths the tensors of a captured graph get, and where they are rounded."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.fx import GraphModule, Node

from tercel.sw.quantize.bit_widths import BitWidths, assign_bits, check_bits
from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.quantize.families.clamp import is_clamp
from tercel.sw.quantize.families.shape import MOVES
from tercel.sw.quantize.plan import Plan, constant, is_real, module_path
from tercel.sw.training.training_scheme import TrainingScheme

FULL_BITS = 8
_PADS = {torch.ops.aten.pad.default, torch.ops.aten.constant_pad_nd.default}
_JOINS = {torch.ops.aten.max_pool2d.default, torch.ops.aten.cat.default}


def keeps_codes(node: Node, plan: Plan) -> bool:
    """Whether an operator's output is codes because its inputs, of the same scale, are: nothing needs rounding behind it."""
    inputs = [source for source in node.all_input_nodes if is_real(source)]
    if not inputs or any(source not in plan.quantized or plan.root(source) is not plan.root(node) for source in inputs):
        return False
    if node.target in _PADS:  # of zeros
        return not any(argument not in (None, 0, "constant") for argument in node.args[2:])
    return node.target in MOVES or node.target in _JOINS or is_clamp(node)


def rounded_node(layer: Node, plan: Plan) -> Node:
    """The node behind which a layer's output is rounded: itself, or the last of the operators that are part of it."""
    node = layer
    while node not in plan.quantized:
        (node,) = node.users
    return node


def _weight_node(layer: Node) -> Node:
    node = layer.args[1]
    assert isinstance(node, Node)
    return node


def layer_bits(graph_module: GraphModule, plan: Plan, *, scheme: TrainingScheme, bits: BitWidths) -> dict[Node, int]:
    """Weight bits of each convolution and linear layer.

    A number in ``bits`` is for all layers but the first and the last, patterns on module names for those that they name. Weights that
    are no parameters keep 8 bits. :class:`~tercel.sw.quantize.errors.QuantizeError` for a pattern that matches no layer, or a model
    without layers that train.
    """
    given = check_bits(bits)
    patterns = given if isinstance(bits, Mapping) else {}
    inner = scheme.bits if bits is None or isinstance(bits, Mapping) else bits
    trained = [node for node in plan.weighted if isinstance(constant(graph_module, _weight_node(node)), nn.Parameter)]
    if not trained:
        raise QuantizeError("model must hold a convolution or linear layer with weights to train, but has none")
    named = assign_bits(patterns, [module_path(node) for node in trained], default=0)
    widths = {node: width or inner for node, width in zip(trained, named, strict=True)}
    for index in (0, -1):
        widths[trained[index]] = named[index] or scheme.edge_bits
    return {node: widths.get(node, FULL_BITS) for node in plan.weighted}


def activation_bits(plan: Plan, widths: Mapping[Node, int], *, scheme: TrainingScheme) -> dict[Node, int]:
    """Bits of the tensors that share a scale, by their root: the scheme's where only layers of less than 8 bits read them, else 8.

    Where the scheme names none, as many as the widest weights that they meet.
    """
    bits = {plan.root(node): scheme.activation_bits or 0 for node in plan.quantized}
    for node in plan.quantized:
        root = plan.root(node)
        readers = [user for user in node.users if user not in plan.quantized or plan.root(user) is not root]
        low = all(widths.get(reader, FULL_BITS) < FULL_BITS and reader.args[0] is node for reader in readers)
        if node.op == "placeholder" or not low:
            bits[root] = FULL_BITS
        elif scheme.activation_bits is None:
            bits[root] = max([bits[root], *(widths[reader] for reader in readers)])
    return {root: width or FULL_BITS for root, width in bits.items()}
