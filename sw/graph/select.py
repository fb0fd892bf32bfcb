"""A part of a network as a network of its own."""

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from tercel.sw.graph.integer_graph import GraphError, IntegerGraph, Node


def select_nodes(nodes: Iterable[Node], pattern: str) -> list[Node]:
    """The nodes whose names match a shell pattern (``features.3.*``), in order; :class:`GraphError` with close names if none does."""
    nodes = list(nodes)
    chosen = [node for node in nodes if fnmatchcase(node.name, pattern)]
    if not chosen:
        names = [node.name for node in nodes]
        close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or names[:3]
        raise GraphError(f"pattern must match at least one layer, not {pattern!r} (close: {', '.join(close)})")
    return chosen


def select_layers(graph: IntegerGraph, pattern: str) -> IntegerGraph:
    """The sub-graph of the nodes whose names match a shell pattern.

    Inputs are the tensors that enter it from outside, in the order of their first use; outputs are those that are read outside or are
    outputs of the network, in the order in which they are made.
    """
    nodes = select_nodes(graph.nodes, pattern)
    chosen = {node.name for node in nodes}
    made = {node.output for node in nodes}
    outside = {tensor for node in graph.nodes if node.name not in chosen for tensor in node.inputs} | set(graph.outputs)
    inputs = tuple(dict.fromkeys(tensor for node in nodes for tensor in node.inputs if tensor not in made))
    outputs = tuple(node.output for node in nodes if node.output in outside)
    return IntegerGraph(
        tensors={name: tensor for name, tensor in graph.tensors.items() if name in made or name in inputs},
        nodes=tuple(nodes),
        inputs=inputs,
        outputs=outputs,
    )
