"""The command line. Exit codes: 0 done, 1 a comparison failed, 2 wrong usage or input, 5 a tool is missing or failed."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tercel.hw.config import ConfigError
from tercel.hw.isa import IsaError
from tercel.sim import layer_cli
from tercel.sim.doctor import examine, exit_code, findings_json, findings_table
from tercel.sim.parse import UsageError
from tercel.sim.simulation_speed import speed_command
from tercel.sim.toolchain import ToolError
from tercel.sim.utilization import utilization
from tercel.sim.verify_cli import verify_command
from tercel.sim.verilator.model import SimulationError
from tercel.sw.assembly import AssemblyError, disassemble
from tercel.sw.layer_spec import LayerError
from tercel.sw.program import Program, ProgramError
from tercel.sw.reference_page import reference_page

FAILED, USAGE, TOOL_MISSING, INTERRUPTED = 1, 2, 5, 130

EXTENSIONS = ("tercel.boards.commands",)
"""Modules further out that add commands of their own with ``register(app)``, where they exist."""

app = typer.Typer(help="Tercel: a low-bit NPU, its simulators and tools.", no_args_is_help=True, add_completion=False)
app.add_typer(layer_cli.app, name="layer", no_args_is_help=True)
app.command("verify")(verify_command)
app.command()(utilization)
app.command("speed")(speed_command)

Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def disasm(program: Annotated[Path, typer.Argument(help="a .tnpu file")]) -> None:
    """Print a program's instructions as assembly text. Example: tercel disasm layer.tnpu."""
    typer.echo(disassemble(Program.load(program).words), nl=False)


@app.command()
def isa() -> None:
    """Print the instruction set's reference page (Markdown)."""
    typer.echo(reference_page(), nl=False)


@app.command()
def doctor(json: Json = False) -> None:
    """Examine the tools on this machine; exit code 5 if a needed one is missing."""
    findings = examine()
    if json:
        typer.echo(dumps(findings_json(findings), indent=2))
    else:
        Console().print(findings_table(findings))
    raise typer.Exit(exit_code(findings))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (``sys.argv`` by default) and return the exit code; errors become one line on stderr."""
    for name in EXTENSIONS:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name).register(app)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="tercel")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else FAILED if ended.code else 0
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except ToolError as error:
        return _fail(error, TOOL_MISSING)
    except SimulationError as error:
        return _fail(error, FAILED)
    except (ConfigError, LayerError, ProgramError, AssemblyError, IsaError, UsageError, OSError) as error:
        return _fail(error, USAGE)
    return 0


def _fail(error: object, code: int) -> int:
    print(f"tercel: {error}", file=sys.stderr)
    return code
