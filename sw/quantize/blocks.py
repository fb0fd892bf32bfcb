"""Blocks of a network: runs of operators that are quantized together.

A network is cut where a single tensor of codes is all that goes on, so that a residual with everything it passes by is one piece. Pieces
of one layer are joined: up to and with the layer over all channels that follows a depthwise one, and three layers at most. A piece of more
than six layers (a network of dense connections has no place to cut) is taken layer by layer instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from tercel.sw.quantize.families.clamp import is_clamp
from tercel.sw.quantize.families.pool import is_average
from tercel.sw.quantize.observers import ActivationObserver
from tercel.sw.quantize.plan import value_shape
from tercel.sw.quantize.prepared_graph import WeightedLayer, observer, weighted_layers

_JOINED_LAYERS = 3
_MOST_LAYERS = 6

_LOCAL = {torch.ops.aten.conv2d.default, torch.ops.aten.add.Tensor, torch.ops.aten.constant_pad_nd.default, torch.ops.aten.pad.default}
_BATCHED = _LOCAL | {torch.ops.aten.linear.default, torch.ops.aten.max_pool2d.default, torch.ops.aten.dropout.default}


@dataclass(frozen=True, kw_only=True)
class Block:
    """Operators that follow each other in the graph.

    ``inputs`` come from operators before it (or are the network's), ``outputs`` are read by operators behind it (or are the network's).
    Constants and what is computed from constants alone belong to no block.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    layers: tuple[WeightedLayer, ...]

    @property
    def name(self) -> str:
        """Modules of its first and last layer."""
        names = [layer.name for layer in self.layers]
        return names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}"

    @property
    def with_constants(self) -> list[Node]:
        """The operators and all constants that they read, in the graph's order."""
        found, waiting = set(self.nodes), list(self.nodes)
        while waiting:
            new = {source for source in waiting.pop().all_input_nodes if source not in found and source not in self.inputs}
            found |= new
            waiting += new
        return sorted(found)

    def _operators(self) -> Iterator[Node]:
        return (node for node in self.nodes if node.op == "call_function")

    @property
    def batched(self) -> bool:
        """Whether the block computes every image of a batch as it would alone."""
        return all(value_shape(node)[:1] == (1,) for node in (*self.inputs, *self.outputs)) and all(map(_is_batched, self._operators()))

    @property
    def local(self) -> bool:
        """Whether each output pixel depends on the input pixels around it only, at the same place of one image size for all."""
        sizes = {value_shape(node)[2:] for node in self.inputs}, {value_shape(node)[2:] for node in self.outputs}
        planar = all(len(value_shape(node)) == 4 for node in (*self.inputs, *self.outputs)) and len(sizes[0]) == len(sizes[1]) == 1
        return planar and self.batched and all(node.target in _LOCAL or is_clamp(node) for node in self._operators())


def _is_batched(node: Node) -> bool:
    if node.target is torch.ops.aten.flatten.using_ints:
        return node.args[1:2] == (1,)
    if node.target is torch.ops.aten.cat.default:
        return node.args[1:2] == (1,)
    return node.target in _BATCHED or is_clamp(node) or is_average(node)


def _is_observed(graph_module: GraphModule, node: Node) -> bool:
    return isinstance(observer(graph_module, node), ActivationObserver)


def _computed(graph_module: GraphModule) -> list[Node]:
    """What depends on the network's input, in order, inputs included."""
    found: dict[Node, None] = {}
    for node in graph_module.graph.nodes:
        if node.op != "output" and (node.op == "placeholder" or any(source in found for source in node.all_input_nodes)):
            found[node] = None
    return list(found)


def _pieces(graph_module: GraphModule, nodes: Sequence[Node]) -> Iterator[list[Node]]:
    """Cut behind observed tensors that alone are read later."""
    position = {node: index for index, node in enumerate(nodes)}
    last_use = {node: max((position.get(user, len(nodes)) for user in node.users), default=-1) for node in nodes}
    piece: list[Node] = []
    alive: set[Node] = set()
    for index, node in enumerate(nodes):
        alive = {other for other in (*alive, node) if last_use[other] > index}
        if node.op != "placeholder":
            piece.append(node)
        if alive == {node} and _is_observed(graph_module, node) and piece:
            yield piece
            piece = []
    if piece:
        yield piece


def _layer_by_layer(graph_module: GraphModule, piece: Sequence[Node], layers: dict[Node, WeightedLayer]) -> Iterator[list[Node]]:
    part: list[Node] = []
    for node in piece:
        part.append(node)
        if _is_observed(graph_module, node) and any(member in layers for member in part):
            yield part
            part = []
    if part:
        yield part


def _groups(graph_module: GraphModule, nodes: Sequence[Node], layers: dict[Node, WeightedLayer]) -> Iterator[list[Node]]:
    """Pieces joined and split; the last may be without layers."""
    group: list[Node] = []
    inside: list[WeightedLayer] = []
    for piece in _pieces(graph_module, nodes):
        own = [layers[node] for node in piece if node in layers]
        if len(own) > 1:
            if inside:
                yield group
                group, inside = [], []
            parts = [[*group, *piece]] if len(own) <= _MOST_LAYERS else list(_layer_by_layer(graph_module, [*group, *piece], layers))
            yield from parts
            group = []
            continue
        group, inside = [*group, *piece], [*inside, *own]
        crossed = bool(own) and own[0].group_count == 1 and any(layer.group_count > 1 for layer in inside)
        if crossed or len(inside) == _JOINED_LAYERS:
            yield group
            group, inside = [], []
    if group:
        yield group


def find_blocks(graph_module: GraphModule) -> list[Block]:
    """The blocks of a prepared graph, in order; each holds at least one layer."""
    layers = {layer.node: layer for layer in weighted_layers(graph_module)}
    nodes = _computed(graph_module)
    merged: list[list[Node]] = []
    for group in _groups(graph_module, nodes, layers):
        if merged and not (any(node in layers for node in group) and any(node in layers for node in merged[-1])):
            merged[-1] += group
        else:
            merged.append(group)
    known = set(nodes)
    blocks = []
    for group in merged:
        inside = set(group)
        inputs = dict.fromkeys(source for node in group for source in node.all_input_nodes if source in known and source not in inside)
        outputs = [node for node in group if any(user not in inside for user in node.users)]
        own = tuple(layers[node] for node in group if node in layers)
        if own:
            blocks.append(Block(nodes=tuple(group), inputs=tuple(inputs), outputs=tuple(outputs), layers=own))
    return blocks
