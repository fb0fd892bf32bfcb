"""The functions behind ``import tercel``."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercel.hw.config import BASE, Config
from tercel.sim.compare import CodeComparison, FloatComparison
from tercel.sim.execution import DEFAULT_OPTIONS, MachineOptions, Progress
from tercel.sim.network import CompiledNetwork
from tercel.sw.compiler import compile_graph
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.image_format import ImageFormat

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram


def compile_network(
    network: "ExportedProgram | IntegerGraph",
    *,
    config: Config = BASE,
    keep: Sequence[str] = (),
    strict: bool = False,
    allow_host: Sequence[str] = (),
    image_format: ImageFormat | None = None,
    options: MachineOptions = DEFAULT_OPTIONS,
    dump: Path | None = None,
    progress: Progress | None = None,
) -> CompiledNetwork:
    """Compile a quantized network for a machine.

    Parameters
    ----------
    network
        What :func:`~tercel.sw.quantize.quantize` returns, any other captured graph with quantize and dequantize ops, or an integer graph.
    config
        The machine.
    keep
        Patterns of layer names whose outputs the program stores too.
    strict, allow_host
        See :func:`~tercel.sw.importer.import_exported`.
    image_format
        How photographs become the input, stored with the program.
    options
        The memory that schedules and estimates assume.
    dump
        A folder that gets a text file after each pass of the compiler.
    progress
        See :data:`~tercel.sim.execution.Progress`.

    Raises
    ------
    UnsupportedError
        The network holds operators that the machine lacks; all of them in one error.
    FitError
        A layer does not fit the machine's memories.
    HostError
        ``allow_host`` names an operator that the host does not run.
    """
    imported = None
    if not isinstance(network, IntegerGraph):
        from tercel.sw.importer import import_exported

        imported = import_exported(network, config=config, strict=strict, allow_host=allow_host)
        network = imported.graph
    program = compile_graph(network, config, keep=keep, memory_latency=options.memory_latency, dump=dump, progress=_steps(progress))
    head, tail = (None, None) if imported is None else (imported.host_head, imported.host_tail)
    program = replace(program, image_format=image_format, host_head=head, host_tail=tail)
    return CompiledNetwork(program, options=options, imported=imported)


def _steps(progress: Progress | None) -> Callable[[str], None] | None:
    return None if progress is None else lambda step: progress(f"compile: {step}", 0, 0)


def load_network(path: Path | str) -> CompiledNetwork:
    """Read a compiled network from a ``.tnpu`` file."""
    return CompiledNetwork.load(path)


def compare_network(
    network: CompiledNetwork,
    x: Any,
    first: str = "golden",
    second: str = "verilator",
    *,
    layers: str | None = None,
    quantized: "ExportedProgram | None" = None,
    model: "nn.Module | None" = None,
) -> CodeComparison | FloatComparison:
    """As :meth:`~tercel.sim.network.CompiledNetwork.compare`."""
    return network.compare(x, first, second, layers=layers, quantized=quantized, model=model)
