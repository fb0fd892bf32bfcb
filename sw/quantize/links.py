"""Pairs of layers between which a channel may be scaled without changing what the network computes.

Where a layer's output goes to one other layer only, through nothing but clamps at zero, pads and pools, channel ``c`` may be made ``g[c]``
times as large and the next layer's weights for it ``1 / g[c]`` times (Nagel et al., arXiv 1906.04721).

A clamp from above (ReLU6) does not scale: a channel may move there only if it stays below the clamp, before and after.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from tercel.sw.quantize.families.clamp import clamp_limits, is_clamp
from tercel.sw.quantize.families.pool import is_average
from tercel.sw.quantize.observers import ActivationObserver
from tercel.sw.quantize.prepared_graph import WeightedLayer, observer, weighted_layers

_PADS = {torch.ops.aten.constant_pad_nd.default, torch.ops.aten.pad.default}
_SCALING = {torch.ops.aten.dropout.default, torch.ops.aten.max_pool2d.default}
_NO_LIMIT = float("inf")


@dataclass(frozen=True)
class Link:
    """A layer, the one layer that reads it, and the upper clamp between them (infinite where there is none)."""

    layer: WeightedLayer
    reader: WeightedLayer
    limit: float

    @property
    def code_range(self) -> tuple[float, float]:
        """Lowest and highest value that the codes of the layer's output hold, behind the clamps."""
        scale, zero_point = self._output_observers()[0].scale_and_zero_point
        return -zero_point * scale, (255 - zero_point) * scale

    @property
    def keeps_codes(self) -> bool:
        """Whether the reader gets the very codes of the layer's output: False behind an average."""
        observers = self._output_observers()
        return all(watched.scale_and_zero_point == observers[0].scale_and_zero_point for watched in observers)

    def _output_observers(self) -> list[ActivationObserver]:
        found, node = [], self.layer.node
        while node is not self.reader.node:
            node = next(iter(node.users))
            if isinstance(watched := observer(self.layer.graph_module, node), ActivationObserver):
                found.append(watched)
        return found

    @property
    def reads_depthwise(self) -> bool:
        """Whether the reader is a depthwise convolution, whose own channels then are this layer's."""
        return self.reader.group_count > 1

    def output_ranges(self) -> Tensor:
        """Largest magnitude of the weights that make each channel, ``[channels]``."""
        return self.layer.weight.flatten(1).abs().amax(dim=1)

    def input_ranges(self) -> Tensor:
        """Largest magnitude of the weights that read each channel, ``[channels]``."""
        weight = self.reader.weight if self.reads_depthwise else self.reader.weight.transpose(0, 1)
        return weight.flatten(1).abs().amax(dim=1)

    def scale(self, factors: Tensor) -> None:
        """Make each channel ``factors[c]`` times as large on the way (positive, float32 ``[channels]``)."""
        self.layer.scale_outputs(factors)
        weight = self.reader.weight
        axis = 0 if self.reads_depthwise else 1
        self.reader.replace_weight(weight / factors.reshape([-1 if dim == axis else 1 for dim in range(weight.dim())]))


def _scales(layer: WeightedLayer, node: Node) -> bool:
    """Whether an operator turns each channel of the layer that is ``g`` times as large into one ``g`` times as large."""
    if isinstance(observer(layer.graph_module, node), ActivationObserver) or is_average(node):
        return True
    if node.target in _PADS:  # of zeros
        return not any(argument not in (None, 0, "constant") for argument in node.args[2:])
    if node.target in _SCALING:
        return True
    return node.target is torch.ops.aten.flatten.using_ints and node.meta["val"].shape[1:] == (len(layer.weight),)


def _link(layer: WeightedLayer, readers: dict[Node, WeightedLayer]) -> Link | None:
    node, limit = layer.node, _NO_LIMIT
    while len(node.users) == 1:
        user = next(iter(node.users))
        if user in readers:
            reader = readers[user]
            whole = reader.group_count in (1, len(reader.weight))
            return Link(layer, reader, limit) if whole and reader.input_node is node else None
        if is_clamp(user):
            low, high = clamp_limits(user)
            if low != 0:
                return None
            limit = min(limit, high)
        elif not _scales(layer, user):
            return None
        node = user
    return None


def find_links(graph_module: GraphModule) -> list[Link]:
    """All links of a prepared graph, in the order of their layers."""
    readers = {layer.node: layer for layer in weighted_layers(graph_module)}
    return [link for layer in readers.values() if (link := _link(layer, readers)) is not None]


class _Maxima(Interpreter):
    """Runs a prepared graph without its observers and keeps the largest value of each channel of some nodes."""

    def __init__(self, graph_module: GraphModule, nodes: set[Node]) -> None:
        super().__init__(graph_module)
        self.nodes = nodes
        self.found: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        if n.op == "call_module":
            return self.env[n.all_input_nodes[0]]
        value = super().run_node(n)
        if n in self.nodes:
            highest = value.amax(dim=[dim for dim in range(value.dim()) if dim != 1])
            self.found[n] = torch.maximum(self.found[n], highest) if n in self.found else highest
        return value


@torch.no_grad()
def channel_maxima(graph_module: GraphModule, links: Sequence[Link], images: Sequence[Tensor]) -> Mapping[Node, Tensor]:
    """Largest value of each channel before it is clamped, ``[channels]`` by layer.

    ``images`` are inputs of the graph, each of batch size 1.
    """
    maxima = _Maxima(graph_module, {link.layer.node for link in links})
    if maxima.nodes:
        for image in images:
            maxima.run(image)
    return maxima.found
