"""A compiled network: run it, compare its executions, account for its cycles, report on it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tercel.hw.config import Config
from tercel.sim.compare import CodeComparison, compare_codes
from tercel.sim.execution import DEFAULT_OPTIONS, Execution, MachineOptions, Progress, execute_program, execute_reference
from tercel.sim.profile import LayerProfile, Profile, profile
from tercel.sim.tensors import Floats, input_codes, output_values
from tercel.sw.compiler import compile_graph
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.graph.select import select_layers
from tercel.sw.layer_spec import Integers
from tercel.sw.program import Program, ProgramError


@dataclass(frozen=True, kw_only=True)
class NetworkResult:
    """What a run gave.

    Attributes
    ----------
    on
        What it ran on.
    outputs
        Values by output name: NCHW, or ``[batch, channels]`` for a vector.
    codes
        The same as codes ``[batch, height, width, channels]``; with ``layers``, the outputs of those.
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
    outputs: dict[str, Floats]
    codes: dict[str, Integers]
    cycles: int | None
    counters: dict[str, int]
    layers: tuple[LayerProfile, ...] = field(repr=False)
    seconds: float

    @property
    def output(self) -> Floats:
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
    """

    def __init__(self, program: Program, *, options: MachineOptions = DEFAULT_OPTIONS) -> None:
        if program.graph is None:
            raise ProgramError("program must hold the graph of a network, not instructions alone (compile it from a network)")
        self.program = program
        self.graph: IntegerGraph = program.graph
        self.options = options

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
            ``golden``, ``verilator`` or ``reference``.
        layers
            A pattern of layer names: run only these, on what the layers before them make of ``x``.
        progress
            See :data:`~tercel.sim.execution.Progress`.

        Raises
        ------
        InputError, UsageError
            For wrong ``x`` or ``on``.
        GraphError
            ``layers`` matches nothing.
        DeviceError, ToolError, SimulationError
            The run failed.
        """
        inputs = input_codes(self.graph, x)
        if layers is not None:
            part, inputs = self.part(layers, inputs)
            return part.result(part._execute(inputs, on=on, progress=progress))
        return self.result(self._execute(inputs, on=on, progress=progress))

    def part(
        self, pattern: str, inputs: dict[str, Integers], *, keep: Sequence[str] = ()
    ) -> tuple["CompiledNetwork", dict[str, Integers]]:
        """The layers that match a pattern as a network of their own, and the codes that enter it when ``inputs`` enter the whole one."""
        graph = select_layers(self.graph, pattern)
        tensors = execute_reference(self.graph, inputs).tensors
        program = compile_graph(graph, self.config, keep=keep, memory_latency=self.options.memory_latency)
        return CompiledNetwork(program, options=self.options), {name: tensors[name] for name in graph.inputs}

    def compare(
        self, x: Any, first: str = "golden", second: str = "verilator", *, layers: str | None = None, progress: Progress | None = None
    ) -> CodeComparison:
        """Compare two executions in codes.

        Compares the program's outputs; where they differ, the network is compiled again with every tensor stored and run on the first
        image that differs, to find the layer. With ``layers``, all tensors of the matching layers are compared from the start.
        """
        inputs = input_codes(self.graph, x)
        names = (first, second)
        if layers is not None:
            part, inputs = self.part(layers, inputs, keep=("*",))
            return part._compare(inputs, names, progress)
        whole = self._compare(inputs, names, progress)
        if whole.mismatch is None:
            return whole
        image = whole.mismatch.image
        inspected, one = self.part("*", {name: codes[image : image + 1] for name, codes in inputs.items()}, keep=("*",))
        found = inspected._compare(one, names, progress)
        if found.mismatch is None:  # only the program as it stands differs, not a new one with every tensor stored
            return whole
        return replace(found, mismatch=replace(found.mismatch, image=image))

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
        return NetworkResult(
            on=execution.on,
            outputs=output_values(self.graph, codes),
            codes=codes,
            cycles=int(np.max(execution.cycles)) if execution.cycles else None,
            counters=execution.counters,
            layers=self.profile.layers,
            seconds=execution.seconds,
        )
