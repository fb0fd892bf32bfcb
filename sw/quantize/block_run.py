"""Running one block of a prepared graph on many images, in float or with codes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from tercel.sw.quantize.blocks import Block
from tercel.sw.quantize.observers import ActivationObserver, PerChannelWeightObserver
from tercel.sw.quantize.plan import constant
from tercel.sw.quantize.prepared_graph import observer

Values = dict[Node, Tensor]
"""Of each node a value per image: ``[images, *shape of one]``, where the shape of one begins with its batch size of 1."""


def _observed(graph_module: GraphModule, node: Node, value: Any, *, real: bool) -> Any:
    watched = observer(graph_module, node)
    if not real and isinstance(watched, ActivationObserver | PerChannelWeightObserver):
        return watched.fake_quantize(value)
    return value  # a bias' grid is so fine that rounding to it can be left out


def _run(
    graph_module: GraphModule, block: Block, inputs: Mapping[Node, Tensor], replaced: Mapping[Node, Tensor], *, real: bool
) -> list[Tensor]:
    environment: dict[Node, Any] = {**inputs, **replaced}

    def value(node: Node) -> Any:
        if node not in environment:
            if node.op == "get_attr":
                environment[node] = constant(graph_module, node)
            elif node.op == "call_module":
                environment[node] = _observed(graph_module, node, value(node.all_input_nodes[0]), real=real)
            else:
                assert callable(node.target)
                environment[node] = node.target(*map_arg(node.args, value), **map_arg(node.kwargs, value))
        return environment[node]

    for node in block.nodes:
        value(node)
    return [environment[node] for node in block.outputs]


def run_block(
    graph_module: GraphModule, block: Block, inputs: Mapping[Node, Tensor], *, replaced: Mapping[Node, Tensor] | None = None, real: bool
) -> list[Tensor]:
    """The block's outputs, each ``[images, 1, ...]``.

    Parameters
    ----------
    graph_module, block
        A calibrated graph and a block of it.
    inputs
        A value ``[images, 1, ...]`` for each of the block's inputs.
    replaced
        Values for nodes, in place of what they compute: weights and biases under way.
    real
        Whether to run without codes, as the float network does.
    """
    replaced = replaced or {}
    if not block.batched:  # its operators know the batch size that the graph was captured with
        count = len(next(iter(inputs.values())))
        images = [
            _run(graph_module, block, {node: value[image] for node, value in inputs.items()}, replaced, real=real) for image in range(count)
        ]
        return [torch.stack(values) for values in zip(*images, strict=True)]
    together = {node: _planes(value.flatten(0, 1)) for node, value in inputs.items()}
    return [value.unsqueeze(1) for value in _run(graph_module, block, together, replaced, real=real)]


def _planes(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


@torch.no_grad()
def advance(graph_module: GraphModule, block: Block, values: Values, *, real: bool, images_at_once: int = 8) -> None:
    """Add the block's outputs to ``values``."""
    inputs = {node: values[node] for node in block.inputs}
    count = len(next(iter(inputs.values())))
    parts: list[Sequence[Tensor]] = []
    for start in range(0, count, images_at_once):
        some = {node: value[start : start + images_at_once] for node, value in inputs.items()}
        parts.append(run_block(graph_module, block, some, real=real))
    for node, outputs in zip(block.outputs, zip(*parts, strict=True), strict=True):
        values[node] = torch.cat([part.contiguous() for part in outputs])
