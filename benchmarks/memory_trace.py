"""The requests that a program makes at the accelerator's memory port, in the order in which the RTL makes them."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tercel.hw.isa import Fault
from tercel.sim.execution import DeviceError
from tercel.sim.verilator.build import build_simulation
from tercel.sim.verilator.model import Job, MemoryModel, Simulation
from tercel.sw.program import Program


@dataclass(frozen=True, kw_only=True)
class MemoryTrace:
    """One entry for each beat.

    Attributes
    ----------
    addresses
        In beats of ``memory_width`` bytes.
    writes
        Whether it is a write.
    cycles
        Of the run in which they were recorded.
    """

    addresses: npt.NDArray[np.int64]
    writes: npt.NDArray[np.bool_]
    cycles: int

    @property
    def turns(self) -> int:
        """Times a write follows a read."""
        return int(np.count_nonzero(self.writes[1:] & ~self.writes[:-1]))


def record(program: Program, *, memory_model: MemoryModel, report: Callable[[str], None], progress: Callable[[int], None]) -> MemoryTrace:
    """Run ``program`` on the RTL and record what its memory accepts.

    Loads and stores mix in a way that depends on the memory: ``memory_model`` should be about as fast as the memory in question.

    Raises
    ------
    DeviceError
        The program ends with a fault.
    ToolError, SimulationError
        From the simulation.
    """
    path = build_simulation(program.config, report=report)
    with tempfile.TemporaryDirectory() as folder, Simulation(path) as simulation:
        log = Path(folder) / "log"
        job = Job(
            memory=program.memory(),
            program_base=program.program_base,
            program_count=len(program.words),
            read_base=program.read_base,
            read_end=program.read_end,
            write_base=program.write_base,
            write_end=program.write_end,
            model=memory_model,
            log=log,
        )
        outcome = simulation.run(job, progress=progress)
        if outcome.fault is not Fault.NONE:
            raise DeviceError(f"the program ended with {outcome.fault.name} at instruction {outcome.fault_index}, not at HALT")
        records = np.fromfile(log, np.int64)
    return MemoryTrace(addresses=records >> 1, writes=(records & 1).astype(bool), cycles=outcome.cycles)
