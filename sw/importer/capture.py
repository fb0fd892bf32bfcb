"""A ``torch.export`` program as operations with names, sources, bound arguments and constants."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_WEIGHTED = ("conv2d", "convolution", "linear")
_LIBRARY = ("/torch/nn/", "/torch/_", "/torchao/")


@dataclass(frozen=True)
class Operation:
    """An operator of the captured graph.

    Parameters
    ----------
    node
        The node in the program's graph.
    operator
        ``aten.conv2d.default``.
    name
        The module's path; with the operator's short name behind it where the operator is not the module itself.
    source
        File and line of the user's model that called it.
    arguments
        By the names of the operator's schema, defaults filled in; tensors are nodes.
    shape
        Of the result, without the batch; None where it is no tensor.
    """

    node: Node
    operator: str
    name: str
    source: str
    arguments: dict[str, Any]
    shape: tuple[int, ...] | None

    @property
    def short(self) -> str:
        """The operator without namespace, overload and the underscore of in-place variants: ``conv2d``."""
        return short_name(self.operator)

    @property
    def in_place(self) -> bool:
        """Whether it overwrites its first argument."""
        return self.operator.split(".")[1].endswith("_")

    def nodes(self) -> list[Node]:
        """The nodes that it reads."""
        return self.node.all_input_nodes


def short_name(operator: str) -> str:
    """``conv2d`` of ``aten.conv2d.default`` or ``conv2d``; ``relu`` of ``aten.relu_.default``."""
    parts = operator.split(".")
    return (parts[1] if len(parts) > 1 else parts[0]).rstrip("_")


def operations(program: ExportedProgram) -> Iterator[Operation]:
    """All calls of operators, in order. Those of Python functions (sizes, asserts) have no schema and keep their arguments unbound."""
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    paths = {path for node in calls for path, _ in [_module(node)]}
    weighted = Counter(_module(node)[0] for node in calls if short_name(str(node.target)) in _WEIGHTED)
    # A module of the user's own that holds one convolution or product and no modules is that layer.
    layers = {path for path, count in weighted.items() if path and count == 1 and not any(other.startswith(path + ".") for other in paths)}
    for node in calls:
        yield _operation(node, layers)


def _operation(node: Node, layers: set[str]) -> Operation:
    schema = getattr(node.target, "_schema", None)
    arguments = {}
    for index, argument in enumerate(() if schema is None else schema.arguments):
        given = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
        arguments[argument.name] = given
    operator = str(node.target) if schema is not None else f"python.{getattr(node.target, '__name__', node.target)}"
    return Operation(
        node=node,
        operator=operator,
        name=_name(node, short_name(operator), layers),
        source=_source(node),
        arguments=arguments,
        shape=logical_shape(node),
    )


def logical_shape(node: Node) -> tuple[int, ...] | None:
    """The shape of a node's value without the batch; None for anything that is not one tensor with static sizes."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    shape = tuple(value.shape[1:])
    return tuple(int(size) for size in shape) if all(isinstance(size, int) for size in shape) else None


def _module(node: Node) -> tuple[str, str]:
    """Path and class of the innermost module that a node was called in."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, module = stack[-1] if stack else ("", "")
    return path, module if isinstance(module, str) else module.__module__ + "." + module.__qualname__


def _name(node: Node, short: str, layers: set[str]) -> str:
    if not node.meta.get("nn_module_stack"):
        return node.name
    path, kind = _module(node)
    leaf = kind.startswith(("torch.nn.modules.", "torch.ao.nn.", "torchao.")) and "quantize" not in short
    whole = path in layers and short in _WEIGHTED
    return path if path and (leaf or whole) else f"{path}.{short}".lstrip(".")


def _source(node: Node) -> str:
    frames = [(match["file"], match["line"]) for match in _FRAME.finditer(node.meta.get("stack_trace") or "")]
    own = [frame for frame in frames if not any(part in frame[0] for part in _LIBRARY)]
    return f"{PurePath(own[-1][0]).name}:{own[-1][1]}" if own else ""


def constants(program: ExportedProgram) -> dict[Node, torch.Tensor]:
    """Parameters, buffers and tensor constants by the node that stands for them."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    found: dict[Node, torch.Tensor] = {}
    for node in program.graph.nodes:
        value: Any = None
        if node.op == "placeholder" and node.name in names:
            name = names[node.name]
            value = program.state_dict[name] if name in program.state_dict else program.constants[name]
        elif node.op == "get_attr":
            value = _attribute(program.graph_module, str(node.target))
        if isinstance(value, torch.Tensor):
            found[node] = value.detach()
    return found


def _attribute(module: torch.nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value


def user_inputs(program: ExportedProgram) -> list[Node]:
    """The placeholders of the network's inputs, in order."""
    names = set(program.graph_signature.user_inputs)
    return [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]


def output_nodes(program: ExportedProgram) -> list[Any]:
    """What the network returns: nodes, or constants."""
    output = next(node for node in program.graph.nodes if node.op == "output")
    return list(output.args[0])
