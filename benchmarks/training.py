"""Accuracy of networks that were trained to few bits, in the integers that the machine computes.

``python -m benchmarks.training quick --data DIR -o build/training.md`` makes the whole table: a small ResNet and a small MobileNetV2 on
Fashion-MNIST, three of each. Finished rows stand in ``build/training.jsonl``: the same command goes on after an interruption, and
measures only what has changed. ``full`` is larger networks on CIFAR-10 for a night; ``digits`` needs no data and takes a minute.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

import typer
from joblib import Parallel, delayed, parallel_config
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.errors import command
from benchmarks.results import code_identity
from benchmarks.row_file import JsonRows
from benchmarks.training_methods import METHODS, Method
from benchmarks.training_rows import Identity, Row, float_file, measure_row
from benchmarks.training_sizes import SIZES
from tercel.sim.parse import UsageError

_CODE = ("training", "quantize", "zoo", "importer")
_TRAINED, _COUNTED, _UNTRAINED = 1.6, 3.0, 0.1
"""Time of an epoch of rounded training in epochs of the float network, of one that counts thresholds; of quantizing without training in
all its epochs."""

Job = tuple[Identity, Method, Row | None]


class RowFile(JsonRows[Identity, Row]):
    """Rows of one table."""

    @staticmethod
    def read(values: dict[str, Any]) -> Row:
        """See :meth:`~benchmarks.row_file.JsonRows.read`."""
        return Row(**{**values, "identity": Identity(**values["identity"])})


def chosen_methods(patterns: Sequence[str]) -> list[Method]:
    """Methods whose labels match a pattern, and those that they need."""
    for pattern in patterns:
        if not any(fnmatchcase(label, pattern) for label in METHODS):
            raise UsageError(f"methods must match one of {', '.join(METHODS)}, which {pattern!r} does not (a pattern as N2UQ*)")
    labels = {"float", *(label for label in METHODS if any(fnmatchcase(label, pattern) for pattern in patterns))}
    labels |= {METHODS[label].like for label in labels} - {""}
    return [method for method in METHODS.values() if method.label in labels]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure: networks and seeds of a size, None for all of it."""

    size: str
    methods: Sequence[Method]
    network: str | None = None
    seeds: int | None = None


def identities(options: Options) -> Iterator[tuple[Identity, Method]]:
    """All rows of a table: networks, methods, seeds."""
    code, size = code_identity(_CODE), options.size
    for network in SIZES[size].networks if options.network is None else [options.network]:
        for method in options.methods:
            for seed in range(options.seeds or SIZES[size].seeds):
                yield Identity(size=size, network=network, method=method.label, seed=seed, code=code), method


def expected_time(size: str, method: Method) -> float:
    """How long a row takes, in epochs of the float network."""
    chosen = SIZES[size]
    if method.way == "float":
        return float(chosen.float_epochs)
    if method.way == "training":
        return (_COUNTED if method.scheme == "n2uq" else _TRAINED) * chosen.epochs
    return _UNTRAINED * chosen.float_epochs


def measure(options: Options, *, data: Path | None, rows: RowFile, folder: Path, processes: int, bars: Progress) -> None:
    """Measure all rows that ``rows`` has not got: float networks first, then what starts from them, then what takes others' widths."""
    size, wanted = options.size, list(identities(options))
    stages: list[list[tuple[Identity, Method]]] = [[], [], []]
    for identity, method in wanted:
        done = identity in rows.rows and (method.way != "float" or float_file(identity, folder).is_file())
        if not done:
            stages[0 if method.way == "float" else 2 if method.like else 1].append((identity, method))
    SIZES[size].read(data)
    total = sum(expected_time(size, method) for stage in stages for _, method in stage)
    task = bars.add_task(f"{sum(map(len, stages))} of {len(wanted)} rows", total=total)
    with parallel_config(backend="loky", inner_max_num_threads=1):
        for stage in stages:
            jobs: list[Job] = [(identity, method, _widths_of(identity, method, rows)) for identity, method in stage]
            _run(size, jobs, data=data, rows=rows, folder=folder, processes=processes, bars=bars, task=task)


def _widths_of(identity: Identity, method: Method, rows: RowFile) -> Row | None:
    return rows.rows[Identity(**{**vars(identity), "method": method.like})] if method.like else None


def _run(
    size: str, jobs: Sequence[Job], *, data: Path | None, rows: RowFile, folder: Path, processes: int, bars: Progress, task: TaskID
) -> None:
    # Networks take turns, so that the first rows of a table that is looked at early are of all kinds.
    calls = (delayed(measure_row)(identity, method, data=data, folder=folder, like=like) for identity, method, like in jobs)
    for row in Parallel(n_jobs=processes, return_as="generator_unordered", pre_dispatch="all")(calls):
        rows.add(row)
        name = row.identity
        bars.update(
            task,
            advance=expected_time(size, METHODS[name.method]),
            description=f"{name.network}, {name.method}, seed {name.seed}: {100 * row.correct / row.total:.2f} %",
        )


