"""The variables that decide how a layer's weights are rounded.

A weight may go to one of two codes next to each other, ``below`` and ``below + 1``: a variable ``V`` puts it at
``scale * (below + h(V))`` with the rectified sigmoid ``h(V) = clip(1.2 * sigmoid(V) - 0.1, 0, 1)`` (AdaRound, Nagel et al.,
arXiv 2004.10568).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from tercel.sw.quantize.prepared_graph import WeightedLayer
from tercel.sw.quantize.weight_scales import BIAS_LIMIT

_LOW, _HIGH = -0.1, 1.1
_EDGE = 0.01
"""Where ``h`` starts at least, and at most one minus it: at 0 and 1 it has no slope."""

_PULL = 0.8
"""How far ``h`` starts from the weight's own place towards the code that it was given."""


def rectified_sigmoid(variables: Tensor) -> Tensor:
    """``h``."""
    return torch.clamp(torch.sigmoid(variables) * (_HIGH - _LOW) + _LOW, 0, 1)


class RoundingVariables:
    """Variables of one layer.

    The two codes of a weight are the one that it has been given (by compensated rounding) and the next one on the side of the weight
    itself; ``h`` starts between the given code and the weight.

    Parameters
    ----------
    layer
        Its weights are on their grid, its bias is corrected.
    weight
        What was rounded to them.

    Attributes
    ----------
    variables
        ``V``, of the weights' shape.
    shifts
        What is added to each bias, in units of what the rounding of weights adds to an output, roughly; starts at 0.
    """

    def __init__(self, layer: WeightedLayer, weight: Tensor) -> None:
        self._layer = layer
        limit = layer.weight_observer.quant_max
        self._scales = layer.weight_observer.calculate_qparams()[0].reshape(-1, *[1] * (weight.dim() - 1))
        ratio = weight / self._scales
        code = torch.round(layer.weight / self._scales)
        self._below = torch.clamp(torch.where(code < ratio, code, code - 1), -limit, limit - 1)
        own = torch.clamp(ratio - self._below, 0, 1)
        start = torch.clamp(own + _PULL * (code - self._below - own), _EDGE, 1 - _EDGE)
        self.variables = torch.logit((start - _LOW) / (_HIGH - _LOW)).requires_grad_()
        self._bias = layer.bias.clone()
        self._unit = 10 * layer.bias_scales * math.sqrt(weight[0].numel())
        self.shifts = torch.zeros_like(self._bias).requires_grad_()
        self._nearest = (own >= 0.5).to(torch.float32)
        self._own = own

    def _replaced(self, h: Tensor, bias: Tensor) -> dict[Node, Tensor]:
        rounded = (self._below + h) * self._scales
        return {self._layer.rounding_node: rounded, self._layer.node.args[2]: bias}  # type: ignore[dict-item]

    def _new_bias(self) -> Tensor:
        wanted = self._bias + self.shifts * self._unit
        return torch.where((wanted / self._layer.bias_scales).abs() < BIAS_LIMIT, wanted, self._bias)

    def soft(self) -> dict[Node, Tensor]:
        """Weights and bias as the variables stand, for the nodes that hold them; differentiable."""
        return self._replaced(rectified_sigmoid(self.variables), self._new_bias())

    def rounded(self) -> dict[Node, Tensor]:
        """Weights at the codes that their variables lean to, and bias as the variables stand."""
        return self._replaced((rectified_sigmoid(self.variables) >= 0.5).to(torch.float32), self._new_bias())

    def nearest(self) -> dict[Node, Tensor]:
        """Weights at the nearer of their two codes, and the bias as it was."""
        return self._replaced(self._nearest, self._bias)

    def unrounded(self) -> dict[Node, Tensor]:
        """Weights where they were, or at the nearer end of what they may become, and the bias as it was."""
        return self._replaced(self._own, self._bias)

    def undecided(self, beta: float) -> Tensor:
        """The regulariser ``1 - |2 h - 1| ** beta``, summed over all weights."""
        return (1 - (2 * rectified_sigmoid(self.variables) - 1).abs().pow(beta)).sum()

    @torch.no_grad()
    def commit(self) -> None:
        """Put the weights at the codes that their variables lean to, and the bias in its place."""
        self._layer.replace_weight(self.rounded()[self._layer.rounding_node].contiguous())
        self._layer.replace_bias(self._new_bias())


def replaced(layers: Sequence[RoundingVariables], values: Callable[[RoundingVariables], Mapping[Node, Tensor]]) -> dict[Node, Tensor]:
    """The weights and biases of all layers, in one of the forms that :class:`RoundingVariables` has for them."""
    return {node: value for layer in layers for node, value in values(layer).items()}
