"""Layers that the machine cannot run, collected into one error."""

from collections.abc import Sequence


class FitError(ValueError):
    """Layers that do not fit the machine. The message names each with the limit, the value and a way out; exit code 4.

    Attributes
    ----------
    problems
        One line a layer: its name, a colon and what is wrong.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = self.problems if len(self.problems) == 1 else (f"{len(self.problems)} layers do not fit", *self.problems)
        super().__init__("\n  ".join(lines))
