"""Post-training quantization without data and with it: schemes, ternary operators, equalization, bias correction, ways of rounding.

``python -m benchmarks.post_training --data DIR -o build/post_training.md`` makes the whole table, on photographs, in the integers that the
machine computes. Finished rows stand beside it as ``.jsonl``: the same command goes on after an interruption.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress as Bars

from benchmarks.accuracy import PER_CHANNEL
from benchmarks.accuracy_table import bar, markdown_line, row_bars, share, weight_widths
from benchmarks.checkpoints import CHECKPOINTS, Checkpoint, Samples, read_set
from benchmarks.errors import command
from benchmarks.results import Identity, Row, RowFile, code_identity, file_identity
from tercel.hw.config import BASE
from tercel.sim.parse import UsageError

if TYPE_CHECKING:
    from tercel.sw.zoo.network import ImageNetwork

_FLOAT = "float"
_DEFAULT_NETWORKS = ("mobilenet_v1_0.25", "mobilenet_v2_norms", "mobilenet_v2", "mobilenet_v2_tf")
_OPERATORS = ("ternary_naive", "tquant", "mquant", "mquant_tertiles")


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of quantizing.

    ``rounding`` is empty without images, where weights are rounded to the nearest code; ``mixed`` leaves the first, the last and the
    depthwise layers at 8 bits.
    """

    scheme: str
    rounding: str = ""
    bias_correction: bool = True
    equalization: bool = False
    mixed: bool = False

    @property
    def data_free(self) -> bool:
        """Whether no images are used."""
        return not self.rounding


def _uniform_methods() -> tuple[Method, ...]:
    return (
        Method(scheme="per_layer", bias_correction=False),
        Method(scheme="per_layer"),
        Method(scheme="per_layer", equalization=True),
        Method(scheme="shift8", bias_correction=False),
        Method(scheme="shift8"),
        Method(scheme="shift8", equalization=True),
        Method(scheme="per_channel"),
        Method(scheme="per_layer", rounding="nearest"),
        Method(scheme="per_layer", rounding="nearest", equalization=True),
        Method(scheme="shift8", rounding="nearest", bias_correction=False),
        Method(scheme="shift8", rounding="nearest"),
        Method(scheme="shift8", rounding="compensated"),
        Method(scheme="shift8", rounding="compensated", equalization=True),
        Method(scheme="shift8", rounding="learned"),
    )


def _ternary_methods() -> tuple[Method, ...]:
    return tuple(
        Method(scheme=scheme, rounding=rounding, mixed=mixed)
        for mixed in (False, True)
        for rounding, schemes in (
            ("", (*_OPERATORS, *(f"{name}_fitted" for name in _OPERATORS), *(f"{name}_per_channel" for name in _OPERATORS))),
            ("nearest", (*_OPERATORS, "tquant_fitted", "mquant_fitted")),
            ("compensated", ("tquant_fitted", "mquant_fitted", "ternary")),
            ("learned", ("tquant_fitted", "mquant_fitted", "ternary") if mixed else ()),  # the slowest
        )
        for scheme in schemes
    ) + tuple(
        Method(scheme=f"{name}_fitted", bias_correction=bias_correction, equalization=equalization, mixed=True)
        for name in ("ternary_naive", "tquant", "mquant")
        for bias_correction, equalization in ((False, False), (True, True))
    )


