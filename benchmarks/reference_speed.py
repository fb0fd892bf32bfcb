"""Images a second of the exact integer reference beside the same network in float32 PyTorch.

``python -m benchmarks.reference_speed`` quantizes MobileNetV2 with random weights on random images and times three programs in turn on
the same batch: the float network as it stands, the float network in the faster channels-last layout, and the integer reference. Of
each, the best round counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Annotated

import numpy as np
import typer

from benchmarks.errors import command
from tercel.hw.config import BASE
from tercel.sw import zoo
from tercel.sw.graph.reference import run_reference
from tercel.sw.importer import import_exported
from tercel.sw.quantize import quantize


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The best round of one program: milliseconds an image by the clock and of CPU time, all threads added."""

    name: str
    wall_ms: float
    cpu_ms: float


def measure(*, network: str, size: int, batch: int, rounds: int, threads: int) -> list[Speed]:
    """The plain float network, the one in channels-last layout, and the reference, in this order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _measure(network=network, size=size, batch=batch, rounds=rounds)
    finally:
        torch.set_num_threads(before)


def _measure(*, network: str, size: int, batch: int, rounds: int) -> list[Speed]:
    import torch

    torch.manual_seed(0)
    model = zoo.build(network).eval()
    images = torch.randn(batch, 3, size, size)
    graph = import_exported(quantize(model, calibration=images[:1], bias_correction=False), config=BASE).graph
    (name,) = graph.inputs
    codes = {name: np.random.default_rng(0).integers(0, 256, (batch, *graph.tensors[name].shape)).astype(np.uint8)}
    if graph.tensors[name].signed:
        codes[name] = codes[name].view(np.int8)
    last = zoo.build(network).eval().to(memory_format=torch.channels_last)
    last_images = images.contiguous(memory_format=torch.channels_last)
    programs: dict[str, Callable[[], object]] = {
        "float32": lambda: model(images),
        "float32, channels last": lambda: last(last_images),
        "integer reference": lambda: run_reference(graph, codes, engine="torch"),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, run in programs.items():
                wall, cpu = perf_counter(), process_time()
                run()
                times[name].append(((perf_counter() - wall) * 1e3 / batch, (process_time() - cpu) * 1e3 / batch))
    # The first round warms up.
    return [
        Speed(name=name, wall_ms=min(wall for wall, _ in found[1:]), cpu_ms=min(cpu for _, cpu in found[1:]))
        for name, found in times.items()
    ]


def main(
    *,
    network: Annotated[str, typer.Option(help=f"one of {', '.join(zoo.NAMES)}")] = "mobilenet_v2",
    size: Annotated[int, typer.Option(min=32, help="image height and width")] = 224,
    batch: Annotated[int, typer.Option(min=1, help="images a run")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="runs of each; the best counts")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="threads of each program")] = 1,
) -> None:
    """Time the integer reference. Example: python -m benchmarks.reference_speed --batch 16 --threads 2."""
    speeds = measure(network=network, size=size, batch=batch, rounds=rounds, threads=threads)
    typer.echo(f"{network}, {size}x{size}, batch {batch}, {threads} thread{'' if threads == 1 else 's'}, best of {rounds}")
    typer.echo(f"{'':24}{'images/s':>10}{'ms':>8}{'CPU ms':>8}{'of plain float32':>18}")
    for speed in speeds:
        share = f"{speeds[0].wall_ms / speed.wall_ms:.2f} ({speeds[0].cpu_ms / speed.cpu_ms:.2f} CPU)"
        typer.echo(f"{speed.name:24}{1e3 / speed.wall_ms:10.1f}{speed.wall_ms:8.1f}{speed.cpu_ms:8.1f}{share:>18}")


if __name__ == "__main__":
    raise SystemExit(command(main))
