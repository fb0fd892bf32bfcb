"""What became of each operator of a network, and the error that lists all those that cannot run."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tercel.sw.importer.capture import Operation

Verdict = Literal["placed", "fused", "host", "rejected"]
_LIMIT = re.compile(r"^(?:.+: )?(?P<argument>.+?) must be (?P<limit>.+?), not (?P<value>.+?) \((?P<way_out>.+)\)$", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class OperatorReport:
    """One operator of the captured graph.

    Parameters
    ----------
    name
        The module's path with what it does (``features.3.conv.0.0``, ``features.3.add``).
    operator
        ``aten.conv2d.default``.
    verdict
        ``placed``: a layer of its own. ``fused``: inside another layer, or without work. ``host``: on the host. ``rejected``.
    reason
        The layer that it went into, or why it is rejected.
    limit, value, way_out
        Of a rejected one: what would be accepted, what was found, and what to do.
    source
        File and line in the user's model.
    """

    name: str
    operator: str
    verdict: Verdict
    reason: str
    limit: str = ""
    value: str = ""
    way_out: str = ""
    source: str = ""

    def __str__(self) -> str:
        place = f" at {self.source}" if self.source else ""
        if self.verdict != "rejected":
            return f"{self.name}: {self.operator} {self.verdict}, {self.reason}{place}"
        return f"{self.name}: {self.operator}{place}: {self.reason} must be {self.limit}, not {self.value} ({self.way_out})"


class UnsupportedError(ValueError):
    """A network with operators that cannot run. ``operators`` holds all of them, the message has a line for each."""

    exit_code = 3

    def __init__(self, operators: Sequence[OperatorReport]) -> None:
        self.operators = tuple(operators)
        count = len(self.operators)
        heading = f"{count} operator{'' if count == 1 else 's'} of the network cannot run:"
        super().__init__("\n".join([heading, *(f"  {operator}" for operator in self.operators)]))


class Rejection(Exception):
    """An operator that cannot run, on its way to the report; it never leaves this package.

    ``operation`` is the one at fault, None until it is known.
    """

    operation: "Operation | None" = None

    def __init__(self, argument: str, limit: str, value: object, way_out: str) -> None:
        super().__init__(f"{argument} must be {limit}, not {value} ({way_out})")
        self.argument, self.limit, self.value, self.way_out = argument, limit, str(value), way_out

    @classmethod
    def of(cls, error: Exception) -> "Rejection":
        """From a layer's or graph's error, whose texts have the same four parts."""
        parts = _LIMIT.match(str(error))
        if parts is None:
            return cls("layer", "one that the machine runs", str(error), "change the layer")
        return cls(parts["argument"], parts["limit"], parts["value"], parts["way_out"])


class Follows(Rejection):
    """An operator that could run, but reads the result of a rejected one; reported, but no fault of its own."""

    def __init__(self, name: str) -> None:
        super().__init__("input", "the result of an operator that runs", f"that of {name}, which is rejected", "change that one first")
