"""Tokens, fences and marks: from ordered operations to the program."""

from dataclasses import replace

from tercel.sw.compiler.state import Compilation
from tercel.sw.emitter import Emitter, TokenError
from tercel.sw.graph.integer_graph import LayerNode
from tercel.sw.program import LayerMark


def finish(state: Compilation) -> None:
    """Fill in ``instructions`` and ``program``.

    If tokens run out, because an engine is too far ahead of the one that takes them, the operations run in the order of the trace, and
    where they run out in that too, one token stands for several.
    """
    try:
        state.instructions = _with_tokens(state).finish(merge=False)
    except TokenError:
        state.order = list(range(len(state.trace.operations)))
        state.instructions = _with_tokens(state).finish()
    state.program = replace(state.image.program(state.instructions, _marks(state)), graph=state.source)


def _with_tokens(state: Compilation) -> Emitter:
    emitter = Emitter()
    places: dict[int, int] = {}
    for index in state.order:
        operation = state.trace.operations[index]
        places[index] = emitter.add(operation.opcode, operation.values, after=[places[other] for other in operation.after])
    return emitter


def _marks(state: Compilation) -> tuple[LayerMark, ...]:
    owned: dict[int, list[int]] = {}
    for position, index in enumerate(state.order):
        owned.setdefault(state.trace.operations[index].node, []).append(position)
    groups = {node.name: number for number, nodes in enumerate(state.group_nodes()) for node in nodes}
    marks = []
    for number, (node, given) in enumerate(zip(state.graph.nodes, state.source.nodes, strict=True)):
        mark = LayerMark(
            name=node.name,
            kind="concat",
            engine="load",
            instructions=_ranges(owned.get(number, [])),
            macs=0,
            digits=1,
            group=groups[node.name],
        )
        if isinstance(node, LayerNode) and isinstance(given, LayerNode):
            on_array = node.spec.on_array(state.config)
            engine, digits = ("array", node.spec.digits) if on_array else ("depthwise", 1)
            mark = replace(mark, kind=given.spec.kind, engine=engine, macs=given.spec.macs, digits=digits)
        marks.append(mark)
    return tuple(marks)


def _ranges(indices: list[int]) -> tuple[tuple[int, int], ...]:
    """First and last of each run of ascending ``indices``."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and found[-1][1] == index - 1:
            found[-1] = (found[-1][0], index)
        else:
            found.append((index, index))
    return tuple(found)
