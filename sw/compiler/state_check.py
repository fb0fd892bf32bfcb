"""What must hold between passes. A failure is a fault of the compiler, never of the network."""

from itertools import pairwise

from tercel.sw.compiler.group_plan import GroupPlan
from tercel.sw.compiler.state import Compilation


class StateError(AssertionError):
    """A pass left something that cannot be."""


def check_state(state: Compilation) -> None:
    """:class:`StateError` unless everything that has been filled in so far is consistent."""
    _require([node.name for node in state.graph.nodes] == [node.name for node in state.source.nodes], "nodes have changed")
    if state.groups:
        _check_groups(state)
    if state.ports:
        _check_ports(state)
    if state.order:
        _check_order(state)
    if state.program is not None:
        marked = sorted(index for mark in state.program.marks for index in mark.indices())
        _require(marked == list(range(len(state.program.words) - 1)), "marks do not cover the instructions")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise StateError(message)


def _check_groups(state: Compilation) -> None:
    nodes = [node.name for nodes in state.group_nodes() for node in nodes]
    _require(nodes == [node.name for node in state.graph.nodes], "groups do not hold every node once, in order")
    outside = set(state.graph.inputs)
    for plan in state.groups:
        if not isinstance(plan, GroupPlan):
            _require(outside.issuperset(plan.inputs), f"{plan.name} reads what is not in external memory")
            outside.add(plan.output)
            continue
        loaded = {name for name, _ in plan.group.inputs}
        _require(outside >= loaded, f"{plan.group.layers[0].name} and those after it read what is not in external memory")
        outside.update(plan.group.stored)
        for key, buffer in plan.buffers.items():
            depth = (state.config.array_depth, state.config.window_depth)[key[1]]
            _require(0 <= plan.bases[key] <= depth - buffer.words, f"{key[0]} leaves its scratchpad")
    _require(outside.issuperset(state.wanted), "an output is not stored")


def _check_ports(state: Compilation) -> None:
    ranges = sorted((port.address, port.address + port.size, name) for name, port in state.ports.items())
    for (_, end, name), (start, _, other) in pairwise(ranges):
        _require(end <= start, f"{name} and {other} overlap in external memory")


def _check_order(state: Compilation) -> None:
    operations = state.trace.operations
    _require(sorted(state.order) == list(range(len(operations))), "the order has not every operation once")
    positions = {index: position for position, index in enumerate(state.order)}
    for index, operation in enumerate(operations):
        for other in (*operation.after, *operation.behind):
            _require(positions[other] < positions[index], f"operation {index} comes before {other}, which it waits for")
