"""Runs jobs in a simulation program: one process, any number of jobs, one after the other."""

import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tercel.hw.isa import Fault
from tercel.sw.program import Program

Bytes = npt.NDArray[np.uint8]
MAX_CYCLES = 200_000_000


class SimulationError(RuntimeError):
    """The RTL did not come to an end, or broke the bus protocol. Never the program's own fault: those are in the result."""


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """The external memory of the simulation: in order, one transfer a cycle at most.

    Parameters
    ----------
    latency
        Cycles from a transfer's acceptance to its answer, at least 1.
    stall_probability
        In 0..1, below 1: the chance, each cycle, that the memory refuses a request, and (drawn apart) that it holds an answer back.
    efficiency
        In 0..1, above 0: transfers accepted a cycle in the long run, evenly spread.
    error_address, silent_address
        Byte address at which an access is answered with a bus error, or is (with all that follow it) never answered.
    never_answers
        No access is ever answered.
    seed
        Of the random stalls.
    """

    latency: int = 8
    stall_probability: float = 0.0
    efficiency: float = 1.0
    error_address: int | None = None
    silent_address: int | None = None
    never_answers: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.latency < 1:
            raise ValueError(f"latency must be at least 1, not {self.latency} (an answer follows its request)")
        if not 0 <= self.stall_probability < 1:
            raise ValueError(f"stall_probability must be in 0..1, below 1, not {self.stall_probability} (use never_answers)")
        if not 1 / 65536 <= self.efficiency <= 1:
            raise ValueError(f"efficiency must be in 1/65536..1, not {self.efficiency} (one transfer a cycle is the most)")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: the whole memory and the registers that describe the program. Byte addresses; ``memory`` is not changed.

    ``keep`` runs on the machine as the job before left it, without a reset. With ``stop_after`` the machine is stopped after so many
    cycles, if it still runs then: the outcome says no fault, and its memory and counters are those of an unfinished run.
    ``trace`` names a VCD file to write, which only a program built for it can. ``log`` names a file that gets 8 bytes for each transfer
    that the memory accepts: its address in memory words, times two, plus one for a write.
    """

    memory: Bytes
    program_base: int
    program_count: int
    read_base: int
    read_end: int
    write_base: int
    write_end: int
    model: MemoryModel = field(default_factory=MemoryModel)
    max_cycles: int = MAX_CYCLES
    keep: bool = False
    stop_after: int | None = None
    trace: Path | None = None
    log: Path | None = None

    @classmethod
    def of(cls, program: Program, memory: Bytes, **options: Any) -> "Job":
        """The run of a program on ``memory``, its own with inputs; ``options`` are the other parameters."""
        return cls(
            memory=memory,
            program_base=program.program_base,
            program_count=len(program.words),
            read_base=program.read_base,
            read_end=program.read_end,
            write_base=program.write_base,
            write_end=program.write_end,
            **options,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a job left behind. ``cycles`` is the number from the start to the status that ends it, as a driver sees it."""

    memory: Bytes
    cycles: int
    fault: Fault
    fault_index: int
    counters: tuple[int, ...]
    reads: int
    writes: int


class Simulation:
    """A running simulation program; a context manager. The process starts with the first job."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Simulation":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()

    def run(self, job: Job, *, progress: Callable[[int], None] | None = None) -> Outcome:
        """Run one job; ``progress`` is called with the cycles so far, some times a second.

        Raises
        ------
        SimulationError
            ``max_cycles`` went by, the bus protocol was broken or the process ended. The next job starts a new process.
        """
        try:
            return self._run(job, progress)
        except BaseException:
            self.close()
            raise

    def run_many(self, jobs: Iterable[Job]) -> Iterable[Outcome]:
        """Run jobs in order, each when its outcome is asked for."""
        for job in jobs:
            yield self.run(job)

    def _run(self, job: Job, progress: Callable[[int], None] | None) -> Outcome:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._process = subprocess.Popen([self.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        to, back = self._process.stdin, self._process.stdout
        assert to is not None and back is not None
        try:
            to.write(_header(job, progress=progress is not None))
            to.write(np.ascontiguousarray(job.memory).data)
            to.flush()
        except BrokenPipeError:
            pass  # the answer below is missing and says it
        values = _read_line(back)
        while values.pop("") == "progress":
            if progress is not None:
                progress(int(values["cycles"]))
            values = _read_line(back)
        memory = np.frombuffer(back.read(job.memory.size), dtype=np.uint8)
        if values["status"] == "timeout":
            raise SimulationError(f"the machine was still running after {job.max_cycles} cycles (it hangs, or max_cycles is too low)")
        if values["status"] == "protocol":
            raise SimulationError(f"the machine broke the bus protocol after {values['cycles']} cycles: {values['detail']}")
        return Outcome(
            memory=memory,
            cycles=int(values["cycles"]),
            fault=Fault(int(values["fault"])),
            fault_index=int(values["fault_index"]),
            counters=tuple(int(value) for value in values["counters"].split(",") if value),
            reads=int(values["reads"]),
            writes=int(values["writes"]),
        )


def _header(job: Job, *, progress: bool) -> bytes:
    model = job.model
    values = {
        "memory_bytes": job.memory.size,
        "program_base": job.program_base,
        "program_count": job.program_count,
        "read_base": job.read_base,
        "read_end": job.read_end,
        "write_base": job.write_base,
        "write_end": job.write_end,
        "latency": model.latency,
        "stall_threshold": round(model.stall_probability * 2**32),
        "efficiency": round(model.efficiency * 65536),
        "error_address": -1 if model.error_address is None else model.error_address,
        "silent_address": -1 if model.silent_address is None else model.silent_address,
        "never_answers": int(model.never_answers),
        "seed": model.seed,
        "max_cycles": job.max_cycles,
        "keep": int(job.keep),
        "stop_after": -1 if job.stop_after is None else job.stop_after,
        "progress": int(progress),
        "trace": "" if job.trace is None else job.trace.resolve(),
        "log": "" if job.log is None else job.log.resolve(),
    }
    return "\t".join(f"{key}={value}" for key, value in values.items()).encode() + b"\n"


def _read_line(back: IO[bytes]) -> dict[str, str]:
    line = back.readline().decode()
    if not line.endswith("\n"):
        raise SimulationError("the simulation process ended without a result (run it again; if it stays so, clear the cache folder)")
    kind, *pairs = line[:-1].split("\t")
    return {"": kind, **dict(pair.split("=", 1) for pair in pairs)}
