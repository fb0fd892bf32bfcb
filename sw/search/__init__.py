"""Mixed precision: weight bits for each layer within a budget of cycles or bytes.

Importing the package does not import torch; :func:`search` does, when it is called.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from tercel.hw.config import BASE, Config
from tercel.sw.search.candidate import Candidate, SearchError, SearchResult

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tercel.sw.graph.integer_graph import IntegerGraph
    from tercel.sw.quantize import Scheme

__all__ = ["Candidate", "SearchError", "SearchResult", "search"]

WIDTHS = (2, 4, 6, 8)
"""Widths that cost the machine 1, 2, 3 and 4 passes; 3, 5 and 7 bits cost as much as the next even width."""


def search(
    model: "nn.Module",
    *,
    calibration: "Iterable[Tensor]",
    config: Config = BASE,
    scheme: "str | Scheme" = "shift8",
    widths: Sequence[int] = WIDTHS,
    max_cycles: int | None = None,
    max_weight_bytes: int | None = None,
    points: int = 8,
    images: int = 16,
    evaluate: "Callable[[IntegerGraph], float] | None" = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> SearchResult:
    """Choose weight bits for each layer.

    Each layer is measured at each width: the error that it alone leaves in the network's outputs on calibration images
    (:mod:`~tercel.sw.search.sensitivity`), and the cycles that it takes on the machine (:mod:`~tercel.sw.search.cost`). From the widest
    weights everywhere, the step that loses least for what it saves comes first (:mod:`~tercel.sw.search.front`). Points on the way are
    quantized and compiled in earnest; their cycles are those of the whole compiled program.

    Parameters
    ----------
    model, calibration, scheme
        As for :func:`tercel.sw.quantize.quantize`; the calibration images stay in memory.
    config
        The machine whose cycles count.
    widths
        Weight bits to choose from, each in 2..8.
    max_cycles, max_weight_bytes
        Budget for one image and for all weights; the first point on the way that keeps both is ``chosen``. With a budget of bytes alone the
        steps save bytes, otherwise cycles.
    points
        Points of the front, at most, besides the chosen one; each is a quantization and a compilation.
    images
        Images that sensitivities are measured on, 2..32; all their activations are in memory at once.
    evaluate
        Accuracy of an integer graph, for the front; None leaves it out.
    progress
        Called with the steps done, their total (0 where it is unknown), and what they are.

    Raises
    ------
    SearchError
        For arguments out of range, and for a budget that not even the narrowest weights keep.
    QuantizeError, UnsupportedError, FitError
        As quantization, import and compilation raise them.
    """
    top = 2 if config.digit_set == "ternary" else 8
    if not widths or any(not 2 <= width <= top for width in widths):
        raise SearchError(f"widths must be whole numbers in 2..{top} on config {config.name}, not {list(widths)} (for example 2, 4, 6, 8)")
    limits = {"points": (points, 1), "images": (images, 2), "max_cycles": (max_cycles, 1), "max_weight_bytes": (max_weight_bytes, 1)}
    for name, (value, least) in limits.items():
        if value is not None and value < least:
            raise SearchError(f"{name} must be at least {least}, not {value} (see tercel search --help)")
    from tercel.sw.search.mixed_precision import search_widths

    return search_widths(
        model,
        calibration=calibration,
        config=config,
        scheme=scheme,
        widths=sorted(set(widths)),
        max_cycles=max_cycles,
        max_weight_bytes=max_weight_bytes,
        points=points,
        images=images,
        evaluate=evaluate,
        progress=lambda done, whole, what: None if progress is None else progress(done, whole, what),
    )
