"""What became of each operator of a network, for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tercel.sw.importer import OperatorReport

VERDICTS = ("placed", "fused", "host", "rejected")
_PLUMBING = ("quantized_decomposed.", "torchao.")
_STYLES = {"rejected": "bold red", "host": "yellow"}


def why(operator: "OperatorReport") -> str:
    """The layer that an operator went into; of a rejected one the limit, the value and the way out."""
    if operator.verdict != "rejected":
        return operator.reason
    return f"{operator.reason} must be {operator.limit}, not {operator.value} ({operator.way_out})"


def shown(operators: "Sequence[OperatorReport]") -> "list[OperatorReport]":
    """The operators that a reader looks for: all but the quantize and dequantize ops that are where they belong."""
    return [operator for operator in operators if operator.verdict == "rejected" or not operator.operator.startswith(_PLUMBING)]


def operator_table(operators: "Sequence[OperatorReport]", *, title: str, everything: bool = False) -> Table:
    """One line an operator, and how many there are of each verdict."""
    table = Table(title=title)
    for heading in ("name", "operator", "verdict", "reason", "source"):
        table.add_column(heading, overflow="fold")
    operators = operators if everything else shown(operators)
    for operator in operators:
        short = operator.operator.removeprefix("aten.").removesuffix(".default")
        cells = (operator.name, short, operator.verdict, why(operator), operator.source)
        table.add_row(*(Text(cell) for cell in cells), style=_STYLES.get(operator.verdict))
    counts = {verdict: sum(operator.verdict == verdict for operator in operators) for verdict in VERDICTS}
    table.caption = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return table
