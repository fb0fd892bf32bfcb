"""Keeping, of a block's roundings under way, the one that does best on images that nothing is learned from.

A few hundred images leave room for roundings that fit them by chance; every fourth image is held out to notice.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule

from tercel.sw.quantize.block_run import Values, run_block
from tercel.sw.quantize.blocks import Block
from tercel.sw.quantize.rounding_variables import RoundingVariables, replaced

_SHARE = 4
"""One image of so many is held out. A mirror image a multiple of this behind its image is on the same side as that."""

_IMAGES_AT_ONCE = 8


def learned_from(values: Values) -> Values:
    """Of each tensor the images that are not held out."""
    return {node: value[~_held_out(len(value))] for node, value in values.items()}


def _held_out(images: int) -> Tensor:
    return torch.arange(images) % _SHARE == _SHARE - 1


def squared_errors(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean squared error of each output of a block."""
    return torch.stack([(output - target).square().mean() for output, target in zip(outputs, targets, strict=True)])


class EarlyStopping:
    """Looks at a block's rounding from time to time and remembers the best.

    Parameters
    ----------
    graph_module, block, layers
        The block and the variables of its layers; how they stand now is looked at first.
    real, quantized
        The block's inputs in the float network and in the quantized one, and its outputs in the float network, of all images. With fewer
        than four images none is held out, and the last rounding counts as the best.
    """

    def __init__(
        self, graph_module: GraphModule, block: Block, layers: Sequence[RoundingVariables], *, real: Values, quantized: Values
    ) -> None:
        self._graph_module, self._block, self._layers = graph_module, block, layers
        self._targets = [real[node][_held_out(len(real[node]))] for node in block.outputs]
        self._inputs = {node: quantized[node][_held_out(len(quantized[node]))] for node in block.inputs}
        self._least = math.inf
        self.look()

    def _error(self) -> float:
        rounded = replaced(self._layers, RoundingVariables.rounded)
        total = 0.0
        for start in range(0, len(self._targets[0]), _IMAGES_AT_ONCE):
            some = {node: value[start : start + _IMAGES_AT_ONCE] for node, value in self._inputs.items()}
            outputs = run_block(self._graph_module, self._block, some, replaced=rounded, real=False)
            targets = [target[start : start + _IMAGES_AT_ONCE] for target in self._targets]
            total += float(squared_errors(outputs, targets).sum()) * len(outputs[0])
        return total

    @torch.no_grad()
    def look(self) -> None:
        """Remember the rounding as it stands if it is better than all before."""
        error = self._error()
        if error < self._least or not len(self._targets[0]):
            self._least = error
            self._best = [(layer.variables.detach().clone(), layer.shifts.detach().clone()) for layer in self._layers]

    @torch.no_grad()
    def restore(self) -> None:
        """Give the variables what they were at the best."""
        for layer, (variables, shifts) in zip(self._layers, self._best, strict=True):
            layer.variables.copy_(variables)
            layer.shifts.copy_(shifts)
