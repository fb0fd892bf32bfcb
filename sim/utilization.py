"""``tercel utilization``: single MobileNet-like layers on the RTL, and how much of their engine's lanes they use."""

from dataclasses import dataclass, replace
from json import dumps
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tercel.hw.config import named_config
from tercel.sim.backend import VerilatorBackend
from tercel.sim.layer_command import LayerReport, run_layer
from tercel.sw.layer_spec import LayerSpec

FAILED = 1
"""Exit code when an output is wrong or a steady utilization is under its limit."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer and the steady utilization, 0..1, that it must reach."""

    name: str
    spec: LayerSpec
    limit: float


def cases() -> list[Case]:
    """Pointwise, 3x3 and depthwise layers of MobileNetV2's shapes; array layers at 2 and at 8 weight bits."""
    found = []
    same = (1, 1, 1, 1)
    array = {
        "pointwise 56x56 24->144": LayerSpec(kind="conv", input=(56, 56, 24), out=144),
        "pointwise 14x14 96->576": LayerSpec(kind="conv", input=(14, 14, 96), out=576),
        "3x3 28x28 64->64": LayerSpec(kind="conv", input=(28, 28, 64), out=64, kernel=(3, 3), padding=same),
        "3x3 28x28 64->64 stride 2": LayerSpec(kind="conv", input=(28, 28, 64), out=64, kernel=(3, 3), padding=same, stride=2),
    }
    for bits in (2, 8):
        for name, spec in array.items():
            found.append(Case(name=f"{name}, {bits}-bit", spec=replace(spec, weight_bits=bits), limit=0.90))
    for stride in (1, 2):
        spec = LayerSpec(kind="depthwise", input=(56, 56, 144), kernel=(3, 3), padding=same, stride=stride)
        found.append(Case(name=f"depthwise 56x56x144 stride {stride}", spec=spec, limit=0.85))
    return found


def utilization(
    config: Annotated[str, typer.Option(help="named config")] = "base",
    *,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Run single layers on the RTL, one at a time, and show the share of useful lane-cycles. Example: tercel utilization --json."""
    machine = named_config(config)
    console = Console(stderr=True)
    reports: list[tuple[Case, LayerReport]] = []
    with VerilatorBackend(config=machine, report=console.log) as rtl, console.status("layers"):
        for case in cases():
            reports.append((case, run_layer(case.spec, machine, [rtl])))
            console.log(f"{case.name}: {reports[-1][1].measured['verilator']} cycles")
    if json:
        typer.echo(dumps([{"name": case.name, "limit": case.limit} | report.as_json() for case, report in reports]))
    else:
        Console().print(_table(config, reports))
    good = all(report.equal and report.lane_cycles.steady >= case.limit for case, report in reports)
    raise typer.Exit(0 if good else FAILED)


def _table(config: str, reports: list[tuple[Case, LayerReport]]) -> Table:
    memory = reports[0][1].config.memory_width
    title = f"{config}, one layer alone, memory of {memory} bytes a cycle"
    table = Table("layer", "MACs", "cycles", "useful lane-cycles", "steady", "limit", "whole run", "equal", title=title)
    for case, report in reports:
        lanes = report.lane_cycles
        table.add_row(
            case.name,
            f"{report.spec.macs}",
            f"{report.measured['verilator']}",
            f"{lanes.useful}",
            f"{100 * lanes.steady:.1f} %",
            f"{100 * case.limit:.0f} %",
            f"{100 * lanes.utilization:.1f} %",
            "yes" if report.equal else "NO",
        )
    return table
