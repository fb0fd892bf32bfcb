"""A program on a board in simulation, beside the golden model and the accelerator alone with an ideal memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.memory_trace import chip_speed
from tercel.hw.isa import Fault
from tercel.hw.sdram.timing import SdramChip
from tercel.sim.backend import CYCLE_COUNTER, GoldenBackend, Result, VerilatorBackend
from tercel.sim.board_backend import RUNNING, BoardBackend, content_spans, input_spans, join_spans
from tercel.sim.execution import Progress
from tercel.sim.soc.simulation import SocBuild, SocSimulation
from tercel.sw.estimate import estimate
from tercel.sw.layer_spec import Integers
from tercel.sw.program import Program

LINE_BYTES_MAX = 1 << 20
"""What goes over the simulated line in some minutes."""

_READS, _WRITES = "memory.read", "memory.write"
_ANSWER_SECONDS = 0.01
_PATIENCE = 10
"""Times the cycle model's prediction after which a run is given up."""


@dataclass(frozen=True, kw_only=True)
class ImageRun:
    """One image on a board in simulation.

    Attributes
    ----------
    equal
        Whether all output codes, of the board and of the accelerator alone, are the golden model's.
    cycles, ideal_cycles
        Of the run, and of the same one on a memory that answers after 8 cycles and takes a transfer in every cycle.
    predicted_cycles
        Of the run, by the cycle model, with a memory about as fast as the chip.
    bytes_moved
        Between accelerator and memory.
    bytes_per_cycle
        Of them, over the whole run.
    line_cycles
        From the first byte sent to the last one received; the line is faster than the board's.
    """

    equal: bool
    cycles: int
    ideal_cycles: int
    predicted_cycles: int
    bytes_moved: int
    bytes_per_cycle: float
    line_cycles: int


@dataclass(frozen=True, kw_only=True)
class BoardRuns:
    """All images. ``violations`` are broken rules of the memory chip, ``repeats`` of requests on the line."""

    images: tuple[ImageRun, ...]
    violations: int
    repeats: int

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        return self.violations == 0 and all(image.equal for image in self.images)


def line_bytes(program: Program) -> int:
    """What has to reach the memory before the first run: instructions, weights and inputs."""
    return sum(end - start for start, end in join_spans([*input_spans(program), *content_spans(program)]))


def run_on_board(
    build: SocBuild, program: Program, images: Sequence[Mapping[str, Integers]], *, back_door: bool, progress: Progress
) -> BoardRuns:
    """Run ``program`` on each of ``images``, codes by input, with the host's driver at the pads of the simulated board.

    With ``back_door`` instructions, weights and inputs are put into the memory chip past its pins; the driver still starts the machine,
    asks for the end, and reads counters and outputs over the line.

    Raises
    ------
    LinkError
        The program is for another machine or memory, or does not end in ten times the predicted cycles.
    ToolError, SimulationError
        From the simulations.
    """
    assert isinstance(build.memory, SdramChip)
    speed = chip_speed(build.memory, clock_mhz=build.clock_hz / 1e6, memory_width=build.config.memory_width)
    predicted = estimate(program, memory_latency=speed.latency + build.pin_latency, memory_rate=speed.efficiency).cycles

    def of_build(step: str) -> None:
        progress(f"build: {step.split(',', maxsplit=1)[0]}", 0, 0)

    def of_board(what: str, done: int, whole: int) -> None:
        progress(f"board: {what}", done, predicted if what == RUNNING else whole)

    def of_ideal(cycles: int) -> None:
        progress("ideal memory: cycles", cycles, ideal_predicted)

    ideal_predicted = estimate(program).cycles
    simulation = SocSimulation(build, report=of_build)
    found = []
    with (
        _backend(simulation, back_door=back_door, max_seconds=_PATIENCE * predicted / build.clock_hz, progress=of_board) as board,
        VerilatorBackend(report=of_build, progress=of_ideal) as ideal,
    ):
        while not simulation.statistics().ready:  # a program that is there at once would begin before the memory does
            simulation.read(_ANSWER_SECONDS)
        for codes in images:
            before = simulation.statistics().cycles
            ran = board.run(program, inputs=codes)
            line_cycles = simulation.statistics().cycles - before
            progress("golden model", 0, 0)
            expected = GoldenBackend().run(program, inputs=codes)
            alone = ideal.run(program, inputs=codes)
            moved = (ran.counters[_READS] + ran.counters[_WRITES]) * program.config.memory_width
            found.append(
                ImageRun(
                    equal=_same(ran, expected) and _same(alone, expected),
                    cycles=ran.counters[CYCLE_COUNTER],
                    ideal_cycles=alone.counters[CYCLE_COUNTER],
                    predicted_cycles=predicted,
                    bytes_moved=moved,
                    bytes_per_cycle=round(moved / ran.counters[CYCLE_COUNTER], 3),
                    line_cycles=line_cycles,
                )
            )
        return BoardRuns(images=tuple(found), violations=simulation.statistics().violations, repeats=board.session.counts.repeats)


def _backend(simulation: SocSimulation, *, back_door: bool, max_seconds: float, progress: Progress) -> BoardBackend:
    preload = simulation.preload if back_door else None
    try:
        return BoardBackend(simulation, timeout_s=_ANSWER_SECONDS, max_seconds=max_seconds, preload=preload, progress=progress)
    except BaseException:
        simulation.close()
        raise


def _same(ran: Result, expected: Result) -> bool:
    ends = ran.fault is Fault.NONE and expected.fault is Fault.NONE
    return ends and all(np.array_equal(ran.outputs[name], tensor) for name, tensor in expected.outputs.items())
