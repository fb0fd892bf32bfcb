"""A network, or some of its layers, on a board in simulation over the simulated line, against golden model and ideal memory.

``python -m benchmarks.soc ulx3s-85f --network mobilenet_v2 --layers 'features.3*' --data DIR`` simulates what goes into the board's
bitstream: the host's driver talks to its serial pads, the memory chip on its pins checks every rule of its datasheet. The layers get what
those before them make of photographs. Exit code 1 if a code differs or a rule is broken.
"""

from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.board_runs import LINE_BYTES_MAX, ImageRun, line_bytes, run_on_board
from benchmarks.checkpoints import CHECKPOINTS, Checkpoint, read_set
from benchmarks.errors import command
from benchmarks.quantized_networks import quantized_network
from tercel.boards.board import Board
from tercel.boards.boards import BOARDS, named_board
from tercel.boards.simulation import board_build
from tercel.sim.api import compile_network
from tercel.sim.demo import layer_bits
from tercel.sim.execution import Progress
from tercel.sim.network import CompiledNetwork
from tercel.sim.parse import UsageError
from tercel.sim.progress import progress_bars
from tercel.sw.images import normalize
from tercel.sw.layer_spec import Integers

DIFFERENT = 1
_CALIBRATION = 32


@dataclass(frozen=True, kw_only=True)
class SocRun:
    """What came of it.

    Attributes
    ----------
    layers
        Names, in order.
    weight_bits
        Of all layers but the network's first and last and the depthwise ones, which have 8.
    sent_bytes, sent
        Instructions, weights and first inputs, and how they reached the memory: over the ``line``, or, where that would take long, by the
        ``back door`` of the simulated chip.
    milliseconds
        Of one run at ``clock_mhz``, the clock that the board asks for.
    violations
        Broken rules of the memory chip.
    repeats
        Of requests on the line.
    """

    board: str
    config: str
    chip: str
    network: str
    layers: tuple[str, ...]
    weight_bits: int
    sent_bytes: int
    sent: str
    clock_mhz: float
    milliseconds: float
    violations: int
    repeats: int
    images: tuple[ImageRun, ...]


def compiled_part(
    checkpoint: Checkpoint,
    board: Board,
    data: Path | None,
    *,
    layers: str | None,
    bits: int,
    images: int,
    file: Path | None,
    progress: Progress,
) -> tuple[CompiledNetwork, dict[str, Integers]]:
    """The network, or its layers that match a pattern, for a board's machine, and batched codes that enter it with real images."""
    model = checkpoint.build(data)
    samples = read_set(checkpoint, data, role="eval", count=images)
    quantized = quantized_network(
        checkpoint, data, model, file=file, calibration=_CALIBRATION, progress=progress, scheme="shift8", bits=layer_bits(model, bits)
    )
    network = compile_network(quantized, config=board.config, image_format=model.image_format, progress=progress)
    inputs = network.inputs(normalize(samples.images, image_format=model.image_format))
    return (network, inputs) if layers is None else network.part(layers, inputs)


def main(
    board: Annotated[str, typer.Argument(help=", ".join(BOARDS))] = "ulx3s-25f",
    *,
    network: Annotated[str, typer.Option(help=f"one of {', '.join(CHECKPOINTS)}")] = "digits",
    layers: Annotated[str | None, typer.Option(help="pattern of layer names; default: all")] = None,
    data: Annotated[Path | None, typer.Option(envvar="TERCEL_DATA", help="folder with weights/ and imagenet_sample/")] = None,
    bits: Annotated[int, typer.Option(min=2, max=8, help="weight bits but for the first, the last and depthwise layers, which have 8")] = 8,
    images: Annotated[int, typer.Option(min=1, help="images to run")] = 1,
    quantized: Annotated[Path | None, typer.Option(help="quantized network (.tq) of these bits: read if it is there, else written")] = None,
) -> None:
    """Run a network or a part of one on a board in simulation and print what came of it, as JSON."""
    if network not in CHECKPOINTS:
        raise UsageError(f"network must be one of {', '.join(CHECKPOINTS)}, not {network!r} (the trained ones)")
    chosen = named_board(board)
    with progress_bars() as progress:
        part, inputs = compiled_part(
            CHECKPOINTS[network], chosen, data, layers=layers, bits=bits, images=images, file=quantized, progress=progress
        )
        count = len(next(iter(inputs.values())))
        codes = [{name: batch[image] for name, batch in inputs.items()} for image in range(count)]
        sent_bytes = line_bytes(part.program)
        back_door = sent_bytes > LINE_BYTES_MAX
        runs = run_on_board(board_build(chosen), part.program, codes, back_door=back_door, progress=progress)
    run = SocRun(
        board=chosen.name,
        config=chosen.config.name,
        chip=chosen.memory.name,
        network=network,
        layers=tuple(node.name for node in part.graph.nodes),
        weight_bits=bits,
        sent_bytes=sent_bytes,
        sent="back door" if back_door else "line",
        clock_mhz=chosen.clock_hz / 1e6,
        milliseconds=round(max(image.cycles for image in runs.images) / chosen.clock_hz * 1e3, 3),
        violations=runs.violations,
        repeats=runs.repeats,
        images=runs.images,
    )
    typer.echo(dumps({"ok": runs.ok, **asdict(run)}, indent=2))
    raise typer.Exit(0 if runs.ok else DIFFERENT)


if __name__ == "__main__":
    raise SystemExit(command(main))
