"""A compiled network: run it, compare its executions, account for its cycles, report on it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tercel.hw.config import Config
from tercel.sim.compare import CodeComparison, FloatComparison, compare_codes, compare_floats
from tercel.sim.execution import DEFAULT_OPTIONS, Execution, MachineOptions, Progress, execute_program, execute_reference
from tercel.sim.float_execution import FLOAT_EXECUTIONS, execute_fake_quantized, execute_float
from tercel.sim.parse import UsageError
from tercel.sim.profile import LayerProfile, Profile, profile
from tercel.sim.tensors import Floats, are_codes, input_codes, input_values, network_values, output_values
from tercel.sw.compiler import compile_graph
from tercel.sw.graph.codes import from_codes
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.graph.select import select_layers, select_nodes
from tercel.sw.host import enter, leave
from tercel.sw.host.operators import Values
from tercel.sw.layer_spec import Integers
from tercel.sw.program import Program, ProgramError

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from tercel.sw.importer import Imported


@dataclass(frozen=True, kw_only=True)
class NetworkResult:
    """What a run gave.

    Attributes
    ----------
    on
        What it ran on.
    outputs
        Values by output name, as the network returns them: NCHW, or ``[batch, channels]`` for a vector. Where operators behind the layers
        run on the host, they have been run: float32, or whole numbers where the network returns such.
    codes
        Of the machine's outputs ``[batch, height, width, channels]``, which are the network's unless operators follow on the host; with
        ``layers``, the outputs of those.
    cycles
        Of one image, the most of the batch; None where nothing was clocked.
    counters
        The machine's performance counters of the last image.
    layers
        Each layer's part of a run by the cycle model.
    seconds
        Wall time of the run.
    """

    on: str
    outputs: dict[str, Values]
    codes: dict[str, Integers]
    cycles: int | None
    counters: dict[str, int]
    layers: tuple[LayerProfile, ...] = field(repr=False)
    seconds: float

    @property
    def output(self) -> Values:
        """The only output's values; the first of several."""
        return next(iter(self.outputs.values()))


