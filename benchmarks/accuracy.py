"""Accuracy of quantized networks, in the integers that the machine computes.

``python -m benchmarks.accuracy --data DIR -o build/accuracy.md`` makes the whole table. Finished rows stand in
``build/accuracy.jsonl``: the same command goes on after an interruption, and measures only what has changed.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress as Bars
from rich.table import Table

from benchmarks.accuracy_table import bar, markdown_line, row_bars, share, weight_widths
from benchmarks.checkpoints import CHECKPOINTS, Checkpoint, read_set
from benchmarks.errors import command
from benchmarks.results import Identity, Row, RowFile, code_identity, file_identity
from tercel.hw.config import BASE, Config
from tercel.sim.parse import UsageError
from tercel.sw.quantize import ROUNDINGS, SCHEMES

PER_CHANNEL = replace(BASE, name="base, M per channel", per_channel_multiplier=True)
VARIANTS = ("per_layer", "shift8", "per_channel", "shift8+bias", "per_channel+bias")
"""Weight scale schemes, ``+bias`` with bias correction."""

_DEFAULT_NETWORKS = ("mobilenet_v1_0.25", "mobilenet_v2", "mobilenet_v2_tf")
_FLOAT = "float"
_TABLE_WIDTH = 180


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure and how.

    ``images`` and ``calibration`` are counts, None for all; ``mirrored`` has each calibration image twice, once as its mirror image.
    """

    networks: Sequence[str] = _DEFAULT_NETWORKS
    variants: Sequence[str] = VARIANTS
    bits: Sequence[int] = (8, 6, 4)
    images: int | None = None
    calibration: int | None = None
    mirrored: bool = False
    rounding: str = "compensated"
    batch: int = 8
    threads: int = 1


def measure(options: Options, *, data: Path | None, rows: RowFile, bars: Bars) -> list[Row]:
    """All rows of the table, those that ``rows`` has not got measured and added to it. Errors before the first row is measured."""
    for kind, chosen, known in (("networks", options.networks, CHECKPOINTS), ("bits", options.bits, range(2, 9))):
        for name in chosen:
            if name not in known:
                raise UsageError(f"{kind} must be among {', '.join(map(str, known))}, not {name!r} (separate them with commas)")
    for variant in options.variants:
        if variant.removesuffix("+bias") not in SCHEMES:
            raise UsageError(f"schemes must be among {', '.join(SCHEMES)}, not {variant!r} (with +bias for bias correction)")
    if options.rounding not in ROUNDINGS:
        raise UsageError(f"rounding must be among {', '.join(ROUNDINGS)}, not {options.rounding!r}")
    for name in options.networks:
        CHECKPOINTS[name].weights(data)
    task = bars.add_task("rows", total=len(options.networks) * (1 + len(options.variants) * len(options.bits)))
    table = []
    for name in options.networks:
        for row in _network_rows(CHECKPOINTS[name], options, data=data, rows=rows, bars=bars):
            table.append(row)
            bars.advance(task)
    return table


def _network_rows(checkpoint: Checkpoint, options: Options, *, data: Path | None, rows: RowFile, bars: Bars) -> Iterator[Row]:
    from benchmarks.evaluation import float_row, integer_row

    samples = read_set(checkpoint, data, role="eval", count=options.images)
    calibration = read_set(checkpoint, data, role="calib", count=options.calibration)
    if options.mirrored:
        calibration = calibration.with_mirrored()
    model = checkpoint.build(data)
    common: dict[str, Any] = {
        "network": checkpoint.name,
        "weights": file_identity(checkpoint.weights(data)),
        "images": samples.identity,
        "code": code_identity(),
    }
    plain = Identity(**common, calibration="", scheme=_FLOAT, bits=0, bias_correction=False, rounding="", config="", config_hash=0)
    if plain not in rows.rows:
        with bar(bars, f"{checkpoint.name} float") as progress:
            rows.add(float_row(plain, model, samples, batch=options.batch, threads=options.threads, progress=progress))
    yield rows.rows[plain]
    for bits in options.bits:
        for variant in options.variants:
            scheme = variant.removesuffix("+bias")
            config: Config = PER_CHANNEL if scheme == "per_channel" else BASE
            identity = Identity(
                **common,
                calibration=calibration.identity,
                scheme=scheme,
                bits=bits,
                bias_correction=scheme != variant,
                rounding=options.rounding,
                config=config.name,
                config_hash=config.hash,
            )
            if identity not in rows.rows:
                with bar(bars, f"{checkpoint.name} W{bits} {variant}") as progress:
                    row = integer_row(
                        identity,
                        model,
                        samples,
                        calibration=calibration,
                        config=config,
                        batch=options.batch,
                        threads=options.threads,
                        checkpoint=rows.scratch(identity) if options.rounding == "learned" else None,
                        progress=progress,
                    )
                rows.add(row)
            yield rows.rows[identity]


