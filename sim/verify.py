"""Golden model against RTL on random and on hostile programs, by the thousand.

A random program must leave the same external memory, byte for byte, on the golden model and on the RTL, and the outputs that
the direct convolution of its tensors gives. A hostile program (a random one with bits flipped, addresses moved, tokens removed,
its end cut off) must end on both with the same fault at the same instruction, without a hang and without a byte written outside its
write region. What it computed up to there may depend on timing and is not compared.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import joblib
import numpy as np

from tercel.hw.config import BASE, SMALL, Config
from tercel.hw.isa import Fault, IsaError, decode
from tercel.sim.backend import GoldenBackend, Result, VerilatorBackend
from tercel.sim.verilator.build import build_simulation
from tercel.sim.verilator.model import MemoryModel, SimulationError
from tercel.sw.cycles import instruction_cycles
from tercel.sw.mutate import mutate
from tercel.sw.program import Program
from tercel.sw.random_program import random_program

PRIME = Config(
    name="prime",
    lanes=4,
    outputs=4,
    drain_lanes=2,
    array_depth=512,
    window_depth=256,
    weight_depth=1024,
    parameter_depth=128,
    record_depth=128,
    threshold_depth=256,
    memory_width=4,
)
COMPOSITE = Config(
    name="composite",
    pixels=6,
    lanes=8,
    outputs=16,
    depthwise_taps=3,
    drain_lanes=4,
    multiplier_bits=13,
    per_channel_multiplier=True,
    array_depth=256,
    window_depth=512,
    weight_depth=512,
    parameter_depth=64,
    record_depth=64,
    threshold_depth=1024,
    memory_width=2,
)
TERNARY = Config(
    name="ternary",
    pixels=4,
    lanes=2,
    outputs=6,
    digit_set="ternary",
    depthwise=False,
    drain_lanes=1,
    multiplier_bits=11,
    per_channel_multiplier=True,
    array_depth=1024,
    window_depth=0,
    weight_depth=2048,
    parameter_depth=256,
    record_depth=0,
    threshold_depth=0,
    memory_width=1,
)
VERIFY_CONFIGS = {config.name: config for config in (PRIME, COMPOSITE, TERNARY, SMALL, BASE)}
"""``prime`` and ``ternary`` differ in every parameter, ``composite`` has everything at a P that is no prime, and
takes 3 depthwise taps a cycle."""

HOSTILE_WORK = 200_000
"""Cycles of work in a hostile program, at most: a flipped count can ask for days of lawful work."""
_MAX_CYCLES = 3_000_000


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A program on which the models differ: the seed makes it again."""

    config: str
    kind: str
    seed: int
    text: str


@dataclass(kw_only=True)
class Report:
    """What was run. ``skipped`` hostile programs had too much lawful work; ``faults`` counts how the others ended."""

    config: str
    programs: int = 0
    hostile: int = 0
    skipped: int = 0
    cycles: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        """Count ``other``'s programs too."""
        self.programs += other.programs
        self.hostile += other.hostile
        self.skipped += other.skipped
        self.cycles += other.cycles
        self.faults.update(other.faults)
        self.failures += other.failures


def verify(config: Config, *, programs: int, hostile: int, first_seed: int = 0, jobs: int = 1, chunk: int = 20) -> Iterator[Report]:
    """Run ``programs`` random and ``hostile`` hostile programs; yields a :class:`Report` for each finished chunk.

    Seeds count up from ``first_seed``, for both kinds. ``jobs`` processes share the work. The simulation is built first if need be.
    """
    build_simulation(config, trace=False, report=None)
    parts = [("random", seed, min(chunk, programs - seed)) for seed in range(0, programs, chunk)]
    parts += [("hostile", seed, min(chunk, hostile - seed)) for seed in range(0, hostile, chunk)]
    work = (joblib.delayed(_chunk)(config, kind, first_seed + seed, count) for kind, seed, count in parts)
    yield from joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(work)


def memory_model(seed: int) -> MemoryModel:
    """Another memory for each seed: latencies from 1 to 40 cycles, half of them with random stalls."""
    random = np.random.default_rng([seed, 1])
    stall = float(random.choice([0.0, 0.0, 0.1, 0.5]))
    return MemoryModel(latency=int(random.choice([1, 2, 8, 40])), stall_probability=stall, seed=seed)


def _chunk(config: Config, kind: str, first: int, count: int) -> Report:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    report = Report(config=config.name)
    with VerilatorBackend(config=config, max_cycles=_MAX_CYCLES) as rtl:
        for seed in range(first, first + count):
            check = _check_random if kind == "random" else _check_hostile
            text = check(config, seed, rtl, report)
            if text:
                report.failures.append(Failure(config=config.name, kind=kind, seed=seed, text=text))
    return report


def _check_random(config: Config, seed: int, rtl: VerilatorBackend, report: Report) -> str:
    made = random_program(config, seed=seed)
    report.programs += 1
    golden = GoldenBackend().run(made.program)
    if golden.fault is not Fault.NONE:
        return f"golden model ended with {golden.fault.name} at instruction {golden.fault_index}"
    for name, codes in made.expected.items():
        differing = np.argwhere(golden.outputs[name] != codes)
        if len(differing):
            return f"golden model differs from the direct layer in {name} at (y, x, channel) {tuple(int(i) for i in differing[0])}"
    result = _run(made.program, seed, rtl)
    if isinstance(result, str):
        return result
    report.cycles += result.cycles or 0
    if result.fault is not Fault.NONE:
        return f"RTL ended with {result.fault.name} at instruction {result.fault_index}"
    unequal = np.flatnonzero(golden.memory != result.memory)
    if len(unequal):
        address = int(unequal[0])
        values = f"golden {golden.memory[address]}, RTL {result.memory[address]}"
        return f"memory differs in {len(unequal)} bytes, first at {address:#x}: {values}; layers {made.layers}"
    return ""


def _check_hostile(config: Config, seed: int, rtl: VerilatorBackend, report: Report) -> str:
    program = mutate(random_program(config, seed=seed).program, seed=seed)
    if _work(program) > HOSTILE_WORK:
        report.skipped += 1
        return ""
    report.hostile += 1
    golden = GoldenBackend().run(program)
    result = _run(program, seed, rtl)
    if isinstance(result, str):
        return f"{result}; golden ended with {golden.fault.name} at {golden.fault_index}"
    report.cycles += result.cycles or 0
    report.faults[golden.fault.name] += 1
    for name, ended in (("golden model", golden), ("RTL", result)):
        if ended.stray_writes:
            return f"{name} wrote outside the write region, first at {ended.stray_writes[0]:#x}"
    if (golden.fault, golden.fault_index) != (result.fault, result.fault_index):
        return (
            f"golden ended with {golden.fault.name} at {golden.fault_index}, RTL with {result.fault.name} at {result.fault_index} "
            f"of {len(program.words)}"
        )
    return ""


def _run(program: Program, seed: int, rtl: VerilatorBackend) -> Result | str:
    try:
        return rtl.run(program, memory_model=memory_model(seed))
    except SimulationError as error:
        return f"RTL: {error}"


def _work(program: Program) -> int:
    cycles = 0
    for word in program.words:
        try:
            opcode, values = decode(word)
        except IsaError:
            continue
        cycles += instruction_cycles(opcode, values, program.config).issue
    return cycles
