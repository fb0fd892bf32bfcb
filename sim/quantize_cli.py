"""``tercel quantize`` and ``tercel schemes``: a trained network to low-bit weights."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from json import JSONDecodeError, dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from tercel.sim.console import results
from tercel.sim.parse import UsageError
from tercel.sim.progress import progress_bars
from tercel.sim.quantized_file import save_quantized_file
from tercel.sw import zoo
from tercel.sw.images import image_batches, image_files, read_labels
from tercel.sw.quantize import Rounding

if TYPE_CHECKING:
    from torch import Tensor

    from tercel.sw.zoo.network import ImageNetwork

Json = Annotated[bool, typer.Option("--json", help="print JSON")]

_BATCH = 16


def quantize_command(
    network: Annotated[str, typer.Argument(help=f"one of {', '.join(zoo.NAMES)}, or with options: NAME,width=0.25,size=128")],
    *,
    weights: Annotated[Path | None, typer.Option(help=".pth, .pt or .safetensors; default: what comes with the package")] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="folder of photographs (role calib of a labels.csv), or .npy of normalized floats")
    ] = None,
    data_free: Annotated[bool, typer.Option("--data-free", help="use no images: batch norms tell ranges and means")] = False,
    equalize: Annotated[bool, typer.Option("--equalize", help="scale channels between layers so that ranges meet")] = False,
    scheme: Annotated[str, typer.Option(help="how weights get their scales; tercel schemes lists them")] = "shift8",
    bits: Annotated[list[str] | None, typer.Option(help="N, PATTERN=N (several times for more), or a file of tercel search")] = None,
    bias_correction: Annotated[bool, typer.Option("--bias-correction/--no-bias-correction", help="correct the mean of each output")] = True,
    rounding: Annotated[
        str | None, typer.Option(help="of weights: nearest, compensated (default with images) or learned (slow)")
    ] = None,
    rounding_steps: Annotated[int, typer.Option(min=1, help="steps of learning for each block of layers")] = 250,
    checkpoint: Annotated[Path | None, typer.Option(help="folder that keeps finished blocks of learned rounding, to go on later")] = None,
    images: Annotated[int, typer.Option(min=1, help="calibration images, at most")] = 128,
    resize: Annotated[bool, typer.Option("--resize", help="bring photographs to the network's size")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="the quantized network to write (.tq)")],
    json: Json = False,
) -> None:
    """Quantize a network. Example: tercel quantize mobilenet_v2 --weights w.pth --calibrate images/ --scheme shift8 -o mnv2.tq."""
    if data_free == (calibrate is not None):
        which = "given, or --data-free" if calibrate is None else "left out with --data-free"
        raise UsageError(f"calibrate must be {which} (a folder of photographs tells more than batch norms)")
    name, options = parse_network(network)
    with progress_bars() as progress:
        progress("read the network", 0, 0)
        model = load_model(name, options, weights)
        from tercel.sw.quantize import quantize

        batches = [] if calibrate is None else list(calibration_batches(calibrate, model, images=images, resize=resize))
        program = quantize(
            model,
            calibration=None if data_free else batches,
            example=model.example() if data_free else None,
            input_range=model.image_format.range,
            equalization=equalize,
            scheme=scheme,
            bits=parse_bits(bits or []),
            bias_correction=bias_correction,
            rounding=cast(Rounding | None, rounding),
            rounding_steps=rounding_steps,
            checkpoint=checkpoint,
            progress=lambda done, whole, step: progress(step, done, whole),
        )
        progress("write", 0, 0)
        save_quantized_file(program, output, image_format=model.image_format)
    count = sum(len(batch) for batch in batches)
    if json:
        typer.echo(dumps({"network": network, "scheme": scheme, "calibration_images": count, "output": str(output)}, indent=2))
    else:
        typer.echo(f"{output}: {network}, {scheme}, " + (f"calibrated on {count} images" if count else "without images"))


def schemes_command(*, json: Json = False) -> None:
    """List the schemes of weights: for quantizing after training (tercel quantize) and for training (tercel.prepare in Python)."""
    from tercel.sw.quantize import SCHEMES
    from tercel.sw.training import TRAINING_SCHEMES

    kinds: dict[str, Mapping[str, Any]] = {"quantize": SCHEMES, "prepare": TRAINING_SCHEMES}
    if json:
        listed = {
            kind: {name: {field.name: getattr(scheme, field.name) for field in fields(scheme)} for name, scheme in schemes.items()}
            for kind, schemes in kinds.items()
        }
        typer.echo(dumps(listed, indent=2, default=str))
        return
    table = Table("for", "scheme", "weight bits", "scales and rounding")
    for kind, schemes in kinds.items():
        for name, scheme in schemes.items():
            table.add_row(kind, name, f"{scheme.bits}", scheme.summary)
        table.add_section()
    results().print(table)


def load_model(name: str, options: dict[str, Any], weights: Path | None) -> "ImageNetwork":
    """A network of the zoo with trained weights."""
    model = zoo.build(name, **options)
    path = weights or zoo.shipped_weights(name)
    if path is None:
        raise UsageError(f"weights must be given for {name}, not left out (a file with its trained parameters)")
    zoo.load_weights(model, path)
    return model


def parse_network(text: str) -> tuple[str, dict[str, Any]]:
    """``mobilenet_v1,width=0.25,padding=tensorflow`` as name and options; numbers are numbers."""
    name, *pairs = text.split(",")
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"network must be NAME or NAME,option=value,..., not {text!r} (for example mobilenet_v1,width=0.25)")
        options[key] = _number(value)
    return name, options


def parse_bits(texts: list[str]) -> int | dict[str, int] | None:
    """``8``, or ``features.3*=4`` any number of times, or a file of ``tercel search``; None for nothing."""
    if not texts:
        return None
    if len(texts) == 1 and texts[0].endswith(".json"):
        return read_bits(Path(texts[0]))
    try:
        if len(texts) == 1 and "=" not in texts[0]:
            return int(texts[0])
        pairs = [text.rsplit("=", 1) if "=" in text else ["*", text] for text in texts]
        return {pattern: int(number) for pattern, number in pairs}
    except ValueError:
        raise UsageError(f"bits must be N or PATTERN=N, not {', '.join(texts)!r} (for example 4, or 'features.0*=8')") from None


def read_bits(path: Path) -> dict[str, int]:
    """Widths by module path, as ``tercel search`` writes them."""
    try:
        found = loads(path.read_text())
    except (OSError, UnicodeDecodeError, JSONDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"bits must be a JSON file, but {path} is not: {reason} (tercel search -o writes one)") from error
    if not isinstance(found, dict) or not all(isinstance(width, int) for width in found.values()):
        raise UsageError(f"bits must be a JSON object of layers and widths, but {path} holds something else (tercel search -o writes one)")
    return found


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def calibration_files(path: Path, *, count: int) -> list[Path]:
    """At most ``count`` photographs, evenly spread over those that ``labels.csv`` has for calibration, or over the whole folder."""
    listed = (path / "labels.csv").is_file()
    files = [image.path for image in read_labels(path, role="calib")] if listed else image_files(path)
    used = min(count, len(files))
    return [files[index * len(files) // used] for index in range(used)]


def calibration_batches(path: Path, model: "ImageNetwork", *, images: int, resize: bool) -> "Iterator[Tensor]":
    """At most ``images`` normalized images in batches, from a folder of photographs or an array file."""
    import numpy as np
    import torch

    if path.suffix != ".npy":
        return image_batches(calibration_files(path, count=images), image_format=model.image_format, batch=_BATCH, resize=resize)
    try:
        values = np.load(path, allow_pickle=False)[:images]
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"calibrate must be an array file or a folder, but {path} is not: {reason} (write it with numpy.save)") from error
    return (torch.from_numpy(values[start : start + _BATCH]).float() for start in range(0, len(values), _BATCH))
