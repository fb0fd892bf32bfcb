"""Layers on batches of codes with NumPy alone: the numeric contract as it is written, one array operation a step."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tercel.sw import numeric
from tercel.sw.graph.integer_graph import LayerNode
from tercel.sw.layer_spec import Integers, LayerSpec

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.int8]


def run_layer(layer: LayerNode, codes: Codes, residual: Codes | None) -> Codes:
    """The output codes ``[batch, height, width, channels]`` of a verified layer, uint8 or int8 by the output's sign."""
    spec = layer.spec
    if spec.kind == "max_pool":
        y = numeric.clamp(_largest(spec, codes), lo=spec.low, hi=spec.high)
    else:
        y = finish(layer, _sums(layer, codes).astype(np.int64) + layer.bias, residual)
    stored = numeric.code_byte(y)
    return stored.view(np.int8) if spec.out_signed else stored


def finish(layer: LayerNode, sums: Integers, residual: Codes | None) -> Integers:
    """Codes from sums with bias: requantization, residual, clamp or thresholds."""
    spec = layer.spec
    added: Integers | int = 0
    if residual is not None:
        added = numeric.residual_term(
            residual, zero_point=spec.z_res, multiplier=spec.res_multiplier, shift=spec.res_shift, channel_shift=layer.shift
        )
    multiplier = layer.multipliers if layer.multipliers.size else spec.multiplier
    q = numeric.requantize(sums, multiplier=multiplier, exponent=spec.shift + layer.shift, residual=added)
    p = numeric.saturate(q, zero_point=spec.z_out)
    return numeric.count_thresholds(p, layer.thresholds) if spec.thresholds else numeric.clamp(p, lo=spec.low, hi=spec.high)


def _sums(layer: LayerNode, codes: Codes) -> npt.NDArray[np.float64]:
    """Sums of products. Exact in float64: a verified layer's sums stay in 32 bits, and so do their parts in 53."""
    spec = layer.spec
    image = _pad(spec, codes.astype(np.float64), spec.z_in)
    total = np.zeros((len(codes), *spec.output))
    weights = (spec.gain * layer.weights + spec.weight_offset).astype(np.float64)
    if spec.kind == "linear":
        weights = weights[:, None, None, :]
    inputs, outputs = spec.input[2] // spec.groups, total.shape[3] // spec.groups
    for (ky, kx), seen in _taps(spec, image):
        if spec.kind == "depthwise":
            total += seen * weights[ky, kx]
        elif spec.kind == "average_pool":
            total += seen
        else:
            for group in range(spec.groups):
                to = slice(group * outputs, (group + 1) * outputs)
                total[..., to] += seen[..., group * inputs : (group + 1) * inputs] @ weights[to, ky, kx].T
    return total


def _pad(spec: LayerSpec, image: npt.NDArray[np.float64], value: float) -> npt.NDArray[np.float64]:
    top, left, bottom, right = spec.padding
    return np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value) if any(spec.padding) else image


def _taps(spec: LayerSpec, image: npt.NDArray[np.float64]) -> Iterator[tuple[tuple[int, int], npt.NDArray[np.float64]]]:
    """Each kernel position with the part of the padded image that it sees."""
    height, width, _ = spec.output
    step = spec.stride
    for ky in range(spec.kernel[0]):
        for kx in range(spec.kernel[1]):
            y, x = ky * spec.dilation[0], kx * spec.dilation[1]
            yield (ky, kx), image[:, y : y + (height - 1) * step + 1 : step, x : x + (width - 1) * step + 1 : step]


def _largest(spec: LayerSpec, codes: Codes) -> Integers:
    """The largest code inside the image, ``z_in`` where there is none."""
    largest = np.full((len(codes), *spec.output), -np.inf)
    for _, seen in _taps(spec, _pad(spec, codes.astype(np.float64), -np.inf)):
        np.maximum(largest, seen, out=largest)
    return np.where(np.isneginf(largest), spec.z_in, largest).astype(np.int64)
