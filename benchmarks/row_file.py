"""Finished rows of a table in a file of JSON lines, so that a long measurement goes on where it stopped."""

import json
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

IdentityT = TypeVar("IdentityT", bound=Hashable)
RowT = TypeVar("RowT")


class JsonRows(ABC, Generic[IdentityT, RowT]):
    """Rows (dataclasses with an ``identity``) by identity, appended to a file as they are finished.

    Lines that were cut short or that another version wrote are passed over: their rows are measured again.

    Parameters
    ----------
    path
        Of the file; made with the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[IdentityT, RowT] = {}
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                self._keep(self.read(json.loads(line)))
            except (ValueError, TypeError, KeyError, AttributeError):
                continue

    @staticmethod
    @abstractmethod
    def read(values: dict[str, Any]) -> Any:
        """The row of a line."""

    def add(self, row: RowT) -> None:
        """Keep a row, in the file at once."""
        self._keep(row)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")  # type: ignore[call-overload]

    def _keep(self, row: RowT) -> None:
        self.rows[row.identity] = row  # type: ignore[attr-defined]
