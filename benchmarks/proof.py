"""A whole network on the reference and on machines, every tensor compared, every figure measured on the way."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from tercel.hw.config import Config
from tercel.sim.compare import compare_codes
from tercel.sim.execution import MachineOptions, Progress, execute_program
from tercel.sim.tensors import input_codes
from tercel.sw.compiler import compile_graph
from tercel.sw.estimate import estimate
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.graph.reference import run_reference
from tercel.sw.layer_spec import Integers
from tercel.sw.program import Program
from tercel.sw.zoo.network import ImageNetwork

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class MachineRun:
    """A program on one machine against the reference.

    Attributes
    ----------
    tensors, codes
        Compared, all images together.
    difference
        The first difference in words; empty if there is none.
    image_seconds
        Wall time of an image.
    cycles
        Of the first image; None without a clock. ``percent`` is the estimate's distance from them.
    """

    on: str
    images: int
    tensors: int
    codes: int
    difference: str
    image_seconds: float
    cycles: int | None
    percent: float | None


@dataclass(frozen=True, kw_only=True)
class ProgramProof:
    """A compiled program: what it took, what it was estimated at, and how it ran. ``kept`` stores every layer's output tensor."""

    kept: bool
    instructions: int
    compile_seconds: float
    estimate_seconds: float
    estimated_cycles: int
    runs: tuple[MachineRun, ...]


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Images a second of the reference and of the float network in torch, at one batch size on the same threads."""

    batch: int
    threads: int
    reference: float
    float_torch: float


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A network on all machines; ``macs`` are useful multiply-accumulates of an image."""

    config: str
    config_hash: int
    layers: int
    macs: int
    programs: tuple[ProgramProof, ...]
    throughput: Throughput
    differences: tuple[str, ...] = field(default=())

    @property
    def equal(self) -> bool:
        """Whether no machine computed another code."""
        return not self.differences


def prove(
    graph: IntegerGraph,
    model: ImageNetwork,
    images: Floats,
    *,
    config: Config,
    machines: Sequence[str],
    options: MachineOptions,
    batch: int,
    threads: int,
    progress: Progress,
) -> Proof:
    """Compile ``graph`` twice, plainly and with every tensor stored, and run both on ``machines`` and the reference.

    ``images`` is ``[n, channels, size, size]``, normalized. Every machine runs them all, but a simulation the plain program only on the
    first. ``batch`` and ``threads`` are for the throughput. Raises what the compiler and the machines raise.
    """
    progress("reference", 0, 0)
    inputs = input_codes(graph, images)
    expected = {name: np.asarray(codes, dtype=np.int64) for name, codes in run_reference(graph, inputs, keep=True).items()}
    programs = tuple(
        _prove_program(graph, expected, config=config, kept=kept, machines=machines, options=options, progress=progress)
        for kept in (False, True)
    )
    progress("throughput", 0, 0)
    return Proof(
        config=config.name,
        config_hash=config.hash,
        layers=sum(1 for _ in graph.layers()),
        macs=graph.macs,
        programs=programs,
        throughput=_throughput(graph, model, images, batch=batch, threads=threads),
        differences=tuple(run.difference for program in programs for run in program.runs if run.difference),
    )


def _prove_program(
    graph: IntegerGraph,
    expected: Mapping[str, Integers],
    *,
    config: Config,
    kept: bool,
    machines: Sequence[str],
    options: MachineOptions,
    progress: Progress,
) -> ProgramProof:
    what = "with every tensor stored" if kept else "plain"
    progress(f"compile, {what}", 0, 0)
    started = time.perf_counter()
    program = compile_graph(graph, config, keep=("*",) if kept else (), memory_latency=options.memory_latency)
    compiled = time.perf_counter()
    predicted = estimate(program, memory_latency=options.memory_latency, memory_rate=options.memory_efficiency).cycles
    estimated = time.perf_counter()

    def notify(step: str, done: int, whole: int) -> None:
        progress(f"{step}, {what}", done, whole)

    return ProgramProof(
        kept=kept,
        instructions=len(program.words),
        compile_seconds=compiled - started,
        estimate_seconds=estimated - compiled,
        estimated_cycles=predicted,
        runs=tuple(_run(graph, program, expected, on=on, options=options, predicted=predicted, progress=notify) for on in machines),
    )


def _run(
    graph: IntegerGraph,
    program: Program,
    expected: Mapping[str, Integers],
    *,
    on: str,
    options: MachineOptions,
    predicted: int,
    progress: Progress,
) -> MachineRun:
    clocked = on != "golden"
    plain = len(program.outputs) == len(graph.outputs)
    count = 1 if clocked and plain else len(expected[graph.inputs[0]])
    inputs = {name: expected[name][:count] for name in graph.inputs}
    ran = execute_program(program, inputs, on=on, options=options, expected_cycles=predicted if clocked else 0, progress=progress)
    wanted = {name: expected[name][:count] for name in ran.tensors}
    compared = compare_codes(graph, wanted, ran.tensors, names=("reference", on), pixels=program.config.pixels)
    cycles = ran.cycles[0] if ran.cycles else None
    return MachineRun(
        on=on,
        images=count,
        tensors=len(compared.tensors),
        codes=sum(tensor.size for tensor in compared.tensors),
        difference="" if compared.equal else compared.describe(),
        image_seconds=ran.seconds / count,
        cycles=cycles,
        percent=None if cycles is None else 100 * (predicted - cycles) / cycles,
    )


def _throughput(graph: IntegerGraph, model: ImageNetwork, images: Floats, *, batch: int, threads: int) -> Throughput:
    repeated = np.resize(images, (batch, *images.shape[1:]))
    codes = input_codes(graph, repeated)
    torch.set_num_threads(threads)
    with threadpool_limits(threads), torch.no_grad():
        reference = _rate(lambda: run_reference(graph, codes), batch)
        float_torch = _rate(lambda: model(torch.from_numpy(repeated)), batch)
    return Throughput(batch=batch, threads=threads, reference=reference, float_torch=float_torch)


def _rate(run: Callable[[], object], batch: int) -> float:
    """Images a second of the second run; the first one warms up."""
    run()
    started = time.perf_counter()
    run()
    return batch / (time.perf_counter() - started)