_COLUMNS = ("network", "bits", "scheme", "rounding", "machine", "top-1", "points", "as float", "ties")


def cells(row: Row, plain: Row, sources: Sequence[str]) -> list[str]:
    """A row of the table as texts: counts with their shares, and the distance from the float network in points."""
    identity = row.identity
    correct, total = row.correct()
    points = 100 * (correct - plain.correct()[0]) / total
    quantized = identity.scheme != _FLOAT
    bias = " + bias correction" if identity.bias_correction else ""
    return [
        identity.network,
        f"W{identity.bits}A8" if quantized else "float32",
        identity.scheme + bias if quantized else "",
        identity.rounding,
        identity.config,
        share(correct, total),
        f"{points:+.2f}" if quantized else "",
        share(*row.agreeing(plain)) if quantized else "",
        str(row.ties) if quantized else "",
        *(share(*row.correct(source)) for source in sources),
    ]


def lines(table: Sequence[Row]) -> Iterator[tuple[list[str], Row]]:
    """The cells of each row beside the row; a network's float row comes before its others."""
    sources = _sources(table)
    plain = table[0]
    for row in table:
        plain = row if row.identity.scheme == _FLOAT else plain
        yield cells(row, plain, sources), row


def _sources(table: Sequence[Row]) -> list[str]:
    found = sorted({source for row in table for source in row.sources})
    return found if len(found) > 1 else []


def markdown(table: Sequence[Row]) -> str:
    """The table and its notes as Markdown."""
    header = [*_COLUMNS, *_sources(table)]
    text = [markdown_line(header), markdown_line(["---"] * len(header))]
    text += [markdown_line(line) for line, _ in lines(table)]
    notes = [f"* {name}: {CHECKPOINTS[name].note}." for name in dict.fromkeys(row.identity.network for row in table)]
    codes = (
        "* Every quantized row is the integer network's own result; ties are images with several largest codes, "
        "which count as the first of their classes."
    )
    return "\n".join([*text, "", codes, *notes, ""])


def _print(table: Sequence[Row]) -> None:
    shown = Table(*_COLUMNS, *_sources(table))
    for line, row in lines(table):
        shown.add_row(*line, style="bold" if row.identity.scheme == _FLOAT else "")
    console = Console()
    console.width = max(console.width, _TABLE_WIDTH)
    console.print(shown)


def main(
    *,
    data: Annotated[Path | None, typer.Option(envvar="TERCEL_DATA", help="folder with weights/ and imagenet_sample/")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Markdown file; finished rows beside it as .jsonl")] = Path(
        "build/accuracy.md"
    ),
    networks: Annotated[str, typer.Option(help=f"any of {', '.join(CHECKPOINTS)}")] = ",".join(_DEFAULT_NETWORKS),
    schemes: Annotated[str, typer.Option(help="weight scale schemes, +bias with bias correction")] = ",".join(VARIANTS),
    bits: Annotated[str, typer.Option(help="weight bits")] = "8,6,4",
    images: Annotated[int | None, typer.Option(min=1, help="images for the accuracy; default: all")] = None,
    calibration: Annotated[int | None, typer.Option(min=1, help="images for calibration; default: all")] = None,
    mirrored: Annotated[bool, typer.Option("--mirrored", help="calibrate on each image and its mirror image")] = False,
    rounding: Annotated[str, typer.Option(help=f"of weights: {', '.join(ROUNDINGS)}")] = "compensated",
    batch: Annotated[int, typer.Option(min=1, help="images a step")] = 8,
    threads: Annotated[int, typer.Option(min=1, help="threads; default: all cores")] = os.cpu_count() or 1,
) -> None:
    """Measure accuracy. Example: python -m benchmarks.accuracy --networks digits -o build/digits.md."""
    options = Options(
        networks=networks.split(","),
        variants=schemes.split(","),
        bits=weight_widths(bits),
        images=images,
        calibration=calibration,
        mirrored=mirrored,
        rounding=rounding,
        batch=batch,
        threads=threads,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with row_bars() as bars:
        table = measure(options, data=data, rows=RowFile(output.with_suffix(".jsonl")), bars=bars)
    output.write_text(markdown(table))
    _print(table)
    seconds = sum(row.quantize_seconds + row.run_seconds for row in table)
    typer.echo(f"{output}: {len(table)} rows, {seconds:.0f} s of quantizing and running")


if __name__ == "__main__":
    raise SystemExit(command(main))
