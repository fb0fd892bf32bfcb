"""What each channel of each tensor is distributed like, from batch norms and without images.

A batch norm tells the mean and standard deviation of each channel in front of the activation, as training left them; channels count as
normally distributed (Nagel et al., arXiv 1906.04721). Between norms, distributions are carried on: clamps clip them, an add adds means and
variances, pools keep them, pads of the image's border do not count. A layer without a batch norm counts its inputs as independent of each
other, and the positions that a kernel sees of one channel as equal, as neighbours in images nearly are.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.quantize.families.clamp import clamp_limits, is_clamp
from tercel.sw.quantize.families.pool import is_average
from tercel.sw.quantize.normal import ClippedNormal
from tercel.sw.quantize.plan import constant, module_path
from tercel.sw.quantize.prepared_graph import WeightedLayer, keep_norm_statistics, norm_statistics, weighted_layers

_NORM = torch.ops.aten.batch_norm.default
_LAYERS = {torch.ops.aten.conv2d.default, torch.ops.aten.linear.default}
_KEEPING = {torch.ops.aten.dropout.default, torch.ops.aten.feature_dropout.default, torch.ops.aten.contiguous.default,
            torch.ops.aten.clone.default, torch.ops.aten.max_pool2d.default}  # fmt: skip
_RESHAPES = {torch.ops.aten.flatten.using_ints, torch.ops.aten.reshape.default, torch.ops.aten.view.default,
             torch.ops.aten.squeeze.dim, torch.ops.aten.squeeze.dims, torch.ops.aten.squeeze.default}  # fmt: skip
_PADS = {torch.ops.aten.constant_pad_nd.default, torch.ops.aten.pad.default}
_FRESH = 1e-2
"""A batch norm whose variances are all this near to 1, and whose means are all 0, was never trained, or stands for one folded before."""


def read_norms(graph_module: GraphModule) -> int:
    """Note the statistics of each batch norm with the convolution or linear layer before it; returns the number of norms that have any.

    Of a captured graph, before its norms are folded. A batch norm as it was initialized, or one that takes the place of one folded before,
    has none.
    """
    count = 0
    for node in graph_module.graph.nodes:
        if node.target is not _NORM or node.args[0].target not in _LAYERS or len(node.args[0].users) != 1:
            continue
        gain, shift, mean, variance = (None if part is None else constant(graph_module, part).double() for part in node.args[1:5])
        if mean is None or variance is None or (not mean.any() and bool(((variance - 1).abs() < _FRESH).all())):
            continue
        epsilon = node.args[7]
        std = (variance / (variance + epsilon)).sqrt()
        keep_norm_statistics(
            node.args[0],
            torch.zeros_like(mean) if shift is None else shift,
            std if gain is None else std * gain.abs(),
        )
        count += 1
    return count


def distributions(graph_module: GraphModule, *, input_range: tuple[float, float]) -> dict[Node, ClippedNormal]:
    """The distribution of every tensor of a prepared graph, ``[channels]`` each; its input is standard normal within ``input_range``.

    Raises :class:`~tercel.sw.quantize.errors.QuantizeError` for an operator of which nothing is known.
    """
    layers = {layer.node: layer for layer in weighted_layers(graph_module)}
    found: dict[Node, ClippedNormal] = {}
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            channels = node.meta["val"].shape[1]
            found[node] = ClippedNormal(torch.zeros(channels, dtype=torch.float64), torch.ones(channels, dtype=torch.float64), *input_range)
        elif node in layers:
            found[node] = _layer(layers[node], found)
        elif node.op == "call_module" and node.args[0] in found:
            found[node] = found[node.args[0]]
        elif node.op == "call_function":
            found[node] = _operator(node, found)
    return found


def _layer(layer: WeightedLayer, found: dict[Node, ClippedNormal]) -> ClippedNormal:
    known = norm_statistics(layer.node)
    if known is not None:
        return ClippedNormal(*known)
    mean, std = found[layer.input_node].moments()
    sums = kernel_sums(layer, layer.weight.double())
    groups = layer.group_count
    means, variances = mean.reshape(groups, -1, 1), std.square().reshape(groups, -1, 1)
    return ClippedNormal((sums @ means).flatten() + layer.bias.double(), (sums.square() @ variances).flatten().sqrt())


def kernel_sums(layer: WeightedLayer, weight: Tensor) -> Tensor:
    """What each input channel is multiplied by if all positions are equal: ``[groups, outputs of a group, inputs of a group]``."""
    rows = weight.reshape(*weight.shape[:2], -1).sum(dim=2)
    return rows.reshape(layer.group_count, -1, rows.shape[1])


def _operator(node: Node, found: dict[Node, ClippedNormal]) -> ClippedNormal:
    arguments: tuple[Any, ...] = node.args
    target, sources = node.target, [found[source] for source in node.all_input_nodes if source in found]
    shape = node.meta["val"].shape
    if len(sources) != len(node.all_input_nodes) or not sources:
        pass
    elif is_clamp(node):
        return sources[0].clip(*clamp_limits(node))
    elif target in _KEEPING or is_average(node):
        return sources[0]
    elif target in _RESHAPES:
        if shape[1] % len(sources[0].mean) == 0:
            return _each(sources[0], lambda values: values.repeat_interleave(shape[1] // len(values)))
    elif target is torch.ops.aten.add.Tensor and len(arguments) == 2 and not node.kwargs:
        return _sum(*(found[argument] for argument in arguments))
    elif target is torch.ops.aten.cat.default and (arguments[1] if len(arguments) > 1 else 0) == 1:
        return _joined([found[part] for part in arguments[0]])
    elif target is torch.ops.aten.slice.Tensor:
        if arguments[1] != 1:
            return sources[0]
        return _each(sources[0], lambda values: values[slice(*arguments[2:5])])
    elif target in _PADS and not any(argument not in (None, 0, "constant") for argument in arguments[2:]):
        return _padded(sources[0], [*arguments[1], 0, 0, 0, 0, 0, 0][4:6])
    raise QuantizeError(f"calibration must be given for a network with {target} in module {module_path(node)!r}, not left out "
                        "(without images, nothing is known of its output)")  # fmt: skip


def _each(source: ClippedNormal, change: Callable[[Tensor], Tensor]) -> ClippedNormal:
    return ClippedNormal(change(source.mean), change(source.std), source.low, source.high)


def _sum(one: ClippedNormal, two: ClippedNormal) -> ClippedNormal:
    (mean, std), (other, spread) = one.moments(), two.moments()
    return ClippedNormal(mean + other, (std.square() + spread.square()).sqrt(), one.low + two.low, one.high + two.high)


def _joined(parts: Iterable[ClippedNormal]) -> ClippedNormal:
    """Channels of several tensors; where they are clipped differently, their moments behind the clipping."""
    parts = list(parts)
    low, high = min(part.low for part in parts), max(part.high for part in parts)
    same = all((part.low, part.high) == (low, high) for part in parts)
    moments = [(part.mean, part.std) if same else part.moments() for part in parts]
    return ClippedNormal(torch.cat([mean for mean, _ in moments]), torch.cat([std for _, std in moments]), low, high)


def _padded(source: ClippedNormal, channels: list[int]) -> ClippedNormal:
    """``channels`` of zeros in front and behind; clipped ones stay inside their limits, which hold zero or are none."""
    if not any(channels):
        return source
    mean, std = source.moments()
    before, after = (torch.zeros(count, dtype=torch.float64) for count in channels)
    low, high = min(source.low, 0.0), max(source.high, 0.0)
    return ClippedNormal(torch.cat([before, mean, after]), torch.cat([before, std, after]), low, high)
