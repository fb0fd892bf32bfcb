"""What the sums of a layer can reach, from its actual weights: the proof that nothing overflows."""

import numpy as np

from tercel.sw.graph.integer_graph import LayerNode
from tercel.sw.layer_spec import Integers, LayerSpec


def input_range(spec: LayerSpec) -> tuple[int, int]:
    """Smallest and largest code that a tap can see, padding counted."""
    low, high = (-128, 127) if spec.in_signed else (0, 255)
    return (min(low, spec.z_in), max(high, spec.z_in)) if any(spec.padding) else (low, high)


def effective_weights(layer: LayerNode) -> Integers:
    """``[channels, taps]`` weights ``gain * d + weight_offset``; ones for an average pool, none for a max pool."""
    spec, channels = layer.spec, layer.spec.output[2]
    if spec.kind == "average_pool":
        return np.ones((channels, spec.kernel[0] * spec.kernel[1]), dtype=np.int64)
    if spec.kind == "max_pool":
        return np.zeros((channels, 0), dtype=np.int64)
    codes = layer.weights.reshape(-1, channels).T if spec.kind == "depthwise" else layer.weights.reshape(channels, -1)
    return spec.gain * codes.astype(np.int64) + spec.weight_offset


def sum_bounds(layer: LayerNode) -> tuple[Integers, Integers]:
    """Per channel the smallest and the largest sum with bias that any input at all can make; exact, int64."""
    low, high = input_range(layer.spec)
    weights = effective_weights(layer)
    least = np.minimum(weights * low, weights * high).sum(axis=1) + layer.bias
    most = np.maximum(weights * low, weights * high).sum(axis=1) + layer.bias
    return least, most


def largest_partial_sum(layer: LayerNode) -> int:
    """A bound on every partial sum of products, in whatever order they are added, without bias."""
    low, high = input_range(layer.spec)
    return int(np.abs(effective_weights(layer)).sum(axis=1).max(initial=0)) * max(-low, high)
