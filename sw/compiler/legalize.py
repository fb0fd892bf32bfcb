"""First pass: each layer's engine and whether its sums are narrow; what no cutting helps against is refused."""

from dataclasses import replace

import numpy as np

from tercel.hw.config import Config
from tercel.sw.compiler.fit import FitError
from tercel.sw.compiler.state import Compilation
from tercel.sw.graph.integer_graph import ConcatNode, IntegerGraph, LayerNode, Node
from tercel.sw.graph.narrow_sums import with_narrow_sums
from tercel.sw.graph.wide_weights import on_engine_that_holds
from tercel.sw.layer_array import check_array
from tercel.sw.layer_depthwise import check_depthwise
from tercel.sw.layer_spec import LayerError, check
from tercel.sw.tensor_layout import ceil_div

MATRIX_RECORD_CYCLES = 3
"""Cycles of the depthwise engine for a record of a matrix-vector product."""


def legalize(state: Compilation) -> None:
    """Decide ``narrow`` and, for matrix-vector products, ``array``; layers of weights too wide for the depthwise engine go to the array.

    :class:`FitError` with all layers that the machine lacks something for.
    """
    graph, config = state.graph, state.config
    problems = []
    nodes: list[Node] = []
    for node in graph.nodes:
        try:
            if isinstance(node, LayerNode):
                layer = on_engine_that_holds(node, config)
                layer = replace(layer, spec=replace(layer.spec, array=_is_array_faster(layer, config)))
                _check_layer(layer, config)
                narrow = with_narrow_sums(layer, config)
                nodes.append(narrow or replace(layer, spec=replace(layer.spec, narrow=False)))
            else:
                _check_concat(node, graph, config)
                nodes.append(node)
        except LayerError as error:
            problems.append(f"{node.name}: {error}")
    if problems:
        raise FitError(problems)
    state.graph = replace(graph, nodes=tuple(nodes))


def _is_array_faster(layer: LayerNode, config: Config) -> bool:
    """Whether the array runs a matrix-vector product sooner, or as soon as the memory brings the weights."""
    spec = layer.spec
    if spec.kind != "linear" or spec.on_array(config):
        return spec.array
    if spec.digits > config.max_digits or (config.digit_set == "ternary" and np.abs(layer.weights).max(initial=0) > 1):
        return False
    steps = ceil_div(spec.input[2], config.lanes)
    if steps * spec.digits > config.weight_depth:
        return False
    words = ceil_div(spec.out, config.outputs) * steps * spec.digits
    on_array = words * max(1, config.weight_word_bytes // config.memory_width)
    records = ceil_div(spec.out, config.lanes) * steps * max(1, config.lanes // 8)
    return on_array <= records * max(MATRIX_RECORD_CYCLES, 9 * config.lanes // config.memory_width)


def _check_layer(layer: LayerNode, config: Config) -> None:
    spec, machine = layer.spec, f"config {config.name}"
    if spec.on_array(config):
        check_array(replace(spec, narrow=None), config)
        if config.digit_set == "ternary" and layer.weights.size:
            low, high = int(layer.weights.min()), int(layer.weights.max())
            check(low >= -1 and high <= 1, "weights", "in -1..1", f"{low}..{high}", f"{machine} has ternary digits")
    else:
        check_depthwise(replace(spec, narrow=None), config)
    check(
        not layer.multipliers.size or config.per_channel_multiplier,
        "multipliers",
        "one a layer",
        f"one for each of {layer.multipliers.size} channels",
        f"{machine} stores none a channel; take scales that differ by powers of two, or per_channel_multiplier=True",
    )


def _check_concat(node: ConcatNode, graph: IntegerGraph, config: Config) -> None:
    for name in node.inputs[:-1]:
        channels = graph.tensors[name].shape[2]
        check(
            channels % config.lanes == 0,
            f"channels of {name}",
            f"a multiple of lanes={config.lanes}",
            channels,
            "only the last tensor of a concatenation may end within a word; pad the channels",
        )
