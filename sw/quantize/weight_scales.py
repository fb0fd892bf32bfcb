"""Fix the scales of all weights, once the activations' are known, and round weights to them one by one."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule

from tercel.sw.quantize.prepared_graph import WeightedLayer, weighted_layers

BIAS_LIMIT = 1 << 30
"""Magnitude that a bias code stays below. The machine adds it to the sums in int32, channel shift included: half the range is left for
the sums themselves."""

_HEADROOM = 2.0
"""Kept for bias correction: scales are chosen for biases of up to half the limit."""


def least_scales(layer: WeightedLayer) -> NDArray[np.float64]:
    """Smallest scale that each channel of a layer may have, ``[outputs]``.

    A channel whose weights are nearly zero (batch norm with a variance of nearly zero leaves such) would get a scale so small that its
    bias in units of ``input scale * weight scale`` leaves int32: each scale is kept at ``|bias| / (input scale * BIAS_LIMIT / 2)`` or
    above.
    """
    input_scale = layer.activation.scale_and_zero_point[0]
    bias = layer.bias.detach().to(torch.float64).abs().numpy()
    # The last ulp is for the product of two float32 scales, which is rounded.
    return np.asarray(bias * _HEADROOM / (input_scale * BIAS_LIMIT) * (1 + 2.0**-20))


def choose_weight_scales(graph_module: GraphModule) -> None:
    """Fix the scales of every layer's weights by its scheme, none below :func:`least_scales`."""
    for layer in weighted_layers(graph_module):
        layer.weight_observer.choose(layer.weight, least=least_scales(layer))


def round_by_scheme(layer: WeightedLayer) -> Tensor:
    """The layer's weights on their grid, each rounded by itself as the layer's scheme does; of the layer's shape, float32."""
    weight, watched = layer.weight, layer.weight_observer
    rows = weight.reshape(len(weight), -1).numpy().astype(np.float64)
    rounded = watched.scheme.rounded(rows, watched.calculate_qparams()[0].numpy(), bits=watched.bits)
    return torch.from_numpy(rounded).to(torch.float32).reshape(weight.shape)


def round_each_by_scheme(graph_module: GraphModule) -> None:
    """Put every layer's weights on their grid by :func:`round_by_scheme`."""
    for layer in weighted_layers(graph_module):
        layer.replace_weight(round_by_scheme(layer))
