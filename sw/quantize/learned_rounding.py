"""Learning the rounding of a block's weights on what the block computes.

Gradient descent on the :mod:`variables <tercel.sw.quantize.rounding_variables>` of all the block's layers together makes the squared
error of the block's outputs small, for inputs as the quantized network delivers them and with activations on their codes. A regulariser
``1 - |2 h - 1| ** beta``, whose ``beta`` falls from 20 to 2, drives every ``h`` to 0 or 1 (AdaRound, Nagel et al., arXiv 2004.10568; on
blocks: BRECQ, Li et al., arXiv 2102.05426). Biases are learned beside the weights. It starts from compensated rounding, and ends with the
best rounding on the way by :mod:`held-out images <tercel.sw.quantize.early_stopping>`; this may be the first one.

Errors are measured in units of what rounding to the nearest codes adds, times the number of weights: a weight's share in them is of
order one, and so is its regulariser, whatever the layer.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from tercel.sw.quantize.block_run import Values, run_block
from tercel.sw.quantize.block_samples import BlockSamples
from tercel.sw.quantize.blocks import Block
from tercel.sw.quantize.calibration import KEPT_IMAGES
from tercel.sw.quantize.early_stopping import EarlyStopping, learned_from, squared_errors
from tercel.sw.quantize.grid_choice import round_on_best_grids
from tercel.sw.quantize.layer_by_layer import finish_nodes
from tercel.sw.quantize.prepared_graph import WeightedLayer
from tercel.sw.quantize.rounding_variables import RoundingVariables, replaced

_REACH = 15.0
"""How far a variable can go in all steps together; from one code to the other are about 5."""

_FASTEST = 0.1
_BIAS_RATE = 1 / 3
"""Of biases, in units of the variables' rate."""

_REGULARISER = 10.0
_FREE = 0.2
"""Share of the steps, at the start, without the regulariser."""

_FIRST_BETA, _LAST_BETA = 20.0, 2.0

_LOOKS = 10
"""How often held-out images are looked at on the way."""


def _start(graph_module: GraphModule, block: Block, real: Values, quantized: Values) -> list[RoundingVariables]:
    """Round the block's layers so that their errors cancel, and take the codes around that."""
    aims: dict[Node, Tensor] = {}

    def rounder(layer: WeightedLayer, images: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        rounded = round_on_best_grids(layer, images, wanted, mean_counts=False)
        aims[layer.node] = rounded.aimed_at
        return rounded.on_grid

    def some(values: Values) -> dict[Node, Sequence[Tensor]]:
        return {node: [image.contiguous() for image in values[node][:KEPT_IMAGES]] for node in block.inputs}

    finish_nodes(
        graph_module,
        block.with_constants,
        real=some(real),
        quantized=some(quantized),
        rounder=rounder,
        bias_correction=True,
        progress=lambda done, total: None,
    )
    return [RoundingVariables(layer, aims[layer.node]) for layer in block.layers]


def _beta(part: float) -> float:
    """From the first to the last along half a cosine."""
    return _LAST_BETA + (_FIRST_BETA - _LAST_BETA) * (1 + math.cos(math.pi * part)) / 2


def learn_block(
    graph_module: GraphModule,
    block: Block,
    *,
    real: Values,
    quantized: Values,
    steps: int,
    seed: int,
    progress: Callable[[int], None],
) -> None:
    """Round the weights of a block and fit its biases.

    Parameters
    ----------
    graph_module, block
        A graph whose weight scales are chosen, and a block of it; the block's weights and biases are replaced, and with few bits its
        scales.
    real, quantized
        The block's inputs in the float network and in the quantized one, and its outputs in the float network.
    steps
        Of gradient descent.
    seed
        Of the order of the images.
    progress
        Called with the number of steps done.
    """
    layers = _start(graph_module, block, real, quantized)
    stopping = EarlyStopping(graph_module, block, layers, real=real, quantized=quantized)
    samples = BlockSamples(graph_module, block, real=learned_from(real), quantized=learned_from(quantized), seed=seed)
    inputs, targets = samples.draw()

    def errors(values: Callable[[RoundingVariables], Mapping[Node, Tensor]]) -> Tensor:
        return squared_errors(run_block(graph_module, block, inputs, replaced=replaced(layers, values), real=False), targets)

    with torch.no_grad():
        nearest = errors(RoundingVariables.nearest)
        unit = torch.clamp(nearest - errors(RoundingVariables.unrounded), min=1e-2 * nearest).clamp(min=1e-30)
    weight_count = sum(layer.variables.numel() for layer in layers)
    rate = min(_REACH / steps, _FASTEST)
    optimizer = torch.optim.Adam(
        [
            {"params": [layer.variables for layer in layers], "lr": rate},
            {"params": [layer.shifts for layer in layers], "lr": rate * _BIAS_RATE},
        ]
    )
    free = int(_FREE * steps)
    for step in range(steps):
        loss = weight_count * (errors(RoundingVariables.soft) / unit).sum()
        if step >= free:
            beta = _beta((step - free) / (steps - free))
            loss = loss + _REGULARISER * torch.stack([layer.undecided(beta) for layer in layers]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        inputs, targets = samples.draw()
        if (step + 1) % math.ceil(steps / _LOOKS) == 0 or step + 1 == steps:
            stopping.look()
        progress(step + 1)
    stopping.restore()
    for layer in layers:
        layer.commit()
