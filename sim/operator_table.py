"""What became of each operator of a network, for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tercel.sw.importer import OperatorReport

VERDICTS = ("placed", "fused", "host", "rejected")
_STYLES = {"rejected": "bold red", "host": "yellow"}


def why(operator: "OperatorReport") -> str:
    """The layer that an operator went into; of a rejected one the limit, the value and the way out."""
    if operator.verdict != "rejected":
        return operator.reason
    return f"{operator.reason} must be {operator.limit}, not {operator.value} ({operator.way_out})"


def operator_table(operators: "Sequence[OperatorReport]", *, title: str) -> Table:
    """One line an operator, and how many there are of each verdict."""
    table = Table("name", "operator", "verdict", "reason", "source", title=title)
    for operator in operators:
        cells = (operator.name, operator.operator, operator.verdict, why(operator), operator.source)
        table.add_row(*(Text(cell) for cell in cells), style=_STYLES.get(operator.verdict))
    counts = {verdict: sum(operator.verdict == verdict for operator in operators) for verdict in VERDICTS}
    table.caption = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return table
