"""The command line.

Exit codes: 0 done, 1 a comparison failed, 2 wrong usage or input, 3 the machine lacks an operator, 4 the network does not fit the machine,
5 a tool is missing or failed, 6 a run ended with a fault or a board does not answer, 70 an error in Tercel itself.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tercel.sim import layer_cli
from tercel.sim.compile_cli import compile_command, explain_command
from tercel.sim.demo_cli import demo_command
from tercel.sim.doctor import examine, exit_code, findings_json, findings_table
from tercel.sim.parse import UsageError
from tercel.sim.quantize_cli import quantize_command, schemes_command
from tercel.sim.report_cli import report_command
from tercel.sim.run_cli import compare_command, run_command
from tercel.sim.search_cli import search_command
from tercel.sim.simulation_speed import speed_command
from tercel.sim.utilization import utilization
from tercel.sim.verify_cli import verify_command
from tercel.sw.assembly import disassemble
from tercel.sw.program import Program
from tercel.sw.reference_page import reference_page

FAILED, USAGE, INTERNAL, INTERRUPTED = 1, 2, 70, 130

EXIT_CODES = {"SimulationError": FAILED, "UnsupportedError": 3, "FitError": 4, "ToolError": 5, "DeviceError": 6, "LinkError": 6}
"""Of our own kinds of errors by class name; all others mean wrong usage or input."""

TRACEBACK = "TERCEL_TRACEBACK"
"""Environment variable that lets errors in Tercel itself through with their traceback."""

EXTENSIONS = ("tercel.boards.commands",)
"""Modules further out that add commands of their own with ``register(app)``, where they exist."""

app = typer.Typer(help="Tercel: a low-bit NPU, its simulators and tools.", no_args_is_help=True, add_completion=False)
app.command("demo")(demo_command)
app.command("quantize")(quantize_command)
app.command("schemes")(schemes_command)
app.command("search")(search_command)
app.command("explain")(explain_command)
app.command("compile")(compile_command)
app.command("run")(run_command)
app.command("compare")(compare_command)
app.command("report")(report_command)
app.add_typer(layer_cli.app, name="layer", no_args_is_help=True)
app.command("verify")(verify_command)
app.command()(utilization)
app.command("speed")(speed_command)

Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def disasm(
    program: Annotated[Path, typer.Argument(help="a .tnpu file")],
    *,
    layers: Annotated[str | None, typer.Option(help="only those of layers whose names match, for example 'features.3*'")] = None,
) -> None:
    """Print a program's instructions as assembly text, operators on the host as comments. Example: tercel disasm layer.tnpu."""
    loaded = Program.load(program)
    lines = disassemble(loaded.words).splitlines(keepends=True)
    if layers is not None:
        marks = [mark for mark in loaded.marks if fnmatchcase(mark.name, layers)]
        if not marks:
            names = ", ".join(mark.name for mark in loaded.marks[:4])
            raise UsageError(f"layers must match a layer of the program, not {layers!r} (the first are {names})")
        lines = [lines[index] for index in sorted(index for mark in marks for index in mark.indices())]
    else:
        before, after = (() if host is None else host.operators for host in (loaded.host_head, loaded.host_tail))
        lines = [*(f"# host: {operator}\n" for operator in before), *lines, *(f"# host: {operator}\n" for operator in after)]
    typer.echo("".join(lines), nl=False)


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
    return run_app(app, arguments, name="tercel")


def run_app(commands: typer.Typer, arguments: Sequence[str] | None, *, name: str) -> int:
    """Run a command line of ``commands`` called ``name`` and return the exit code; errors become one line on stderr."""
    try:
        commands(args=None if arguments is None else list(arguments), prog_name=name)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else FAILED if ended.code else 0
    except KeyboardInterrupt:
        return _fail(name, "interrupted", INTERRUPTED)
    except OSError as error:
        return _fail(name, error, USAGE)
    except Exception as error:
        if not type(error).__module__.startswith("tercel."):
            if os.environ.get(TRACEBACK):
                raise
            own = f"error in Tercel itself: {type(error).__name__}: {error} ({TRACEBACK}=1 shows where; please report it)"
            return _fail(name, own, INTERNAL)
        code = next((EXIT_CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in EXIT_CODES), USAGE)
        return _fail(name, error, code)
    return 0


def _fail(name: str, error: object, code: int) -> int:
    print(f"{name}: {error}", file=sys.stderr)
    return code
