"""From a user's module to a graph of ATen operators that quantization may edit."""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from tercel.sw.quantize.errors import QuantizeError


def check_finite(model: nn.Module) -> None:
    """Refuse parameters and buffers that are NaN or infinite, with a :class:`~tercel.sw.quantize.errors.QuantizeError`."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            module, _, attribute = name.rpartition(".")
            count = int((~torch.isfinite(tensor)).sum())
            raise QuantizeError(f"{attribute} of module {module!r} must be finite, but {count} of its {tensor.numel()} values are NaN or "
                                "infinite (load other weights)")  # fmt: skip


def first_line(error: BaseException) -> str:
    """The first line with text of an exception's message, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _later_users(node: Node, mutation: Node) -> list[Node]:
    """Users of ``node`` behind ``mutation`` in the graph."""
    return [user for user in node.users if user is not mutation and mutation < user]


def make_out_of_place(graph_module: GraphModule) -> None:
    """Replace in-place operators (``relu_``, ``add_``) by their ordinary forms.

    What reads the overwritten tensor afterwards reads the result instead. Quantization puts copies between producers and consumers,
    behind which a write in place would be lost.
    """
    for node in list(graph_module.graph.nodes):
        target = node.target
        if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
            continue
        packet = target._schema.name.split("::")[1]
        first = target._schema.arguments[0] if target._schema.arguments else None
        if not packet.endswith("_") or packet.endswith("__") or first is None or first.alias_info is None or not first.alias_info.is_write:
            continue
        ordinary = getattr(getattr(torch.ops.aten, packet[:-1], None), target._overloadname, None)
        overwritten = node.args[0]
        if ordinary is None or not isinstance(overwritten, Node):
            continue
        for user in _later_users(overwritten, node):
            user.replace_input_with(overwritten, node)
        node.target = ordinary
    graph_module.recompile()


def capture(model: nn.Module, example: Tensor, *, any_batch: bool = False) -> GraphModule:
    """The operators of ``model`` in evaluation mode, for inputs of ``example``'s shape; with ``any_batch``, for any number of them.

    Works on a copy in float32 on the CPU; the model stays as it is, training mode included. Batch norms are still separate.
    Raises :class:`~tercel.sw.quantize.errors.QuantizeError` for values that are not finite and for a model that ``torch.export``
    refuses.
    """
    check_finite(model)
    private = copy.deepcopy(model).to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    try:
        with torch.no_grad():
            private(example)
    except Exception as error:  # anything can go wrong in a user's forward
        raise QuantizeError(f"model must accept calibration images of shape {tuple(example.shape)}: {first_line(error)}") from error
    try:
        with torch.no_grad():
            shapes = ({0: torch.export.Dim.DYNAMIC},) if any_batch else None
            program = torch.export.export(private, (example,), dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises dozens of types
        raise QuantizeError(f"model must be one that torch.export can capture: {first_line(error)} "
                            "(remove what depends on the values of tensors)") from error  # fmt: skip
    graph_module = cast(GraphModule, cast(Any, program.module)(check_guards=False))
    make_out_of_place(graph_module)
    return graph_module
