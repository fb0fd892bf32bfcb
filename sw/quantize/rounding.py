"""Rounding a network's weights to their grid, in one of several ways."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor
from torch.fx import GraphModule

from tercel.sw.quantize.calibration import KEPT_IMAGES
from tercel.sw.quantize.grid_choice import round_on_best_grids
from tercel.sw.quantize.layer_by_layer import Rounder, finish_layers
from tercel.sw.quantize.reconstruction import LEARNING_IMAGES, learn_rounding
from tercel.sw.quantize.roundings import Rounding
from tercel.sw.quantize.weight_scales import round_by_scheme, round_each_by_scheme


def images_to_keep(rounding: Rounding) -> int:
    """Calibration images that a way of rounding looks at."""
    return LEARNING_IMAGES if rounding == "learned" else KEPT_IMAGES


def round_network(
    graph_module: GraphModule,
    images: Sequence[Tensor],
    *,
    rounding: Rounding,
    steps: int,
    checkpoint: Path | None,
    bias_correction: bool,
    report: Callable[[str], Callable[[int, int], None]],
) -> None:
    """Round all weights and correct the biases; the weights' scales must be chosen.

    Parameters
    ----------
    graph_module
        A calibrated graph; its weights and biases are replaced.
    images
        Inputs of the graph, each of batch size 1: as many as :func:`images_to_keep` says.
    rounding, steps, checkpoint, bias_correction
        See :func:`tercel.sw.quantize.quantize`.
    report
        Makes the progress function of a step by its name.
    """
    if rounding == "learned":
        learn_rounding(graph_module, images, steps=steps, checkpoint=checkpoint, progress=report("learn rounding"))
    elif rounding == "nearest" and not bias_correction:
        round_each_by_scheme(graph_module)
    if rounding == "compensated" or bias_correction:
        rounders: dict[Rounding, Rounder | None] = {
            "nearest": lambda layer, *_: round_by_scheme(layer),
            "compensated": lambda *found: round_on_best_grids(*found, mean_counts=not bias_correction).on_grid,
            "learned": None,
        }
        finish_layers(
            graph_module,
            images[:KEPT_IMAGES],
            rounder=rounders[rounding],
            bias_correction=bias_correction,
            progress=report("correct biases" if rounding == "learned" else "round weights"),
        )