class CompiledNetwork:
    """A program that was compiled from a network, and its integer graph.

    Parameters
    ----------
    program
        From the compiler; :class:`~tercel.sw.program.ProgramError` if it holds no graph.
    options
        The memory that estimates and simulations assume.
    imported
        How the network became the graph: warnings, and what became of each operator. A file does not hold it.
    """

    def __init__(self, program: Program, *, options: MachineOptions = DEFAULT_OPTIONS, imported: "Imported | None" = None) -> None:
        if program.graph is None:
            raise ProgramError("program must hold the graph of a network, not instructions alone (compile it from a network)")
        self.program = program
        self.graph: IntegerGraph = program.graph
        self.options = options
        self.imported = imported

    @classmethod
    def load(cls, path: Path | str) -> "CompiledNetwork":
        """Read a ``.tnpu`` file."""
        return cls(Program.load(path))

    def save(self, path: Path | str) -> None:
        """Write a ``.tnpu`` file."""
        self.program.save(path)

    @property
    def config(self) -> Config:
        """The machine it is compiled for."""
        return self.program.config

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the network's first input without the batch, as it is given in floating point: channels, height, width for an image."""
        if self.program.host_head is not None:
            return self.program.host_head.inputs[0].shape
        height, width, channels = self.graph.tensors[self.graph.inputs[0]].shape
        return channels, height, width

    @cached_property
    def profile(self) -> Profile:
        """The predicted run, by layer and by engine."""
        return profile(self.program, memory_latency=self.options.memory_latency, memory_rate=self.options.memory_efficiency)

    def __repr__(self) -> str:
        layers = sum(1 for _ in self.graph.layers())
        size = f"{layers} layers, {self.graph.macs} MACs, {len(self.program.words)} instructions"
        return f"CompiledNetwork({size}, config {self.config.name})"

    def run(self, x: Any, *, on: str = "golden", layers: str | None = None, progress: Progress | None = None) -> NetworkResult:
        """Run a batch.

        Parameters
        ----------
        x
            See :func:`~tercel.sim.tensors.input_codes`.
        on
            ``golden``, ``verilator``, ``reference``, or a board: ``board:`` and its serial port.
        layers
            A pattern of layer names: run only these, on what the layers before them make of ``x``.
        progress
            See :data:`~tercel.sim.execution.Progress`.

        Raises
        ------
        InputError, UsageError, HostError
            For wrong ``x`` or ``on``, and where the host makes something of ``x`` that is not finite.
        GraphError
            ``layers`` matches nothing.
        DeviceError, ToolError, SimulationError, LinkError
            The run failed.
        """
        inputs = self.inputs(x)
        if layers is not None:
            part, inputs = self.part(layers, inputs)
            return part.result(part._execute(inputs, on=on, progress=progress))
        return self.result(self._execute(inputs, on=on, progress=progress))

    def inputs(self, x: Any) -> dict[str, Integers]:
        """The codes that enter the program when ``x`` enters the network, operators on the host before it included."""
        head = self.program.host_head
        if head is None or are_codes(x):
            return input_codes(self.graph, x)
        return enter(head, self.graph, network_values(head, x))

    def part(
        self, pattern: str, inputs: dict[str, Integers], *, keep: Sequence[str] = ()
    ) -> tuple["CompiledNetwork", dict[str, Integers]]:
        """The layers that match a pattern as a network of their own, and the codes that enter it when ``inputs`` enter the whole one."""
        graph = select_layers(self.graph, pattern)
        tensors = execute_reference(self.graph, inputs).tensors
        program = compile_graph(graph, self.config, keep=keep, memory_latency=self.options.memory_latency)
        return CompiledNetwork(program, options=self.options), {name: tensors[name] for name in graph.inputs}

    def report(
        self, path: Path | str, *, title: str = "network", clock_mhz: float | None = None, measured: NetworkResult | None = None
    ) -> tuple[Path, Path]:
        """Write a page about the network and its timeline; parameters and result as for :func:`~tercel.sim.report.write_report`."""
        from tercel.sim.report import write_report

        operators = () if self.imported is None else self.imported.operators
        return write_report(self, path, title=title, clock_mhz=clock_mhz, measured=measured, operators=operators)

    def compare(
        self,
        x: Any,
        first: str = "golden",
        second: str = "verilator",
        *,
        layers: str | None = None,
        quantized: "ExportedProgram | None" = None,
        model: "nn.Module | None" = None,
        progress: Progress | None = None,
    ) -> CodeComparison | FloatComparison:
        """Compare two executions.

        Two in codes (``reference``, ``golden``, ``verilator``) are compared code by code: first the program's outputs; where they
        differ, the network is compiled again with every tensor stored and run on the first image that differs, to find the layer.
        With ``layers``, all tensors of the matching layers are compared from the start.

        With one in floating point (``float``, ``fake-quantized``) each tensor that both have gets its signal-to-noise ratio.

        Parameters
        ----------
        x
            See :func:`~tercel.sim.tensors.input_codes`.
        first, second
            The executions.
        layers
            A pattern of layer names.
        quantized
            The captured graph that the network was compiled from, for ``float`` and ``fake-quantized``.
        model
            The trained network, for ``float``.
        progress
            See :data:`~tercel.sim.execution.Progress`.
        """
        names = (first, second)
        inputs = self.inputs(x)
        if any(name in FLOAT_EXECUTIONS for name in names):
            kept = None if layers is None else {node.output for node in select_nodes(self.graph.nodes, layers)}
            found = []
            for name in names:
                values = self._values(name, x, inputs, layers=layers, quantized=quantized, model=model, progress=progress)
                found.append({tensor: value for tensor, value in values.items() if kept is None or tensor in kept})
            return compare_floats(self.graph, *found, names=names)
        if layers is not None:
            part, inputs = self.part(layers, inputs, keep=("*",))
            return part._compare(inputs, names, progress)
        whole = self._compare(inputs, names, progress)
        if whole.mismatch is None:
            return whole
        image = whole.mismatch.image
        inspected, one = self.part("*", {name: codes[image : image + 1] for name, codes in inputs.items()}, keep=("*",))
        located = inspected._compare(one, names, progress)
        if located.mismatch is None:  # only the program as it stands differs, not a new one with every tensor stored
            return whole
        return replace(located, mismatch=replace(located.mismatch, image=image))

    def _values(
        self,
        name: str,
        x: Any,
        inputs: dict[str, Integers],
        *,
        layers: str | None,
        quantized: "ExportedProgram | None",
        model: "nn.Module | None",
        progress: Progress | None,
    ) -> dict[str, Floats]:
        """An execution's tensors ``[batch, height, width, channels]`` in floating point."""
        if name not in FLOAT_EXECUTIONS:
            network, codes = (self, inputs) if layers is None or name == "reference" else self.part(layers, inputs, keep=("*",))
            tensors = network._execute(codes, on=name, progress=progress).tensors
            return {tensor: from_codes(self.graph.tensors[tensor], values) for tensor, values in tensors.items()}
        if quantized is None:
            raise UsageError(f"quantized must be given for {name}, not left out (the network as it was before compilation)")
        images = input_values(self.graph, x, head=self.program.host_head)
        if name == "fake-quantized":
            return execute_fake_quantized(self.graph, quantized, images)
        if model is None:
            raise UsageError("model must be given for float, not left out (the network as it was before quantization)")
        return execute_float(self.graph, quantized, model, images)

    def _compare(self, inputs: dict[str, Integers], names: tuple[str, str], progress: Progress | None) -> CodeComparison:
        first, second = (self._execute(inputs, on=name, progress=progress).tensors for name in names)
        return compare_codes(self.graph, first, second, names=names, pixels=self.config.pixels)

    def _execute(self, inputs: dict[str, Integers], *, on: str, progress: Progress | None) -> Execution:
        if on == "reference":
            return execute_reference(self.graph, inputs)
        cycles = self.profile.cycles if on == "verilator" else 0
        return execute_program(self.program, inputs, on=on, options=self.options, expected_cycles=cycles, progress=progress)

    def result(self, execution: Execution) -> NetworkResult:
        """What an execution of this network means to its user."""
        codes = {name: execution.tensors[name] for name in self.graph.outputs}
        tail = self.program.host_tail
        return NetworkResult(
            on=execution.on,
            outputs=dict(output_values(self.graph, codes)) if tail is None else leave(tail, self.graph, codes),
            codes=codes,
            cycles=int(np.max(execution.cycles)) if execution.cycles else None,
            counters=execution.counters,
            layers=self.profile.layers,
            seconds=execution.seconds,
        )
