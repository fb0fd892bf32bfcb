"""Rounding weights and correcting biases, layer by layer, on calibration images.

The float network and the quantized one run side by side, operator after operator over all images. When a layer is reached, everything
in front of it is final, and its inputs in the quantized network are known: its weights are rounded for these inputs, and its bias is
corrected.

*Bias correction* takes back the shift that quantization gives to the mean of each output channel, ``mean(W_q * x_q) - mean(W * x)``:
the errors of a channel's few weights do not average out over an image (empirical bias correction, after Nagel et al.,
arXiv 1906.04721).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from tercel.sw.quantize.observers import ActivationObserver, PerChannelWeightObserver
from tercel.sw.quantize.plan import constant
from tercel.sw.quantize.prepared_graph import WeightedLayer, observer, weighted_layers
from tercel.sw.quantize.weight_scales import BIAS_LIMIT


@dataclass
class _Values:
    """What a node makes in the float network and in the quantized one: a value per image each, or one value if it is a constant."""

    real: list[Any]
    quantized: list[Any]


def _pick(values: list[Any], image: int) -> Any:
    return values[image if len(values) > 1 else 0]


def _round_bias(layer: WeightedLayer, bias: Tensor) -> Tensor:
    return torch.round(bias / layer.bias_scales) * layer.bias_scales


def _channel_means(images: list[Tensor]) -> Tensor:
    axis = 1 if images[0].dim() == 4 else images[0].dim() - 1
    sums = [image.to(torch.float64).mean(dim=[dim for dim in range(image.dim()) if dim != axis]) for image in images]
    return torch.stack(sums).mean(dim=0)


def _correct(layer: WeightedLayer, values: _Values) -> None:
    shift = (_channel_means(values.quantized) - _channel_means(values.real)).to(torch.float32)
    old = layer.bias
    wanted = old - shift
    new = torch.where((wanted / layer.bias_scales).abs() < BIAS_LIMIT, wanted, old)
    layer.replace_bias(new)
    change = _round_bias(layer, new) - _round_bias(layer, old)
    if values.quantized[0].dim() == 4:
        change = change.reshape(-1, 1, 1)
    values.quantized = [image + change for image in values.quantized]


def _call(node: Node, environment: dict[Node, _Values], count: int) -> _Values:
    target = node.target
    assert callable(target)
    many = any(len(environment[argument].real) > 1 for argument in node.all_input_nodes)

    def run(pick: Callable[[Node, int], Any], image: int) -> Any:
        return target(*map_arg(node.args, lambda n: pick(n, image)), **map_arg(node.kwargs, lambda n: pick(n, image)))

    images = range(count if many else 1)
    return _Values(
        [run(lambda n, i: _pick(environment[n].real, i), image) for image in images],
        [run(lambda n, i: _pick(environment[n].quantized, i), image) for image in images],
    )


def _observed(graph_module: GraphModule, node: Node, values: _Values, layers: dict[Node, WeightedLayer]) -> _Values:
    """The quantized network's value behind an observer; the float network's is the same as before."""
    watched = observer(graph_module, node)
    if isinstance(watched, ActivationObserver | PerChannelWeightObserver):
        return _Values(values.real, [watched.fake_quantize(value) for value in values.quantized])
    layer = next(layers[user] for user in node.users if user in layers)
    return _Values(values.real, [_round_bias(layer, value) for value in values.quantized])


Rounder = Callable[[WeightedLayer, Sequence[Tensor], Sequence[Tensor]], Tensor]
"""A layer's weights on their grid, from the layer, its inputs in the quantized network and those in the float network."""


def _place(layer: WeightedLayer, environment: dict[Node, _Values], rounded: Tensor) -> None:
    layer.replace_weight(rounded)
    environment[layer.rounding_node].quantized = [rounded]


def finish_layers(
    graph_module: GraphModule,
    images: Sequence[Tensor],
    *,
    rounder: Rounder | None,
    bias_correction: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Round the weights and correct the bias of every layer; their scales must be chosen.

    The largest tensors of all images are in memory at once. A correction that would take a bias out of range is left out.

    Parameters
    ----------
    graph_module
        A calibrated graph; its weights and biases are replaced.
    images
        Inputs of the graph, each of batch size 1.
    rounder
        How to round the weights; None for weights that are on their grid already.
    bias_correction
        Whether to correct biases.
    progress
        Called with the number of layers done and their total.
    """
    nodes = list(graph_module.graph.nodes)
    inputs = {node: images for node in nodes if node.op == "placeholder"}
    finish_nodes(graph_module, nodes, real=inputs, quantized=inputs, rounder=rounder, bias_correction=bias_correction, progress=progress)


@torch.no_grad()
def finish_nodes(
    graph_module: GraphModule,
    nodes: Sequence[Node],
    *,
    real: Mapping[Node, Sequence[Tensor]],
    quantized: Mapping[Node, Sequence[Tensor]],
    rounder: Rounder | None,
    bias_correction: bool,
    progress: Callable[[int, int], None],
) -> None:
    """:func:`finish_layers` for the layers among ``nodes``.

    ``nodes`` are in the graph's order and hold all that they read, except what ``real`` and ``quantized`` give: values per image in the
    float network and in the quantized one.
    """
    layers = {layer.node: layer for layer in weighted_layers(graph_module) if layer.node in set(nodes)}
    environment = {node: _Values(list(real[node]), list(quantized[node])) for node in real}
    count = len(next(iter(real.values())))
    uses = Counter(source for node in nodes for source in node.all_input_nodes)
    done = 0
    for node in nodes:
        if node in layers and rounder is not None:
            layer = layers[node]
            inputs = environment[layer.input_node]
            _place(layer, environment, rounder(layer, inputs.quantized, inputs.real))
        if node.op == "get_attr":
            value = constant(graph_module, node)
            environment[node] = _Values([value], [value])
        elif node.op == "call_module":
            environment[node] = _observed(graph_module, node, environment[node.all_input_nodes[0]], layers)
        elif node.op == "call_function":
            environment[node] = _call(node, environment, count)
        if node in layers:
            if bias_correction:
                _correct(layers[node], environment[node])
            done += 1
            progress(done, len(layers))
        for source in node.all_input_nodes:
            uses[source] -= 1
            if uses[source] == 0:
                del environment[source]
