"""The state of a compilation as text, for people."""

from collections import Counter
from collections.abc import Iterator

from tercel.sw.compiler.group_plan import GroupPlan
from tercel.sw.compiler.state import Compilation
from tercel.sw.graph.text import graph_text


def state_text(state: Compilation, name: str) -> str:
    """What the pass ``name`` has made."""
    lines = {"segment": _groups, "place": _ports, "emit": _operations, "order": _operations, "finish": _instructions}.get(name, _layers)
    return "".join(f"{line}\n" for line in lines(state))


def _layers(state: Compilation) -> Iterator[str]:
    return iter(graph_text(state.graph, state.config).splitlines())


def _groups(state: Compilation) -> Iterator[str]:
    for number, plan in enumerate(state.groups):
        if not isinstance(plan, GroupPlan):
            yield f"{number}: {plan.name} alone"
            continue
        yield f"{number}: {', '.join(layer.name for layer in plan.group.layers)}"
        yield f"    {plan.shape}, {len(plan.steps)} steps, resident {', '.join(sorted(space.name for space in plan.resident)) or 'nothing'}"
        for key, buffer in plan.buffers.items():
            kind = "ring of" if buffer.ring else "all"
            space = ("array", "window")[key[1]]
            yield f"    {key[0]}: {space} {plan.bases[key]}+{buffer.words} words, {kind} {buffer.rows} rows of {buffer.pitch} pixels"


def _ports(state: Compilation) -> Iterator[str]:
    for name, port in state.ports.items():
        yield f"{port.address:#010x} {port.size:8d} bytes  {name} {port.shape}"


def _operations(state: Compilation) -> Iterator[str]:
    names = [node.name for node in state.graph.nodes]
    for index in state.order or range(len(state.trace.operations)):
        operation = state.trace.operations[index]
        waits = f"after {sorted(operation.after)} behind {sorted(operation.behind)}"
        yield f"{index:5d} {operation.engine.name:9s} {names[operation.node]} {waits}"


def _instructions(state: Compilation) -> Iterator[str]:
    counts = Counter(opcode.name for opcode, _ in state.instructions)
    yield f"{len(state.instructions)} instructions: {', '.join(f'{count} {name}' for name, count in counts.items())}"
