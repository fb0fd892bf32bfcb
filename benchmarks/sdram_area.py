"""Size and clock frequency of the SDRAM controller by itself, after place and route: ``python -m benchmarks.sdram_area``.

``--controller litedram`` measures LiteDRAM's generated core in its place, block ``core``, and what it needs to have the same ports.
"""

import tempfile
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.errors import command
from benchmarks.litedram_controller import CONTROLLERS, LiteDramBuild, named_controller
from tercel.boards.area import DEVICES, area_table, blocks_table, measure
from tercel.hw.sdram.chips import CHIPS, named_chip
from tercel.sim.cli import FAILED
from tercel.sim.parse import UsageError
from tercel.sim.progress import progress_bars


def main(
    *,
    controller: Annotated[str, typer.Option(help=f"one of {', '.join(CONTROLLERS)}")] = "tercel",
    chip: Annotated[str, typer.Option(help=f"one of {', '.join(CHIPS)}")] = "is42s16160g",
    memory_width: Annotated[int, typer.Option(help="bytes of a beat")] = 8,
    clock_mhz: Annotated[float, typer.Option(help="that the timing of the chip is counted in")] = 100.0,
    device: Annotated[str, typer.Option(help=f"one of {', '.join(DEVICES)}")] = "ecp5-25f",
    route: Annotated[bool, typer.Option(help="place and route; without it there is no clock frequency")] = True,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Synthesize, place and route the controller; exit code 1 if a limit is passed. Example: python -m benchmarks.sdram_area --no-route."""
    if device not in DEVICES:
        raise UsageError(f"device must be one of {', '.join(DEVICES)}, not {device!r} (the part it goes into)")
    build = named_controller(controller)(chip=named_chip(chip), clock_mhz=clock_mhz, memory_width=memory_width)
    verilog = build.core() if isinstance(build, LiteDramBuild) else ""
    name = f"SDRAM controller ({controller}), {memory_width} bytes, {named_chip(chip).name}"
    with tempfile.TemporaryDirectory() as folder, progress_bars() as progress:
        area = measure(
            build.controller(),
            name=name,
            device=DEVICES[device],
            verilog=verilog,
            folder=Path(folder),
            route=route,
            report=lambda step: progress(step, 0, 0),
        )
    if json:
        typer.echo(dumps(area.as_json(), indent=2))
    else:
        console = Console()
        console.print(area_table(area))
        console.print(blocks_table(area))
    if not all(limit.ok for limit in area.limits):
        raise typer.Exit(FAILED)


if __name__ == "__main__":
    raise SystemExit(command(main))
