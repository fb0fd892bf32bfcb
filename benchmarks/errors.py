"""A benchmark as a command: errors as one line, exit codes as those of ``tercel``."""

import sys
from collections.abc import Callable, Sequence

import typer

from tercel.sim.cli import EXIT_CODES, FAILED, INTERRUPTED, USAGE


def command(function: Callable[..., None], arguments: Sequence[str] | None = None) -> int:
    """Run ``function`` with the options of a command line (``sys.argv`` by default) and return the exit code."""
    app = typer.Typer(add_completion=False)
    app.command()(function)
    try:
        app(args=None if arguments is None else list(arguments))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else FAILED if ended.code else 0
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except OSError as error:
        return _fail(error, USAGE)
    except Exception as error:
        if not type(error).__module__.startswith("tercel."):
            raise
        return _fail(error, next((EXIT_CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in EXIT_CODES), USAGE))
    return 0


def _fail(error: object, code: int) -> int:
    print(error, file=sys.stderr)
    return code
