"""The ways of rounding weights by name."""

from pathlib import Path
from typing import Literal, get_args

from tercel.sw.quantize.errors import QuantizeError

Rounding = Literal["nearest", "compensated", "learned"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)


def check_rounding(rounding: str, *, steps: int, checkpoint: Path | None) -> None:
    """Raises :class:`~tercel.sw.quantize.errors.QuantizeError` for arguments out of range, and a checkpoint that would not be used."""
    if rounding not in ROUNDINGS:
        raise QuantizeError(f"rounding must be one of {', '.join(ROUNDINGS)}, not {rounding!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise QuantizeError(f"rounding_steps must be a whole number of 1 or more, not {steps!r} (a few hundred do)")
    if checkpoint is not None and rounding != "learned":
        raise QuantizeError(f"checkpoint must be left out with rounding {rounding!r}, which is soon done (or choose 'learned')")
