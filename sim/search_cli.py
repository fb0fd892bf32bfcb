"""``tercel search``: weight bits for each layer within a budget."""

from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.table import Table

from tercel.sim.console import results
from tercel.sim.parse import UsageError, parse_config
from tercel.sim.progress import progress_bars
from tercel.sim.quantize_cli import calibration_batches, load_model, parse_network
from tercel.sw import zoo
from tercel.sw.search import SearchResult

if TYPE_CHECKING:
    from tercel.sw.graph.integer_graph import IntegerGraph
    from tercel.sw.zoo.network import ImageNetwork

_BATCH = 32


def search_command(
    network: Annotated[str, typer.Argument(help=f"one of {', '.join(zoo.NAMES)}, or with options: NAME,width=0.25,size=128")],
    *,
    weights: Annotated[Path | None, typer.Option(help=".pth, .pt or .safetensors; default: what comes with the package")] = None,
    calibrate: Annotated[Path, typer.Option(help="folder of photographs (role calib of a labels.csv), or .npy of normalized floats")],
    evaluate: Annotated[Path | None, typer.Option(help="folder of labelled photographs (role eval of a labels.csv)")] = None,
    evaluate_images: Annotated[int, typer.Option(min=1, help="labelled photographs, at most")] = 256,
    config: Annotated[str, typer.Option(help="named config: tiny, nano, small, base, large")] = "base",
    scheme: Annotated[str, typer.Option(help="how weights get their scales; tercel schemes lists them")] = "shift8",
    cycles: Annotated[int | None, typer.Option(help="budget of cycles for one image")] = None,
    weight_bytes: Annotated[int | None, typer.Option(help="budget of bytes for all weights")] = None,
    points: Annotated[int, typer.Option(help="points of the front, at most")] = 8,
    images: Annotated[int, typer.Option(help="images that each layer is measured on")] = 16,
    calibration_images: Annotated[int, typer.Option(min=1, help="calibration images, at most")] = 128,
    resize: Annotated[bool, typer.Option("--resize", help="bring photographs to the network's size")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="the chosen widths, for tercel quantize --bits (.json)")] = None,
    picture: Annotated[Path | None, typer.Option(help="accuracy against cycles and bytes (.png)")] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Choose weight bits for each layer. Example: tercel search digits --calibrate images.npy --cycles 45000 -o bits.json."""
    if output is not None and cycles is None and weight_bytes is None:
        raise UsageError("cycles or weight_bytes must be given with output, not left out (the budget says which widths are chosen)")
    name, options = parse_network(network)
    machine = parse_config(config, None)
    with progress_bars() as progress:
        progress("read the network", 0, 0)
        model = load_model(name, options, weights)
        from tercel.sw.search import search

        result = search(
            model,
            calibration=list(calibration_batches(calibrate, model, images=calibration_images, resize=resize)),
            config=machine,
            scheme=scheme,
            max_cycles=cycles,
            max_weight_bytes=weight_bytes,
            points=points,
            images=images,
            evaluate=None if evaluate is None else _accuracy(model, evaluate, count=evaluate_images, resize=resize),
            progress=lambda done, whole, what: progress(what, done, whole),
        )
    if output is not None and result.chosen is not None:
        output.write_text(dumps(dict(result.chosen.bits), indent=2) + "\n")
    if picture is not None:
        from tercel.sim.plots import png
        from tercel.sim.search_plot import front_figure

        picture.write_bytes(png(front_figure(result)))
    if json:
        typer.echo(dumps(result.as_json(), indent=2))
    else:
        results().print(front_table(result))


def front_table(result: SearchResult) -> Table:
    """A row for each point of the front."""
    table = Table("cycles", "weight bytes", "layers of 8 / 6 / 4 / 2 bits", "predicted noise to signal", "accuracy", "")
    for candidate in result.front:
        counts = [sum(-(-width // 2) * 2 == bits for width in candidate.bits.values()) for bits in (8, 6, 4, 2)]
        table.add_row(
            f"{candidate.cycles:,}",
            f"{candidate.weight_bytes:,}",
            " / ".join(str(count) for count in counts),
            f"{candidate.predicted_error:.2e}",
            "" if candidate.accuracy is None else f"{100 * candidate.accuracy:.2f} %",
            "chosen" if candidate is result.chosen else "",
        )
    return table


def _accuracy(model: "ImageNetwork", folder: Path, *, count: int, resize: bool) -> "Callable[[IntegerGraph], float]":
    """Share of right answers of an integer graph on labelled photographs, evenly spread over the folder's."""
    from tercel.sim.tensors import input_codes
    from tercel.sw.graph.reference import run_reference
    from tercel.sw.images import read_images, read_labels

    listed = read_labels(folder, role="eval")
    used = min(count, len(listed))
    samples = [listed[index * len(listed) // used] for index in range(used)]
    labels = np.array([sample.label for sample in samples])

    def accuracy(graph: "IntegerGraph") -> float:
        right = 0
        for start in range(0, used, _BATCH):
            files = [sample.path for sample in samples[start : start + _BATCH]]
            codes = input_codes(graph, read_images(files, image_format=model.image_format, resize=resize))
            scores = run_reference(graph, codes)[graph.outputs[0]].reshape(len(files), -1)
            right += int((scores.argmax(axis=1) == labels[start : start + _BATCH]).sum())
        return right / used

    return accuracy
