"""What each layer's width costs on a machine: cycles of its engine by the cycle model, and bytes of its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tercel.hw.config import Config
from tercel.sw.compiler import compile_graph
from tercel.sw.cycles import instruction_cycles
from tercel.sw.estimate import estimate
from tercel.sw.graph.integer_graph import IntegerGraph, LayerNode
from tercel.sw.tensor_layout import ceil_div


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Cycles that the layer needs, of its engine or of the memory port, whichever takes longer; and bytes of its weights in memory."""

    cycles: int
    weight_bytes: int


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """Cycles of one image, and bytes of all weights."""

    cycles: int
    weight_bytes: int


def module_of(node: str, modules: Mapping[str, object]) -> str | None:
    """The module that made a node of the graph: of its name, or of its name before the number that makes a second call's unique."""
    if node in modules:
        return node
    base, _, number = node.rpartition(".")
    return base if number.isdigit() and base in modules else None


def weight_bytes(layer: LayerNode, config: Config) -> int:
    """A layer's weights at 2 bits a digit; the depthwise engine's always take 8."""
    bits = 2 * layer.spec.digits if layer.spec.on_array(config) else 8
    return ceil_div(int(layer.weights.size) * bits, 8)


def with_widths(graph: IntegerGraph, config: Config, widths: Mapping[str, int]) -> IntegerGraph:
    """The graph with the array's layers of some modules at other widths, their codes clipped: right in shape and cost, not in value."""

    def changed(layer: LayerNode) -> LayerNode:
        module = module_of(layer.name, widths)
        if module is None or not layer.weights.size or not layer.spec.on_array(config):
            return layer
        limit = (1 << widths[module] - 1) - 1
        return replace(layer, spec=replace(layer.spec, weight_bits=widths[module]), weights=np.clip(layer.weights, -limit, limit))

    return replace(graph, nodes=tuple(changed(node) if isinstance(node, LayerNode) else node for node in graph.nodes))


def layer_costs(graph: IntegerGraph, config: Config, *, modules: Mapping[str, object], width: int) -> dict[str, LayerCost]:
    """Cost of each module's layers when all have ``width`` bits."""
    sized = with_widths(graph, config, dict.fromkeys(modules, width))
    program = compile_graph(sized, config)
    instructions = program.instructions()
    cycles: dict[str, int] = {}
    for mark in program.marks:
        module = module_of(mark.name, modules)
        if module is not None:
            costs = [instruction_cycles(*instructions[index], config) for index in mark.indices()]
            moving = sum(cost.beats for cost in costs)
            computing = sum(cost.issue for cost in costs if not cost.beats)
            cycles[module] = cycles.get(module, 0) + max(computing, moving)
    sizes: dict[str, int] = {}
    for layer in sized.layers():
        module = module_of(layer.name, modules)
        if module is not None:
            sizes[module] = sizes.get(module, 0) + weight_bytes(layer, config)
    return {module: LayerCost(cycles=cycles.get(module, 0), weight_bytes=size) for module, size in sizes.items()}


def network_cost(graph: IntegerGraph, config: Config, *, memory_latency: int = 8) -> NetworkCost:
    """Cost of a whole network: compiled, and its run predicted."""
    program = compile_graph(graph, config, memory_latency=memory_latency)
    return NetworkCost(
        cycles=estimate(program, memory_latency=memory_latency).cycles,
        weight_bytes=sum(weight_bytes(layer, config) for layer in graph.layers()),
    )
