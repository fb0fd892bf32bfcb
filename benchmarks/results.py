"""Rows of the accuracy tables: what was measured, and everything that it depends on."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import tercel.hw
import tercel.sw
from benchmarks.row_file import JsonRows

_ARITHMETIC = ("graph", "importer", "quantize", "zoo", "images.py", "image_format.py", "numeric.py", "layer_spec.py")
"""Parts of ``sw`` that a row's figure depends on."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Everything that a row's figure depends on.

    ``scheme`` is ``float`` for the network as it was trained; then ``bits`` is 0 and ``rounding`` empty. ``calibration`` is empty for
    quantization without images. ``wide`` has the names of layers that stay at 8 bits, with spaces between them.
    """

    network: str
    weights: str
    images: str
    calibration: str
    scheme: str
    bits: int
    bias_correction: bool
    rounding: str
    config: str
    config_hash: int
    code: str
    equalization: bool = False
    wide: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A finished measurement.

    Attributes
    ----------
    predictions, labels
        Class of the largest output, the first of equals, and the right one, for each image.
    sources
        Where each image comes from.
    ties
        Images whose largest output code is shared by several classes.
    quantize_seconds, run_seconds
        Wall time.
    warnings
        Of the importer.
    signal_to_noise
        Of the outputs against the float network's, in dB; None where it was not measured.
    """

    identity: Identity
    predictions: tuple[int, ...]
    labels: tuple[int, ...]
    sources: tuple[str, ...]
    ties: int
    quantize_seconds: float
    run_seconds: float
    warnings: tuple[str, ...] = ()
    signal_to_noise: float | None = None

    def correct(self, source: str | None = None) -> tuple[int, int]:
        """Right predictions and images, of one source or all."""
        chosen = [
            predicted == label
            for predicted, label, where in zip(self.predictions, self.labels, self.sources, strict=True)
            if source in (None, where)
        ]
        return sum(chosen), len(chosen)

    def agreeing(self, other: "Row") -> tuple[int, int]:
        """Images that both rows predict the same class for, and images."""
        return sum(one == two for one, two in zip(self.predictions, other.predictions, strict=True)), len(self.predictions)


class RowFile(JsonRows[Identity, Row]):
    """Rows of one table, and room for what is under way of one of them."""

    @staticmethod
    def read(values: dict[str, Any]) -> Row:
        """See :meth:`~benchmarks.row_file.JsonRows.read`."""
        return _row(values)

    def scratch(self, identity: Identity) -> Path:
        """A folder beside the file for what is under way of one row."""
        name = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
        return self.path.with_suffix("") / name


@cache
def code_identity(parts: tuple[str, ...] = _ARITHMETIC) -> str:
    """A digest of the sources that make a row's figure: a row that other code measured is measured again.

    ``parts`` are files and folders of ``sw``.
    """
    root = Path(tercel.sw.__path__[0])
    files = [Path(tercel.hw.__path__[0]) / "config.py"]
    for name in parts:
        place = root / name
        files += sorted(place.rglob("*.py")) if place.is_dir() else [place]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def file_identity(path: Path) -> str:
    """A digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _row(values: dict[str, Any]) -> Row:
    identity = Identity(**values.pop("identity"))
    others: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Row(identity=identity, **others)
