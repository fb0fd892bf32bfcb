"""The requests that a program makes at the accelerator's memory port: recorded from the RTL, or predicted from the cycle model."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tercel.hw.isa import INSTRUCTION_BYTES, QUEUE_DEPTH, Engine, Fault
from tercel.hw.memory.port import TURN_BEATS
from tercel.hw.sdram.timing import SdramChip
from tercel.sim.execution import DeviceError
from tercel.sim.verilator.build import build_simulation
from tercel.sim.verilator.model import Job, MemoryModel, Simulation
from tercel.sw.cycles import transfer_beats
from tercel.sw.estimate import estimate
from tercel.sw.program import Program

Addresses = npt.NDArray[np.int64]
_FETCH, _LOAD, _STORE = range(3)
_CHIP_SHARE = 0.9
"""Of a chip's peak that is expected."""


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


def chip_speed(chip: SdramChip, *, clock_mhz: float, memory_width: int) -> MemoryModel:
    """A memory about as fast as ``chip`` behind its controller."""
    words = max(1, memory_width // chip.width)
    return MemoryModel(latency=7 + chip.cycles(clock_mhz=clock_mhz).cas + words, efficiency=_CHIP_SHARE / words)


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
        job = Job.of(program, program.memory(), model=memory_model, log=log)
        outcome = simulation.run(job, progress=progress)
        if outcome.fault is not Fault.NONE:
            raise DeviceError(f"the program ended with {outcome.fault.name} at instruction {outcome.fault_index}, not at HALT")
        records = np.fromfile(log, np.int64)
    return MemoryTrace(addresses=records >> 1, writes=(records & 1).astype(bool), cycles=outcome.cycles)


def predict(program: Program, *, memory_latency: int, memory_rate: float) -> MemoryTrace:
    """The same without a simulation, for machines that take long to build: exact addresses, in an order of the cycle model's times.

    The beats of a LOAD or STORE come evenly from its start to its end, an instruction's own when the one :data:`QUEUE_DEPTH` before
    starts, and the port takes ``memory_rate`` beats a cycle by its own rules.
    """
    width = program.config.memory_width
    estimated = estimate(program, memory_latency=memory_latency, memory_rate=memory_rate)
    queues: dict[int, list[tuple[npt.NDArray[np.float64], Addresses]]] = {_FETCH: [], _LOAD: [], _STORE: []}
    instructions = program.instructions()
    own = np.arange(INSTRUCTION_BYTES // width) + program.program_base // width
    starts = [span.start for span in estimated.spans]
    for number in range(len(instructions)):
        before = starts[min(number - QUEUE_DEPTH, len(starts) - 1)] if number >= QUEUE_DEPTH else 0.0
        queues[_FETCH].append((np.full(len(own), before), own + number * len(own)))
    for span in estimated.spans:
        if span.engine in (Engine.LOAD, Engine.STORE):
            _, values = instructions[span.index]
            rows, beats = values["rows"] + 1, transfer_beats(values, program.config)
            row_starts = (values["memory_addr"] + np.arange(rows) * values["memory_row"]) % 2**32 // width
            addresses = (row_starts[:, None] + np.arange(beats // rows)).ravel()
            times = np.linspace(span.start, span.free, beats, endpoint=False)
            queues[_LOAD if span.engine is Engine.LOAD else _STORE].append((times, addresses))
    times, addresses = [], []
    for parts in queues.values():
        order = np.maximum.accumulate(np.concatenate([np.zeros(0), *(part[0] for part in parts)]))
        times.append([*order.tolist(), float("inf")])
        addresses.append(np.concatenate([np.zeros(0, np.int64), *(part[1] for part in parts)]))
    clients = _merge(times, cycles_a_beat=1 / memory_rate)
    places = np.empty(len(clients), np.int64)
    for client, of_client in enumerate(addresses):
        places[clients == client] = of_client
    return MemoryTrace(addresses=places, writes=clients == _STORE, cycles=estimated.cycles)


def _merge(times: list[list[float]], *, cycles_a_beat: float) -> npt.NDArray[np.int64]:
    """Which client each beat is of: fetch first, load and store in turns; ``times`` end with infinity."""
    heads = [0, 0, 0]
    now, turn, left = 0.0, _LOAD, TURN_BEATS
    clients = []
    for _ in range(sum(map(len, times)) - len(times)):
        ready = [times[client][heads[client]] for client in range(len(times))]
        now = max(now, min(ready))
        if ready[_FETCH] <= now:
            client = _FETCH
        else:
            other = _LOAD + _STORE - turn
            client = turn if ready[turn] <= now else other
            if client == other:
                turn, left = other, TURN_BEATS
            left -= 1
            if left == 0:
                turn, left = _LOAD + _STORE - turn, TURN_BEATS
        heads[client] += 1
        clients.append(client)
        now += cycles_a_beat
    return np.array(clients)
