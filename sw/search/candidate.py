"""What a search finds: assignments of widths with their costs and errors."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Measure = Literal["cycles", "weight_bytes"]


class SearchError(ValueError):
    """A search that cannot be done as asked. The message names the argument, the limit, the value and a way out."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A width for each layer with weights, by module path.

    Attributes
    ----------
    bits
        What ``bits`` of :func:`tercel.sw.quantize.quantize` takes.
    cycles
        Of one image, by the cycle model, after the network was quantized and compiled with these widths.
    weight_bytes
        Of all weights in memory.
    predicted_error
        Noise-to-signal ratio of the outputs, the sum of what each layer alone leaves.
    accuracy
        What ``evaluate`` made of the integers; None where nothing was evaluated.
    """

    bits: Mapping[str, int]
    cycles: int
    weight_bytes: int
    predicted_error: float
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A way from wide to narrow weights.

    Attributes
    ----------
    measure
        What the steps save.
    sensitivities
        For each layer and width the noise-to-signal ratio that it alone leaves in the outputs.
    front
        Points on the way, from the widest on to where the predicted noise is as large as the signal.
    chosen
        The first that keeps the budget; None without one.
    """

    config: str
    measure: Measure
    sensitivities: Mapping[str, Mapping[int, float]] = field(repr=False)
    front: tuple[Candidate, ...]
    chosen: Candidate | None

    def as_json(self) -> dict[str, Any]:
        """The result for a script."""
        return {
            "config": self.config,
            "measure": self.measure,
            "front": [asdict(candidate) for candidate in self.front],
            "chosen": None if self.chosen is None else asdict(self.chosen),
            "sensitivities": {layer: dict(errors) for layer, errors in self.sensitivities.items()},
        }
