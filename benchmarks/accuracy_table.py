"""Tables of accuracies: widths from the command line, bars while rows are measured, cells as text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from tercel.sim.parse import UsageError


def weight_widths(text: str) -> list[int]:
    """Whole numbers with commas; :class:`UsageError` for anything else."""
    widths = text.split(",")
    if not all(width.isdecimal() for width in widths):
        raise UsageError(f"bits must be whole numbers with commas, not {text!r} (for example 8,6,4,2)")
    return [int(width) for width in widths]


def row_bars() -> Bars:
    """Bars on stderr with the time left; one for each row, see :func:`bar`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Bars(*columns, console=Console(stderr=True))


@contextmanager
def bar(bars: Bars, name: str) -> Iterator["_Step"]:
    """A bar for one row, to be called with the step's name, what is done of it and the whole."""
    step = _Step(bars, name)
    yield step
    bars.remove_task(step.task)


class _Step:
    """One bar that shows the steps of one row after each other."""

    def __init__(self, bars: Bars, name: str) -> None:
        self.bars, self.name, self.what = bars, name, ""
        self.task = bars.add_task(name, total=None)

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self.what:
            self.what = what
            self.bars.reset(self.task, description=f"{self.name}: {what}")
        self.bars.update(self.task, completed=done, total=total or None)


def share(part: int, whole: int) -> str:
    """A count with its share in per cent, empty for a part of nothing."""
    return f"{part}/{whole} = {100 * part / whole:.2f} %" if whole else ""


def markdown_line(texts: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(texts) + " |"
