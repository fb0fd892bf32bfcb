"""``tercel demo``: see the whole flow work in minutes."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tercel.sim.console import results
from tercel.sim.demo import DemoResult, run_demo
from tercel.sim.parse import parse_config
from tercel.sim.progress import progress_bars

DIFFERENT = 1
"""Exit code when the machines do not agree."""


def demo_command(
    *,
    config: Annotated[str, typer.Option(help="named config: small, base, large")] = "small",
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for programs and reports")] = Path("tercel-demo"),
    rtl: Annotated[bool, typer.Option("--rtl/--no-rtl", help="also simulate the RTL (builds it the first time)")] = True,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Take a small MobileNet through quantization, compiler, golden model and RTL. Example: tercel demo -o /tmp/demo."""
    with progress_bars() as progress:
        result = run_demo(parse_config(config, None), output, rtl=rtl, progress=progress)
    if json:
        typer.echo(dumps(result.as_json(), indent=2))
    else:
        _print(result)
    if not result.equal:
        raise typer.Exit(DIFFERENT)


def _print(result: DemoResult) -> None:
    table = Table(title=f"digits network on {result.config}, {result.images} test images")
    for heading in ("weights", "accuracy", "golden = reference", "RTL = reference", "cycles", "cycle model", "lane-cycles used"):
        table.add_column(heading, justify="left" if heading == "weights" else "right")
    table.add_row("float", f"{100 * result.float_accuracy:.2f} %", "", "", "", "", "")
    for width in result.widths:
        table.add_row(
            width.name,
            f"{100 * width.accuracy:.2f} %",
            f"{width.golden_equal} of {width.golden_images}",
            f"{width.rtl_equal} of {width.rtl_images}" if width.rtl_images else "not run",
            f"{width.cycles}" if width.rtl_images else "",
            f"{width.estimated_cycles}",
            f"{100 * width.utilization:.1f} %",
        )
    results().print(table)
    typer.echo("every code equal on all machines" if result.equal else "the machines differ")
    for width in result.widths:
        typer.echo(f"{width.report}")
