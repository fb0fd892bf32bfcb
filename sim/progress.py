"""Progress bars on stderr, for everything that takes more than a second."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tercel.sim.execution import Progress as Notify


@contextmanager
def progress_bars() -> Iterator[Notify]:
    """A function that shows ``(what, done, whole)`` as one bar for each ``what``, with the time left; without a whole as running time."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {}

        def notify(what: str, done: int, whole: int) -> None:
            if what not in tasks:
                for task in bars.tasks:
                    if task.total is None:  # a step of unknown length ends when the next begins
                        bars.update(task.id, total=1, completed=1)
                tasks[what] = bars.add_task(what, total=whole or None)
            bars.update(tasks[what], completed=done, total=whole or None)

        yield notify
