"""A network's integer graph or its program, run on a batch of images: one function for the reference and for every machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tercel.hw.isa import Fault
from tercel.sim.backend import GoldenBackend, VerilatorBackend
from tercel.sim.board_backend import BoardBackend, open_board
from tercel.sim.parse import UsageError
from tercel.sim.verilator.model import MemoryModel
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.graph.reference import run_reference
from tercel.sw.layer_spec import Integers
from tercel.sw.program import Program

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the whole; a whole of 0 is not known."""

MACHINES = ("golden", "verilator")
"""Backends that run programs."""

LINKED: dict[str, Callable[..., BoardBackend]] = {"board": open_board}
"""What opens a machine behind a link, by the word before the colon: called with what follows it, and with ``progress``."""

CODE_EXECUTIONS = ("reference", *MACHINES)
"""Everything that computes in codes."""


class DeviceError(RuntimeError):
    """A program ended with a fault. The message names the machine, the fault, the instruction and the layer."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What a batch left behind.

    Attributes
    ----------
    on
        ``reference``, ``golden``, ``verilator`` or a device such as ``board:/dev/ttyUSB0``.
    tensors
        Codes ``[batch, height, width, channels]`` by name: a program's outputs, or all tensors of the graph for the reference.
    cycles
        Of each image, where the machine has a clock.
    counters
        Of the last image, by name.
    seconds
        Wall time of all images, without building a simulation.
    """

    on: str
    tensors: dict[str, Integers]
    cycles: tuple[int, ...] = ()
    counters: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """The memory behind a simulated machine: latency in cycles, and transfers per cycle in the long run, in 0..1."""

    memory_latency: int = 8
    memory_efficiency: float = 1.0


DEFAULT_OPTIONS = MachineOptions()


def execute_reference(graph: IntegerGraph, inputs: Mapping[str, Integers]) -> Execution:
    """Every tensor of the graph, from NumPy; ``inputs`` are batched codes."""
    tensors = run_reference(graph, inputs, keep=True)
    return Execution(on="reference", tensors={name: np.asarray(codes, dtype=np.int64) for name, codes in tensors.items()})


def execute_program(
    program: Program,
    inputs: Mapping[str, Integers],
    *,
    on: str,
    options: MachineOptions = DEFAULT_OPTIONS,
    expected_cycles: int = 0,
    progress: Progress | None = None,
) -> Execution:
    """A program on a machine, one image after the other.

    Parameters
    ----------
    program
        For any config; the simulation is built if it has to be.
    inputs
        Batched codes by the names of the program's inputs.
    on
        One of ``MACHINES``, or one of ``LINKED``, a colon and where it is.
    options
        The memory of the simulation.
    expected_cycles
        Of an image, for the progress; 0 is not known.
    progress
        Told about images on the golden model, cycles in the simulation.

    Raises
    ------
    DeviceError
        The program ends with a fault.
    ToolError, SimulationError
        From the simulation.
    LinkError
        From a device.
    """
    batch = len(next(iter(inputs.values())))
    notify = progress or (lambda *_: None)
    done = 0

    def cycles_so_far(cycles: int) -> None:
        notify("verilator, cycles", done * expected_cycles + min(cycles, expected_cycles or cycles), batch * expected_cycles)

    backend = _backend(on, options, report=lambda step: notify(step, 0, 0), cycles=cycles_so_far, progress=notify)
    found: dict[str, list[Integers]] = {port.name: [] for port in program.outputs}
    cycles: list[int] = []
    seconds = 0.0
    counters: dict[str, int] = {}
    try:
        for done in range(batch):
            result = backend.run(program, inputs={name: codes[done] for name, codes in inputs.items()})
            if result.fault is not Fault.NONE:
                raise DeviceError(_describe_fault(program, on, result.fault, result.fault_index))
            for name, codes in result.outputs.items():
                found[name].append(codes)
            if result.cycles is not None:
                cycles.append(result.cycles)
            seconds += result.seconds
            counters = result.counters
            if on == "golden":
                notify("golden, images", done + 1, batch)
    finally:
        if not isinstance(backend, GoldenBackend):
            backend.close()
    tensors = {name: np.stack(codes) for name, codes in found.items()}
    return Execution(on=on, tensors=tensors, cycles=tuple(cycles), counters=counters, seconds=seconds)


def _backend(
    on: str, options: MachineOptions, *, report: Callable[[str], None], cycles: Callable[[int], None], progress: Progress
) -> GoldenBackend | VerilatorBackend | BoardBackend:
    if on == "golden":
        return GoldenBackend()
    if on == "verilator":
        memory_model = MemoryModel(latency=options.memory_latency, efficiency=options.memory_efficiency)
        return VerilatorBackend(memory_model=memory_model, report=report, progress=cycles)
    device, colon, where = on.partition(":")
    if colon and device in LINKED:
        return LINKED[device](where, progress=progress)
    raise UsageError(f"on must be {', '.join(CODE_EXECUTIONS)} or board:PORT, not {on!r} (what to run the network on)")


def _describe_fault(program: Program, on: str, fault: Fault, index: int) -> str:
    layer = next((mark.name for mark in program.marks if index in mark.indices()), "no layer")
    return f"{on} ended with {fault.name} at instruction {index} ({layer}), not at HALT (the program is for another memory or damaged)"
