"""What a layer must give, straight from its tensors and the numeric contract: no instructions, tiles or addresses."""

import numpy as np

from tercel.hw.config import NARROW_BITS, Config
from tercel.sw import numeric
from tercel.sw.layer_spec import Integers, LayerSpec, LayerTensors, as_conv


def padded_input(spec: LayerSpec, tensors: LayerTensors) -> Integers:
    """The input with ``z_in`` around it."""
    top, left, bottom, right = spec.padding
    return np.pad(tensors.input, ((top, bottom), (left, right), (0, 0)), constant_values=spec.z_in)


def _taps(spec: LayerSpec, image: Integers) -> list[tuple[int, int, Integers]]:
    """For each kernel position its row, its column and the ``[height, width, channels]`` codes that it sees."""
    height, width, _ = spec.output
    result = []
    for ky in range(spec.kernel[0]):
        for kx in range(spec.kernel[1]):
            y, x = ky * spec.dilation[0], kx * spec.dilation[1]
            s = spec.stride
            result.append((ky, kx, image[y : y + (height - 1) * s + 1 : s, x : x + (width - 1) * s + 1 : s]))
    return result


def layer_sums(spec: LayerSpec, tensors: LayerTensors) -> Integers:
    """``[height, width, channels]`` sums with bias, before any wrap. Max pools have none."""
    spec, tensors = as_conv(spec, tensors)
    total = np.zeros(spec.output, dtype=np.int64)
    weights = spec.gain * tensors.weights + spec.weight_offset
    for ky, kx, codes in _taps(spec, padded_input(spec, tensors)):
        if spec.kind == "depthwise":
            total += codes * weights[ky, kx]
        elif spec.kind == "average_pool":
            total += codes
        else:
            for group, (part, outputs) in enumerate(
                zip(np.split(codes, spec.groups, axis=2), np.split(weights[:, ky, kx], spec.groups), strict=True)
            ):
                count = spec.out // spec.groups
                total[:, :, group * count : (group + 1) * count] += np.tensordot(part, outputs, axes=(2, 1))
    return total + tensors.bias


def layer_reference(spec: LayerSpec, tensors: LayerTensors, config: Config) -> Integers:
    """The ``[height, width, channels]`` output codes, as stored: the low 8 bits, read with the output's sign."""
    if spec.kind == "max_pool":
        y = numeric.clamp(_largest(spec, tensors), lo=spec.low, hi=spec.high)
    else:
        v = numeric.wrap(layer_sums(spec, tensors), bits=NARROW_BITS if spec.narrow else 32)
        residual: Integers | int = 0
        if spec.residual:
            residual = numeric.residual_term(
                tensors.residual,
                zero_point=spec.z_res,
                multiplier=spec.res_multiplier,
                shift=spec.res_shift,
                channel_shift=tensors.shift,
            )
        multiplier = tensors.multiplier if config.per_channel_multiplier else spec.multiplier
        e = numeric.total_shift(spec.shift, tensors.shift, multiplier_bits=config.multiplier_bits, narrow=spec.narrow is True)
        q = numeric.requantize(v, multiplier=multiplier, exponent=e, residual=residual)
        p = numeric.saturate(q, zero_point=spec.z_out)
        y = numeric.count_thresholds(p, tensors.thresholds) if spec.thresholds else numeric.clamp(p, lo=spec.low, hi=spec.high)
    stored = numeric.code_byte(y)
    return stored.view(np.int8).astype(np.int64) if spec.out_signed else stored.astype(np.int64)


def _largest(spec: LayerSpec, tensors: LayerTensors) -> Integers:
    """The largest code of the taps inside the image, ``z_in`` where there is none."""
    inside = np.pad(np.ones(spec.input, dtype=bool), ((spec.padding[0], spec.padding[2]), (spec.padding[1], spec.padding[3]), (0, 0)))
    absent = np.int64(-(1 << 20))
    image = np.where(inside, padded_input(spec, tensors), absent)
    largest = np.full(spec.output, absent)
    for _, _, codes in _taps(spec, image):
        largest = np.maximum(largest, codes)
    return np.where(largest == absent, np.int64(spec.z_in), largest)
