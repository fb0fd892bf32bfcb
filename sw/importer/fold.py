"""Clean-up of an imported graph: clamps go into the layers before them, and what nothing reads goes away."""

from collections.abc import Iterable
from dataclasses import replace

from tercel.sw.graph.integer_graph import IntegerGraph, LayerNode, Node


def fold_clamps(graph: IntegerGraph, names: Iterable[str]) -> tuple[IntegerGraph, dict[str, str]]:
    """Fold layers that only clamp codes (``names``) into the layer that makes their input, where nothing else reads it.

    Returns the graph and, for each layer that went, the one that took it over, which keeps its own name.
    """
    moved: dict[str, str] = {}
    for name in names:
        clamp = next(node for node in graph.nodes if node.name == name)
        producer = graph.producer(clamp.inputs[0])
        alone = len(graph.consumers(clamp.inputs[0])) == 1 and clamp.inputs[0] not in graph.outputs
        if not isinstance(clamp, LayerNode) or not isinstance(producer, LayerNode) or not alone or producer.spec.thresholds:
            continue
        low, high = max(producer.spec.low, clamp.spec.low), min(producer.spec.high, clamp.spec.high)
        if low > high:
            continue
        narrowed = replace(producer, spec=replace(producer.spec, lo=low, hi=high))
        nodes = [
            narrowed if node is producer else _renamed(node, clamp.output, producer.output) for node in graph.nodes if node is not clamp
        ]
        graph = IntegerGraph(
            tensors={key: tensor for key, tensor in graph.tensors.items() if key != clamp.output},
            nodes=tuple(nodes),
            inputs=graph.inputs,
            outputs=tuple(producer.output if output == clamp.output else output for output in graph.outputs),
        )
        moved[name] = producer.name
    return graph, moved


def _renamed(node: Node, old: str, new: str) -> Node:
    """The node reading ``new`` instead of ``old``."""
    if isinstance(node, LayerNode):
        residual = new if node.residual == old else node.residual
        return replace(node, input=new if node.input == old else node.input, residual=residual)
    return replace(node, inputs=tuple(new if name == old else name for name in node.inputs))


def remove_unread(graph: IntegerGraph) -> IntegerGraph:
    """The graph without nodes that no output depends on; inputs stay."""
    needed = set(graph.outputs)
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
    return IntegerGraph(
        tensors={name: tensor for name, tensor in graph.tensors.items() if name in needed or name in graph.inputs},
        nodes=tuple(node for node in graph.nodes if node.output in needed),
        inputs=graph.inputs,
        outputs=graph.outputs,
    )
