"""One way to run a program, on any machine: the golden model, the RTL in simulation."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tercel.hw.config import Config
from tercel.hw.isa import Fault
from tercel.sim.golden.machine import run_golden
from tercel.sim.verilator.build import build_simulation
from tercel.sim.verilator.model import MAX_CYCLES, Job, MemoryModel, Simulation
from tercel.sw.program import Program, check_config

Integers = npt.NDArray[np.int64]

CYCLE_COUNTER = "machine.cycles"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run left behind.

    Attributes
    ----------
    memory
        uint8: the whole external memory after the run.
    outputs
        The program's output tensors by name, ``[height, width, channels]`` codes.
    cycles
        Clock cycles from start to end; None where the backend has no clock.
    counters
        The machine's performance counters by name; empty where the backend has none.
    fault, fault_index
        How the program ended. NONE means that it reached HALT; then ``fault_index`` is 0.
    stray_writes
        Addresses, at most 16, outside the write region whose byte changed. Always empty unless the machine is broken.
    seconds
        Wall time of the run, without building.
    """

    memory: npt.NDArray[np.uint8]
    outputs: dict[str, Integers]
    cycles: int | None
    counters: dict[str, int]
    fault: Fault
    fault_index: int
    stray_writes: tuple[int, ...]
    seconds: float


class Backend(Protocol):
    """Runs programs."""

    name: str

    def run(self, program: Program, *, inputs: Mapping[str, Integers] | None = None) -> Result:
        """Run ``program`` with ``inputs`` (by name, in place of those stored in it). A fault is in the result and is not raised."""
        ...


class GoldenBackend:
    """The golden model: executes instructions, has no clock."""

    name = "golden"

    def run(self, program: Program, *, inputs: Mapping[str, Integers] | None = None) -> Result:
        """As :meth:`Backend.run`."""
        before = program.memory(inputs)
        memory = before.copy()
        started = time.perf_counter()
        ended = run_golden(
            program.config,
            memory,
            program_base=program.program_base,
            program_count=len(program.words),
            read_base=program.read_base,
            read_end=program.read_end,
            write_base=program.write_base,
            write_end=program.write_end,
        )
        seconds = time.perf_counter() - started
        return _result(program, before, memory, cycles=None, counters={}, fault=ended.fault, fault_index=ended.fault_index, seconds=seconds)


class VerilatorBackend:
    """The RTL, compiled by Verilator, with a simulated memory. One simulation process serves run after run; a context manager.

    Parameters
    ----------
    config
        The machine. None takes each program's own and builds it when it comes.
    memory_model
        Timing and faults of the memory.
    max_cycles
        A run that takes longer raises :class:`~tercel.sim.verilator.model.SimulationError`: the RTL must never hang.
    trace
        A VCD file to write, of the last run.
    report
        Called with the name of each step when the simulation has to be built.
    progress
        Called with the cycles simulated so far, some times a second.
    design
        Verilog of a machine of ``config`` to simulate in place of the RTL: a netlist. Needs ``config``.
    """

    name = "verilator"

    def __init__(
        self,
        *,
        config: Config | None = None,
        memory_model: MemoryModel | None = None,
        max_cycles: int = MAX_CYCLES,
        trace: Path | None = None,
        report: Callable[[str], None] | None = None,
        progress: Callable[[int], None] | None = None,
        design: str | None = None,
    ) -> None:
        if design is not None and config is None:
            raise ValueError("config must be given with design, not left out (a netlist is that of one machine)")
        self._config = config
        self._design = design
        self._memory_model = memory_model or MemoryModel()
        self._max_cycles = max_cycles
        self._trace = trace
        self._report = report
        self._progress = progress
        self._simulations: dict[int, tuple[Simulation, tuple[str, ...]]] = {}

    def __enter__(self) -> "VerilatorBackend":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the simulation processes."""
        for simulation, _ in self._simulations.values():
            simulation.close()
        self._simulations.clear()

    def run(self, program: Program, *, inputs: Mapping[str, Integers] | None = None, memory_model: MemoryModel | None = None) -> Result:
        """As :meth:`Backend.run`; ``memory_model`` for this run only.

        Raises
        ------
        ToolError
            The simulation cannot be built.
        SimulationError
            The RTL hangs or breaks the bus protocol.
        ProgramError
            The program is for another config.
        """
        if self._config is not None:
            check_config(program.config, self._config)
        simulation, names = self._prepare(program.config)
        before = program.memory(inputs)
        model = memory_model or self._memory_model
        job = Job.of(program, before, model=model, max_cycles=self._max_cycles, trace=self._trace)
        started = time.perf_counter()
        outcome = simulation.run(job, progress=self._progress)
        seconds = time.perf_counter() - started
        counters = dict(zip(names, outcome.counters, strict=True))
        return _result(
            program,
            before,
            outcome.memory,
            cycles=counters[CYCLE_COUNTER],
            counters=counters,
            fault=outcome.fault,
            fault_index=outcome.fault_index,
            seconds=seconds,
        )

    def prepare(self, config: Config) -> None:
        """Build the simulation for ``config`` unless it is there, and start it; :class:`ToolError` if it cannot be built."""
        self._prepare(config)

    def _prepare(self, config: Config) -> tuple[Simulation, tuple[str, ...]]:
        from tercel.hw.npu import counter_names

        if config.hash not in self._simulations:
            path = build_simulation(config, trace=self._trace is not None, verilog=self._design, report=self._report)
            self._simulations[config.hash] = (Simulation(path), tuple(counter_names(config)))
        return self._simulations[config.hash]


def get_backend(name: str) -> Backend:
    """The backend called ``name`` with its default options: ``golden`` or ``verilator``."""
    backends: dict[str, Callable[[], Backend]] = {"golden": GoldenBackend, "verilator": VerilatorBackend}
    if name not in backends:
        raise ValueError(f"backend must be one of {', '.join(backends)}, not {name!r} (what to run the program on)")
    return backends[name]()


def _result(
    program: Program,
    before: npt.NDArray[np.uint8],
    after: npt.NDArray[np.uint8],
    *,
    cycles: int | None,
    counters: dict[str, int],
    fault: Fault,
    fault_index: int,
    seconds: float,
) -> Result:
    changed = np.flatnonzero(before != after)
    stray = changed[(changed < program.write_base) | (changed >= program.write_end)][:16]
    return Result(
        memory=after,
        outputs=program.read_outputs(after),
        cycles=cycles,
        counters=counters,
        fault=fault,
        fault_index=fault_index,
        stray_writes=tuple(int(address) for address in stray),
        seconds=seconds,
    )
