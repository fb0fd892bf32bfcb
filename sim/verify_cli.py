"""``tercel verify``: golden model against RTL on random and hostile programs, with progress."""

import dataclasses
from json import dumps
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tercel.sim.parse import UsageError
from tercel.sim.verify import VERIFY_CONFIGS, Report, verify

DIFFERS = 1
"""Exit code when the models differ anywhere."""


def verify_command(
    config: Annotated[list[str] | None, typer.Argument(help=f"any of {', '.join(VERIFY_CONFIGS)}; default: prime and ternary")] = None,
    *,
    programs: Annotated[int, typer.Option(min=0, help="random programs a config")] = 1000,
    hostile: Annotated[int, typer.Option(min=0, help="hostile programs a config")] = 1000,
    first_seed: Annotated[int, typer.Option(min=0, help="seeds count up from here")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = 2,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Compare golden model and RTL on random and hostile programs. Example: tercel verify prime --programs 100 --hostile 100."""
    names = config or ["prime", "ternary"]
    for name in names:
        if name not in VERIFY_CONFIGS:
            raise UsageError(f"config must be one of {', '.join(VERIFY_CONFIGS)}, not {name!r} (the configs made for verification)")
    totals = {name: Report(config=name) for name in names}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name, total in totals.items():
            task = progress.add_task(name, total=programs + hostile)
            for part in verify(VERIFY_CONFIGS[name], programs=programs, hostile=hostile, first_seed=first_seed, jobs=jobs):
                total.add(part)
                progress.advance(task, part.programs + part.hostile + part.skipped)
    for total in totals.values():
        _show(total, json=json)
    raise typer.Exit(DIFFERS if any(total.failures for total in totals.values()) else 0)


def _show(total: Report, *, json: bool) -> None:
    if json:
        typer.echo(dumps(dataclasses.asdict(total)))
        return
    typer.echo(
        f"{total.config}: {total.programs} random and {total.hostile} hostile programs ({total.skipped} more asked for too much work), "
        f"{total.cycles} cycles, {len(total.failures)} differ"
    )
    typer.echo("  hostile ended with " + ", ".join(f"{name} {count}" for name, count in total.faults.most_common()))
    for failure in total.failures[:20]:
        typer.echo(f"  {failure.kind} seed {failure.seed}: {failure.text}")