_COLUMNS = ("network", "row", "bits", "zeros", "top-1", "spread", "points", "against", "points over it", "converted")


def lines(options: Options, rows: RowFile) -> Iterator[list[str]]:
    """Cells of the table: means over the seeds, in per cent; spreads are standard deviations."""
    table: dict[tuple[str, str], list[Row]] = {}
    for identity, method in identities(options):
        if identity in rows.rows:
            table.setdefault((identity.network, method.label), []).append(rows.rows[identity])
    for (network, label), found in table.items():
        method = METHODS[label]
        shares = _shares(found)
        other = table.get((network, method.against), [])
        yield [
            network,
            label,
            f"{fmean(row.bits for row in found):.2f}",
            f"{100 * fmean(row.zeros for row in found):.0f} %" if method.way == "training" else "",
            f"{fmean(shares):.2f}",
            f"{stdev(shares):.2f} ({len(shares)})" if len(shares) > 1 else f"({len(shares)})",
            _difference(found, table.get((network, "float"), [])) if method.way != "float" else "",
            method.against,
            _difference(found, other) if other else "",
            _conversion(found),
        ]


def _shares(rows: Sequence[Row]) -> list[float]:
    return [100 * row.correct / row.total for row in rows]


def _difference(rows: Sequence[Row], others: Sequence[Row]) -> str:
    """Mean difference of the same seeds in points, and its spread."""
    by_seed = {row.identity.seed: row for row in others}
    points = [100 * (row.correct - by_seed[row.identity.seed].correct) / row.total for row in rows if row.identity.seed in by_seed]
    if not points:
        return ""
    return f"{fmean(points):+.2f}" + (f" ± {stdev(points):.2f}" if len(points) > 1 else "")


def _conversion(rows: Sequence[Row]) -> str:
    """The largest change of accuracy from the rounded network to the integers, in points."""
    changes = [100 * (row.correct - row.prepared) / row.total for row in rows if row.prepared is not None]
    return f"{max(changes, key=abs):+.2f}" if changes else ""


def markdown(size: str, table: Sequence[Sequence[str]]) -> str:
    """The table and its notes as Markdown."""
    text = [f"| {' | '.join(line)} |" for line in (_COLUMNS, ["---"] * len(_COLUMNS), *table)]
    chosen = SIZES[size]
    lengths = f"{chosen.images} training images, {chosen.float_epochs} epochs in floating point and {chosen.epochs} with rounded weights"
    means = "bits and zeros are means over the weights of the others"
    notes = (
        f"* Size `{size}`: {lengths}. Means over the seeds; spreads are standard deviations.",
        f"* Figures of quantized rows are the integer network's own. First, last and depthwise layers have 8 bits; {means}.",
        "* points: over the float network of the same seed. converted: the largest change of accuracy from training to integers.",
    )
    return "\n".join([*text, "", *notes, ""])


def _print(table: Sequence[Sequence[str]]) -> None:
    shown = Table(*_COLUMNS)
    for line in table:
        shown.add_row(*line)
    console = Console()
    console.width = max(console.width, 180)
    console.print(shown)


def main(
    size: Annotated[str, typer.Argument(help=f"one of {', '.join(SIZES)}")],
    *,
    data: Annotated[Path | None, typer.Option(envvar="TERCEL_DATA", help="folder with fashion_mnist/ and cifar10/")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Markdown file; finished rows and float networks beside it")] = Path(
        "build/training.md"
    ),
    methods: Annotated[list[str] | None, typer.Option(help="patterns of rows, several times for more; default: all")] = None,
    network: Annotated[str | None, typer.Option(help="one of the size's networks; default: all")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="networks of each kind; default: the size's")] = None,
    processes: Annotated[int, typer.Option(min=1, help="rows at a time, one core each; default: all cores")] = os.cpu_count() or 1,
) -> None:
    """Train and measure. Example: python -m benchmarks.training quick --data DIR -o build/training.md."""
    if size not in SIZES:
        raise UsageError(f"size must be one of {', '.join(SIZES)}, not {size!r} (quick takes an hour and a half on two cores)")
    if network is not None and network not in SIZES[size].networks:
        raise UsageError(f"network must be one of {', '.join(SIZES[size].networks)}, not {network!r} (or leave it out)")
    options = Options(size=size, methods=chosen_methods(methods or ["*"]), network=network, seeds=seeds)
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = RowFile(output.with_suffix(".jsonl"))
    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    ]
    with Progress(*columns, console=Console(stderr=True)) as bars:
        measure(options, data=data, rows=rows, folder=output.with_suffix(""), processes=processes, bars=bars)
    table = list(lines(options, rows))
    output.write_text(markdown(size, table))
    _print(table)
    used = sum(rows.rows[identity].seconds for identity, _ in identities(options))
    typer.echo(f"{output}: {len(table)} lines, {used / 60:.0f} minutes of one core")


if __name__ == "__main__":
    raise SystemExit(command(main))
