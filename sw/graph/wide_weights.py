"""Layers of the depthwise engine whose weights have more than 8 bits, as layers of the array.

A record holds weights, 8 bits each. The array holds codes d, and takes g and h of ``w = g*d + h`` apart from them: asymmetric weights of
8 unsigned bits have 9 signed ones, and run there.
"""

from dataclasses import replace

import numpy as np

from tercel.hw.config import Config
from tercel.sw.graph.integer_graph import LayerNode
from tercel.sw.layer_depthwise import fits_records, record_weights
from tercel.sw.layer_spec import Integers
from tercel.sw.tensor_layout import ceil_div


def on_engine_that_holds(layer: LayerNode, config: Config) -> LayerNode:
    """The layer itself, or what computes the same on the array if the depthwise engine has to run it and cannot hold its weights.

    :class:`~tercel.sw.layer_spec.LayerError` if the array cannot hold them either.
    """
    spec = layer.spec
    if spec.on_array(config) or not config.depthwise or fits_records(spec, layer.weights):
        return layer
    moved = replace(layer, spec=replace(spec, array=True)) if spec.kind == "linear" else _dense(layer, config)
    if moved is None or not _fits_array(moved, config):
        record_weights(spec, layer.weights)
        raise AssertionError("weights that do not fit records are refused")
    return moved


def _dense(layer: LayerNode, config: Config) -> LayerNode | None:
    """A depthwise layer as a convolution of few channels a group, with weights of 0 between them; None if no code makes 0.

    Groups are of whole words, which is what the array asks of them, or else there is one.
    """
    spec, channels = layer.spec, layer.spec.input[2]
    zero, odd = divmod(-spec.weight_offset, spec.gain)
    half = 1 << 2 * spec.digits - 1
    if odd or not -half <= zero < half:
        return None
    inputs = config.lanes if channels % config.lanes == 0 else channels
    weights: Integers = np.full((channels, *spec.kernel, inputs), zero, dtype=np.int64)
    output = np.arange(channels)
    weights[output, :, :, output % inputs] = layer.weights.transpose(2, 0, 1)
    return replace(layer, spec=replace(spec, kind="conv", out=channels, groups=channels // inputs), weights=weights)


def _fits_array(layer: LayerNode, config: Config) -> bool:
    """Whether the array has the digits for the codes, and room for those of a group of outputs."""
    spec = layer.spec
    steps = spec.kernel[0] * spec.kernel[1] * ceil_div(spec.input[2] // spec.groups, config.lanes)
    ternary = config.digit_set == "ternary"
    return (
        spec.digits <= config.max_digits
        and not (ternary and np.abs(layer.weights).max() > 1)
        and steps * spec.digits <= config.weight_depth
    )
