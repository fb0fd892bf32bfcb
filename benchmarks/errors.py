"""A benchmark as a command: errors as one line, exit codes as those of ``tercel``."""

from collections.abc import Callable, Sequence

import typer

from tercel.sim.cli import run_app


def command(function: Callable[..., None], arguments: Sequence[str] | None = None) -> int:
    """Run ``function`` with the options of a command line (``sys.argv`` by default) and return the exit code."""
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return run_app(app, arguments, name=function.__module__)
