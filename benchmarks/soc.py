"""The digits network on a board in simulation, over the simulated line, against the golden model and the accelerator with an ideal memory.

``python -m benchmarks.soc ulx3s-25f`` simulates what goes into the board's bitstream: the host's driver talks to its serial pads, the
memory chip on its pins checks every rule of its datasheet. Exit code 1 if a code differs or a rule is broken.
"""

from dataclasses import asdict, dataclass
from json import dumps
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from benchmarks.errors import command
from tercel.boards.boards import BOARDS, named_board
from tercel.boards.simulation import board_build
from tercel.hw.config import Config
from tercel.sim.api import compile_network
from tercel.sim.backend import CYCLE_COUNTER, GoldenBackend, VerilatorBackend
from tercel.sim.board_backend import BoardBackend, Progress
from tercel.sim.demo import layer_bits
from tercel.sim.network import CompiledNetwork
from tercel.sim.soc.simulation import SocSimulation
from tercel.sim.tensors import input_codes

DIFFERENT = 1
_READS, _WRITES = "memory.read", "memory.write"


@dataclass(frozen=True, kw_only=True)
class ImageRun:
    """One image on the board in simulation.

    Attributes
    ----------
    equal
        Whether all output codes are the golden model's.
    cycles, ideal_cycles
        Of the run, and of the same one on a memory that takes a transfer in every cycle.
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
    bytes_moved: int
    bytes_per_cycle: float
    line_cycles: int


@dataclass(frozen=True, kw_only=True)
class SocRun:
    """All images. ``violations`` are broken rules of the memory chip; ``milliseconds`` is one run at the board's clock."""

    board: str
    config: str
    clock_mhz: float
    milliseconds: float
    violations: int
    repeats: int
    images: tuple[ImageRun, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        return self.violations == 0 and all(image.equal for image in self.images)


def digits(config: Config) -> tuple[CompiledNetwork, dict[str, np.ndarray]]:
    """The trained network with 4-bit weights, and the codes of its test images."""
    import torch

    from tercel.sw import zoo
    from tercel.sw.quantize import quantize
    from tercel.sw.zoo.digits_data import digits_part

    model = zoo.build("digits")
    weights = zoo.shipped_weights("digits")
    assert weights is not None
    zoo.load_weights(model, weights)
    calibration = torch.from_numpy(digits_part("calibration").normalized())
    quantized = quantize(model, calibration=[calibration], bits=layer_bits(model, 4))
    network = compile_network(quantized, config=config)
    return network, input_codes(network.graph, torch.from_numpy(digits_part("test").normalized()))


def run_board(board_name: str, *, images: int, progress: Progress) -> SocRun:
    """Run the first ``images`` test images."""
    board = named_board(board_name)
    progress("quantize and compile", 0, 0)
    network, inputs = digits(board.config)
    simulation = SocSimulation(board_build(board), report=lambda step: progress(step, 0, 0))
    found = []
    with BoardBackend(simulation, progress=progress, timeout_s=0.01) as backend, VerilatorBackend() as ideal:
        for image in range(images):
            codes = {name: batch[image] for name, batch in inputs.items()}
            before = simulation.statistics().cycles
            result = backend.run(network.program, inputs=codes)
            line_cycles = simulation.statistics().cycles - before
            progress("golden model and ideal memory", 0, 0)
            expected = GoldenBackend().run(network.program, inputs=codes)
            counters = result.counters
            moved = (counters[_READS] + counters[_WRITES]) * network.config.memory_width
            found.append(
                ImageRun(
                    equal=all(np.array_equal(result.outputs[name], tensor) for name, tensor in expected.outputs.items()),
                    cycles=counters[CYCLE_COUNTER],
                    ideal_cycles=ideal.run(network.program, inputs=codes).counters[CYCLE_COUNTER],
                    bytes_moved=moved,
                    bytes_per_cycle=round(moved / counters[CYCLE_COUNTER], 3),
                    line_cycles=line_cycles,
                )
            )
        statistics, repeats = simulation.statistics(), backend.session.counts.repeats
    return SocRun(
        board=board.name,
        config=board.config.name,
        clock_mhz=board.clock_hz / 1e6,
        milliseconds=round(max(image.cycles for image in found) / board.clock_hz * 1e3, 3),
        violations=statistics.violations,
        repeats=repeats,
        images=tuple(found),
    )


def main(
    board: Annotated[str, typer.Argument(help=", ".join(BOARDS))] = "ulx3s-25f",
    *,
    images: Annotated[int, typer.Option(min=1, help="test images to run")] = 2,
) -> None:
    """Run the digits network on a board in simulation and print what came of it, as JSON."""
    with Console(stderr=True).status("build") as status:

        def progress(step: str, done: int, whole: int) -> None:
            status.update(f"{step}, {done} of {whole} bytes" if whole else step)

        run = run_board(board, images=images, progress=progress)
    typer.echo(dumps({"ok": run.ok, **asdict(run)}, indent=2))
    raise typer.Exit(0 if run.ok else DIFFERENT)


if __name__ == "__main__":
    raise SystemExit(command(main))
