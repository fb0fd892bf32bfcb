"""Moving channels onto the grid of powers of two.

A shift finds a channel's scale only to within a factor of two: its range fills between half and all of the codes. Where a layer's
output goes to one other layer only, through nothing but clamps at zero, pads and pools, channel ``c`` may be made smaller by a factor
``g[c]`` and the next layer's weights for it larger by ``1 / g[c]``. The network computes the same, and with ``g[c]`` in 1/2..1 so
chosen that the channel's range becomes ``2**-n`` of the layer's, its weights fill all codes. (Cross-layer equalization, after Nagel
et al., arXiv 1906.04721, with another goal.)

A clamp from above (ReLU6) does not scale: there, only channels move that stayed below it on the calibration images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from tercel.sw.quantize.families.clamp import is_clamp
from tercel.sw.quantize.families.pool import is_average
from tercel.sw.quantize.observers import ActivationObserver
from tercel.sw.quantize.prepared_graph import WeightedLayer, observer, weighted_layers

MOST_BITS = 7
"""Weights of more bits gain less than the smaller channels lose in the codes of activations."""

_PADS = {torch.ops.aten.constant_pad_nd.default, torch.ops.aten.pad.default}
_SCALING = {torch.ops.aten.dropout.default, torch.ops.aten.max_pool2d.default}
_NO_LIMIT = float("inf")


@dataclass(frozen=True)
class _Link:
    """A layer, the one layer that reads it, the upper clamp between them, and where values stand before they are clamped."""

    layer: WeightedLayer
    reader: WeightedLayer
    limit: float


def _clamp_limit(node: Node) -> float | None:
    """The upper end of a clamp that starts at zero, None for other clamps."""
    target, limits = node.target, node.args[1:]
    if target is torch.ops.aten.relu.default:
        return _NO_LIMIT
    if target is torch.ops.aten.relu6.default:
        return 6.0
    if target in (torch.ops.aten.hardtanh.default, torch.ops.aten.clamp.default) and limits and limits[0] == 0:
        upper = limits[1] if len(limits) > 1 else None
        return float(upper) if isinstance(upper, int | float) else _NO_LIMIT
    return None


def _scales(layer: WeightedLayer, node: Node) -> bool:
    """Whether an operator turns each channel of the layer that is ``g`` times as large into one ``g`` times as large."""
    if isinstance(observer(layer.graph_module, node), ActivationObserver) or is_average(node):
        return True
    if node.target in _PADS:  # of zeros
        return not any(argument not in (None, 0, "constant") for argument in node.args[2:])
    if node.target in _SCALING:
        return True
    return node.target is torch.ops.aten.flatten.using_ints and node.meta["val"].shape[1:] == (len(layer.weight),)


def _link(layer: WeightedLayer, readers: dict[Node, WeightedLayer]) -> _Link | None:
    node, limit = layer.node, _NO_LIMIT
    while len(node.users) == 1:
        user = next(iter(node.users))
        if user in readers:
            reader = readers[user]
            whole = reader.weight.dim() == 2 or reader.geometry[3] in (1, len(reader.weight))
            return _Link(layer, reader, limit) if whole and reader.input_node is node else None
        if is_clamp(user):
            clamp = _clamp_limit(user)
            if clamp is None:
                return None
            limit = min(limit, clamp)
        elif not _scales(layer, user):
            return None
        node = user
    return None


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
def align_channels(graph_module: GraphModule, images: Sequence[Tensor]) -> None:
    """Move channels of layers of up to ``MOST_BITS`` bits whose scheme gains from it.

    Parameters
    ----------
    graph_module
        A calibrated graph; its weights and biases are replaced.
    images
        Inputs of the graph, each of batch size 1.
    """
    readers = {layer.node: layer for layer in weighted_layers(graph_module)}
    links = [
        link
        for layer in readers.values()
        if layer.weight_observer.bits <= MOST_BITS and layer.weight_observer.scheme.aligns and (link := _link(layer, readers))
    ]
    maxima = _Maxima(graph_module, {link.layer.node for link in links if link.limit < _NO_LIMIT})
    if maxima.nodes:
        for image in images:
            maxima.run(image)
    for link in links:
        weight, bias, reading = link.layer.weight, link.layer.bias, link.reader.weight
        ranges = weight.reshape(len(weight), -1).abs().amax(dim=1)
        factors = torch.from_numpy(link.layer.weight_observer.scheme.alignment(ranges.numpy().astype("float64"))).to(torch.float32)
        if link.limit < _NO_LIMIT:
            factors = torch.where(maxima.found[link.layer.node] < link.limit, factors, 1.0)
        depthwise = reading.dim() == 4 and link.reader.geometry[3] > 1
        link.layer.replace_weight(weight * factors.reshape(-1, *[1] * (weight.dim() - 1)))
        link.layer.replace_bias(bias * factors)
        link.reader.replace_weight(reading / factors.reshape(*((-1, 1) if depthwise else (1, -1)), *[1] * (reading.dim() - 2)))
