"""A network in floating point, before and after quantization, with the values of the tensors that its integer graph has.

In the captured graph of the quantized network a layer ends where its result is quantized::

    conv -> relu6 -> quantize -> dequantize -> next layer
                 |                       |
                 float counterpart       fake-quantized value

The float counterpart is the operator of the same module in the trained network, behind its batch norm.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tercel.sim.parse import UsageError
from tercel.sw.graph.integer_graph import IntegerGraph

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

Floats = npt.NDArray[np.float64]

_COUNT = "tercel.multi_threshold"
FLOAT_EXECUTIONS = ("float", "fake-quantized")
"""What computes in floating point: the trained network, and the captured graph of the quantized one."""


def execute_fake_quantized(graph: IntegerGraph, program: "ExportedProgram", images: npt.NDArray[np.floating[Any]]) -> dict[str, Floats]:
    """Values ``[batch, height, width, channels]`` of the quantized network's tensors, those of ``graph`` that are found in it.

    ``images`` is NCHW, in the network's own units.
    """
    module = _module(program)
    ends = _ends(graph, program, module)
    return _run(graph, module, {tensor: dequantize for tensor, (_, dequantize) in ends.items()}, images)


def execute_float(
    graph: IntegerGraph, program: "ExportedProgram", model: "nn.Module", images: npt.NDArray[np.floating[Any]]
) -> dict[str, Floats]:
    """Values of the trained network's counterparts, as :func:`execute_fake_quantized`; ``model`` is what ``program`` was made from.

    :class:`~tercel.sim.parse.UsageError` if no module of ``model`` has the name of a layer.
    """
    import torch

    example = torch.from_numpy(np.asarray(images[:1], dtype=np.float32))
    original = torch.export.export(model.eval(), (example,))
    module = _module(original)
    named = {name: node for node, name in _numbered(_names(original, module)).items()}
    wanted = {}
    names = _numbered(_names(program, quantized := _module(program)))
    for tensor, (last, _) in _ends(graph, program, quantized).items():
        if names.get(last) in named:
            wanted[tensor] = _behind_norms(named[names[last]])
    if not wanted:
        raise UsageError(f"network must be the one that was quantized, but none of its modules is called like {graph.nodes[0].name}")
    return _run(graph, module, wanted, images)


def _module(program: "ExportedProgram") -> "GraphModule":
    module: Any = program.module
    found: GraphModule = module(check_guards=False)
    return found


def _names(program: "ExportedProgram", module: "GraphModule") -> dict["Node", str]:
    """The name of each operation, by its node in ``module``."""
    from tercel.sw.importer.capture import operations

    nodes = {node.name: node for node in module.graph.nodes}
    return {nodes[operation.node.name]: operation.name for operation in operations(program) if operation.node.name in nodes}


def _numbered(names: Mapping["Node", str]) -> dict["Node", tuple[str, int]]:
    """Names with the number of earlier operations that have the same one: a module may call an operator twice."""
    seen: Counter[str] = Counter()
    found = {}
    for node, name in names.items():
        found[node] = name, seen[name]
        seen[name] += 1
    return found


def _ends(graph: IntegerGraph, program: "ExportedProgram", module: "GraphModule") -> dict[str, tuple["Node", "Node"]]:
    """For each layer's tensor the node whose value is quantized and the one that has the quantized value."""
    first: dict[str, Node] = {}
    for node, name in _names(program, module).items():
        if _operator(node).startswith(_COUNT):  # a layer of its own has the module's name
            first.setdefault(name.removesuffix(".multi_threshold"), node.all_input_nodes[0])
        first.setdefault(name, node)
    found = {}
    for layer in graph.nodes:
        if layer.name in first and (end := _quantized_at(first[layer.name])) is not None:
            found[layer.output] = end
    return found


def _quantized_at(node: "Node") -> tuple["Node", "Node"] | None:
    """Down the users to the next quantize op."""
    for user in node.users:
        if _operator(user).startswith(("quantize_per_tensor", _COUNT)):
            return next(((node, after) for after in user.users if _operator(after).startswith("dequantize")), None)
    return next((end for user in node.users if (end := _quantized_at(user)) is not None), None)


def _behind_norms(node: "Node") -> "Node":
    while len(node.users) == 1 and "batch_norm" in _operator(user := next(iter(node.users))):
        node = user
    return node


def _operator(node: "Node") -> str:
    return str(node.target).removeprefix("quantized_decomposed.").removeprefix("torchao.").removeprefix("aten.")


def _run(
    graph: IntegerGraph, module: "GraphModule", wanted: Mapping[str, "Node"], images: npt.NDArray[np.floating[Any]]
) -> dict[str, Floats]:
    import torch
    from torch.fx import Interpreter

    kept = set(wanted.values())
    values: dict[Node, list[Tensor]] = {node: [] for node in kept}

    class Recorder(Interpreter):
        def run_node(self, n: "Node") -> Any:
            result = super().run_node(n)
            if n in kept:
                values[n].append(result.detach())
            return result

    recorder = Recorder(module)
    with torch.no_grad():
        for batch in _batches(module, torch.from_numpy(np.asarray(images, dtype=np.float32))):
            recorder.run(batch)
    return {tensor: _image(torch.cat(values[node]).numpy()[: len(images)], graph.tensors[tensor].shape) for tensor, node in wanted.items()}


def _batches(module: "GraphModule", images: "Tensor") -> Iterable["Tensor"]:
    """As many images at a time as the graph was captured for; the last ones are repeated to fill up."""
    import torch

    example = next(node for node in module.graph.nodes if node.op == "placeholder").meta["val"]
    size = example.shape[0] if isinstance(example.shape[0], int) else len(images)
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        yield torch.cat([batch, batch[-1:].expand(size - len(batch), *batch.shape[1:])]) if len(batch) < size else batch


def _image(values: npt.NDArray[Any], shape: tuple[int, int, int]) -> Floats:
    height, width, channels = shape
    return np.moveaxis(values.astype(np.float64).reshape(len(values), channels, height, width), 1, -1)
