"""The compiler's entry."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tercel.hw.config import Config
from tercel.sw.compiler.pipeline import run_passes
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.graph.verify import verify
from tercel.sw.program import Program


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
    return run_passes(graph, config, keep=keep, memory_latency=memory_latency, dump=dump, progress=progress)