UNIFORM, TERNARY = _uniform_methods(), _ternary_methods()


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure and how. ``images`` and ``calibration`` are counts, None for all; ``roundings`` are those with images."""

    networks: Sequence[str] = _DEFAULT_NETWORKS
    bits: Sequence[int] = (8, 6, 4, 2)
    roundings: Sequence[str] = ("nearest", "compensated", "learned")
    images: int | None = None
    calibration: int | None = None
    batch: int = 8
    threads: int = 1

    def rows(self) -> list[tuple[int, Method]]:
        """Bits and method of each quantized row of a network."""
        return [
            (bits, method)
            for bits in self.bits
            for method in (TERNARY if bits == 2 else UNIFORM)
            if method.data_free or method.rounding in self.roundings
        ]


def measure(options: Options, *, data: Path | None, rows: RowFile, bars: Bars) -> list[Row]:
    """All rows of the table, those that ``rows`` has not got measured and added to it."""
    for kind, chosen, known in (
        ("networks", options.networks, tuple(CHECKPOINTS)),
        ("bits", options.bits, (8, 6, 4, 2)),
        ("roundings", options.roundings, ("nearest", "compensated", "learned")),
    ):
        for name in chosen:
            if name not in known:
                raise UsageError(f"{kind} must be among {', '.join(map(str, known))}, not {name!r} (separate them with commas)")
    for name in options.networks:
        CHECKPOINTS[name].weights(data)
    task = bars.add_task("rows", total=len(options.networks) * (1 + len(options.rows())))
    table = []
    for name in options.networks:
        for row in _network_rows(CHECKPOINTS[name], options, data=data, rows=rows, bars=bars):
            table.append(row)
            bars.advance(task)
    return table


def wide_layers(model: "ImageNetwork") -> str:
    """Names of the first layer, the depthwise ones and the linear ones, with spaces between them."""
    from torch import nn

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    wide = [name for name, layer in layers[1:] if isinstance(layer, nn.Linear) or layer.groups > 1]
    return " ".join([layers[0][0], *wide])


def _network_rows(checkpoint: Checkpoint, options: Options, *, data: Path | None, rows: RowFile, bars: Bars) -> Iterator[Row]:
    from benchmarks.evaluation import float_outputs, float_row, integer_row

    samples = read_set(checkpoint, data, role="eval", count=options.images)
    calibration = read_set(checkpoint, data, role="calib", count=options.calibration)
    model = checkpoint.build(data)
    identities = _identities(checkpoint, options, model, data=data, samples=samples, calibration=calibration)
    outputs = None
    speed = {"batch": options.batch, "threads": options.threads}
    for identity in identities:
        if identity not in rows.rows:
            with bar(bars, f"{checkpoint.name} W{identity.bits} {identity.scheme}") as progress:
                if identity.scheme == _FLOAT:
                    rows.add(float_row(identity, model, samples, progress=progress, **speed))
                else:
                    if outputs is None:
                        outputs = float_outputs(model, samples, progress=progress, **speed)
                    row = integer_row(
                        identity,
                        model,
                        samples,
                        calibration=calibration if identity.calibration else None,
                        config=PER_CHANNEL if identity.scheme.endswith("per_channel") else BASE,
                        checkpoint=rows.scratch(identity) if identity.rounding == "learned" else None,
                        progress=progress,
                        plain=outputs,
                        **speed,
                    )
                    rows.add(row)
        yield rows.rows[identity]


def _identities(
    checkpoint: Checkpoint, options: Options, model: "ImageNetwork", *, data: Path | None, samples: Samples, calibration: Samples
) -> Iterator[Identity]:
    common: dict[str, Any] = {
        "network": checkpoint.name,
        "weights": file_identity(checkpoint.weights(data)),
        "images": samples.identity,
        "code": code_identity(),
    }
    yield Identity(**common, calibration="", scheme=_FLOAT, bits=0, bias_correction=False, rounding="", config="", config_hash=0)
    wide = wide_layers(model)
    for bits, method in options.rows():
        config = PER_CHANNEL if method.scheme.endswith("per_channel") else BASE
        yield Identity(
            **common,
            calibration="" if method.data_free else calibration.identity,
            scheme=method.scheme,
            bits=bits,
            bias_correction=method.bias_correction,
            rounding=method.rounding or "nearest",
            config=config.name,
            config_hash=config.hash,
            equalization=method.equalization,
            wide=wide if method.mixed else "",
        )


_COLUMNS = ("network", "bits", "scheme", "data", "rounding", "bias correction", "equalization", "top-1", "points", "as float", "SNR, dB")


def cells(row: Row, plain: Row) -> list[str]:
    """A row of the table as texts; ``plain`` is the float network's row."""
    identity = row.identity
    correct, total = row.correct()
    if identity.scheme == _FLOAT:
        return [identity.network, "float32", *[""] * 5, share(correct, total), "", "", ""]
    return [
        identity.network,
        f"W{identity.bits}A8" + (", some W8" if identity.wide else ""),
        identity.scheme,
        "images" if identity.calibration else "none",
        identity.rounding,
        "yes" if identity.bias_correction else "",
        "yes" if identity.equalization else "",
        share(correct, total),
        f"{100 * (correct - plain.correct()[0]) / total:+.2f}",
        share(*row.agreeing(plain)),
        "" if row.signal_to_noise is None else f"{row.signal_to_noise:.1f}",
    ]


def markdown(table: Sequence[Row]) -> str:
    """The table and its notes as Markdown; a network's float row comes before its others."""
    text = [markdown_line(_COLUMNS), markdown_line(["---"] * len(_COLUMNS))]
    plain = table[0]
    for row in table:
        plain = row if row.identity.scheme == _FLOAT else plain
        text.append(markdown_line(cells(row, plain)))
    notes = [
        "* Every quantized row is the integer network's own result. Activations have 8 bits.",
        "* some W8: the first, the last and the depthwise layers have weights of 8 bits.",
        "* as float: images of the float network's class. SNR: energy of outputs over that of their errors, without means over classes.",
        *(f"* {name}: {CHECKPOINTS[name].note}." for name in dict.fromkeys(row.identity.network for row in table)),
    ]
    return "\n".join([*text, "", *notes, ""])


def main(
    *,
    data: Annotated[Path | None, typer.Option(envvar="TERCEL_DATA", help="folder with weights/ and imagenet_sample/")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Markdown file; finished rows beside it as .jsonl")] = Path(
        "build/post_training.md"
    ),
    networks: Annotated[str, typer.Option(help=f"any of {', '.join(CHECKPOINTS)}")] = ",".join(_DEFAULT_NETWORKS),
    bits: Annotated[str, typer.Option(help="weight bits, any of 8, 6, 4, 2; the ternary operators are at 2")] = "8,6,4,2",
    roundings: Annotated[str, typer.Option(help="with images: any of nearest, compensated, learned")] = "nearest,compensated,learned",
    images: Annotated[int | None, typer.Option(min=1, help="images for the accuracy; default: all")] = None,
    calibration: Annotated[int | None, typer.Option(min=1, help="images for calibration; default: all")] = None,
    batch: Annotated[int, typer.Option(min=1, help="images a step")] = 8,
    threads: Annotated[int, typer.Option(min=1, help="threads; default: all cores")] = os.cpu_count() or 1,
) -> None:
    """Measure post-training quantization. Example: python -m benchmarks.post_training --networks digits --bits 8,2 -o build/digits.md."""
    options = Options(
        networks=networks.split(","),
        bits=weight_widths(bits),
        roundings=[name for name in roundings.split(",") if name],
        images=images,
        calibration=calibration,
        batch=batch,
        threads=threads,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with row_bars() as bars:
        table = measure(options, data=data, rows=RowFile(output.with_suffix(".jsonl")), bars=bars)
    output.write_text(markdown(table))
    typer.echo(output.read_text())


if __name__ == "__main__":
    raise SystemExit(command(main))
