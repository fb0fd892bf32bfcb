"""``tercel area``, ``tercel verilog``, ``tercel bitstream`` and ``tercel program``."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tercel.boards.area import DEVICES, area_table, blocks_table, measure_machine
from tercel.boards.bitstream import bitstream_table, build_bitstream, program_board
from tercel.boards.boards import BOARDS, named_board
from tercel.boards.simulation import open_simulation
from tercel.hw.config import named_config
from tercel.sim.execution import LINKED
from tercel.sim.parse import UsageError

OVER_LIMIT = 1
"""Exit code when a figure is over or under its limit, or something differs."""

ConfigName = Annotated[str, typer.Argument(metavar="CONFIG", help="named config: tiny, nano, small, base, large")]
BoardName = Annotated[str, typer.Argument(metavar="BOARD", help=", ".join(BOARDS))]
Folder = Annotated[Path, typer.Option("--output", "-o", help="folder for what is made")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line, and boards in simulation to what programs run on."""
    LINKED["soc"] = open_simulation
    app.command()(area)
    app.command()(verilog)
    app.command()(bitstream)
    app.command()(program)
    app.command()(netlist)


def area(
    config: ConfigName,
    device: Annotated[str, typer.Option(help=", ".join(DEVICES))] = "ecp5-85f",
    route: Annotated[bool, typer.Option(help="place and route too; of a large config this takes an hour")] = True,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    output: Folder = Path("build"),
) -> None:
    """Measure LUTs, flip-flops, DSPs, memories and clock frequency of the accelerator. Example: tercel area small --device ecp5-25f."""
    if device not in DEVICES:
        raise UsageError(f"device must be one of {', '.join(DEVICES)}, not {device!r} (the parts whose area can be measured)")
    machine = named_config(config)
    folder = output / f"area-{config}-{device}"
    with Console(stderr=True).status("elaborate") as status:
        figures = measure_machine(
            machine, device=DEVICES[device], folder=folder, route=route, report=lambda line: status.update(Text(line[:120]))
        )
    if json:
        typer.echo(dumps(figures.as_json(), indent=2))
    else:
        Console().print(area_table(figures), blocks_table(figures))
        typer.echo(f"{', '.join(f'{name} {version}' for name, version in figures.tools.items())}; logs and reports in {folder}")
    raise typer.Exit(OVER_LIMIT if any(not limit.ok for limit in figures.limits) else 0)


def netlist(
    config: ConfigName = "tiny",
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    output: Folder = Path("build"),
) -> None:
    """Simulate what synthesis for the iCE40 makes of the accelerator: layers on netlist, RTL and golden model. Takes minutes."""
    from tercel.boards.netlist import run_netlist

    machine = named_config(config)
    with Console(stderr=True).status("netlist") as status:
        result = run_netlist(machine, folder=output / f"netlist-{config}", report=lambda line: status.update(Text(line[:120])))
    if json:
        typer.echo(dumps(result.as_json(), indent=2))
    else:
        columns = ("layer", "bytes compared", "bytes that differ", "cycles", "cycles, RTL")
        table = Table(*columns, title=f"{config}, {result.cells} iCE40 cells")
        for layer in result.layers:
            table.add_row(layer.layer, f"{layer.compared:,}", f"{layer.differing}", f"{layer.cycles:,}", f"{layer.rtl_cycles:,}")
        Console().print(table)
    raise typer.Exit(0 if result.equal else OVER_LIMIT)


def verilog(config: ConfigName, output: Folder = Path("build")) -> None:
    """Write the accelerator's Verilog for somebody else's SoC, and how to use it there. Example: tercel verilog base -o build."""
    from tercel.hw.integration import integration_files
    from tercel.hw.verilog import verilog as emit

    machine = named_config(config)
    with Console(stderr=True).status("elaborate"):
        text = emit(machine)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "tercel_npu.v"
    path.write_text(text)
    typer.echo(f"{path}: {len(text.splitlines())} lines, config {machine.name}, hash {machine.hash:08x}")
    for name, content in integration_files(machine).items():
        (output / name).write_text(content)
        typer.echo(f"{output / name}")


def bitstream(
    board: BoardName,
    *,
    seed: Annotated[int | None, typer.Option(help="of place and route, where not the board's; another may reach another clock")] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    output: Folder = Path("build"),
) -> None:
    """Build the bitstream of a board; exit code 1 if the clock is not reached. Example: tercel bitstream ulx3s-25f -o build."""
    chosen = named_board(board)
    folder = output / f"bitstream-{board}"
    with Console(stderr=True).status("elaborate") as status:
        built = build_bitstream(chosen, folder=folder, seed=seed, report=lambda line: status.update(Text(line[:120])))
    if json:
        typer.echo(dumps(built.as_json(), indent=2))
    else:
        Console().print(bitstream_table(built))
        typer.echo(f"{', '.join(f'{name} {version}' for name, version in built.tools.items())}; logs and reports in {folder}")
        typer.echo(f"bitstream: {built.path}" if built.ok else "no bitstream: the clock is not reached (try another --seed)")
    raise typer.Exit(0 if built.ok else OVER_LIMIT)


def program(board: BoardName, file: Annotated[Path, typer.Argument(help="a bitstream")]) -> None:
    """Load a bitstream into a connected board, until it loses power. Example: tercel program ulx3s-25f build/.../ulx3s-25f.bit."""
    program_board(named_board(board), file)
    typer.echo(f"{board} runs {file}")
