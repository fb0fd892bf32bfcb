"""The passes, in order."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tercel.hw.config import Config
from tercel.sw.compiler.emit import emit
from tercel.sw.compiler.finish import finish
from tercel.sw.compiler.fold import fold
from tercel.sw.compiler.legalize import legalize
from tercel.sw.compiler.place import place
from tercel.sw.compiler.schedule import order
from tercel.sw.compiler.segment import segment
from tercel.sw.compiler.state import Compilation
from tercel.sw.compiler.state_check import check_state
from tercel.sw.compiler.state_text import state_text
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.graph.verify import verify
from tercel.sw.program import Program

PASSES: tuple[Callable[[Compilation], None], ...] = (legalize, fold, segment, place, emit, order, finish)
"""Each changes the state; it is checked after each."""


def compile_graph(
    graph: IntegerGraph,
    config: Config,
    *,
    keep: Sequence[str] = (),
    memory_latency: int = 8,
    dump: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Program:
    """A program that computes ``graph`` on a machine of ``config``; equal arguments give equal bytes.

    Parameters
    ----------
    graph
        The network. Inputs and outputs of the program are named like its tensors.
    config
        The machine.
    keep
        Patterns (``fnmatch``) of layer names whose output tensors become outputs of the program too.
    memory_latency
        Cycles from a read request to its first answer, for the schedule.
    dump
        A folder that gets a text file after each pass.
    progress
        Called with the name of each pass when it begins.

    Raises
    ------
    GraphError
        The graph breaks its rules.
    FitError
        Layers that the machine lacks something for, all in one error.
    """
    verify(graph)
    kept = [node.output for node in graph.nodes if any(fnmatchcase(node.name, pattern) for pattern in keep)]
    wanted = tuple(dict.fromkeys([*graph.outputs, *kept]))
    state = Compilation(source=graph, config=config, memory_latency=memory_latency, wanted=wanted, graph=graph)
    for number, change in enumerate(PASSES):
        if progress is not None:
            progress(change.__name__)
        change(state)
        check_state(state)
        if dump is not None:
            dump.mkdir(parents=True, exist_ok=True)
            (dump / f"{number}_{change.__name__}.txt").write_text(state_text(state, change.__name__))
    assert state.program is not None
    return state.program
