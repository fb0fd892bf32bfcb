"""Where results are printed."""

import sys

from rich.console import Console

_WIDE = 200


def results() -> Console:
    """Stdout; wide where it is a file or a pipe, so that tables keep one line a row."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDE)
