"""What the sums of a layer can reach, from its actual weights: the proof that nothing overflows."""

import numpy as np

from tercel.hw.config import NARROW_BITS, Config, exponents
from tercel.sw.layer_spec import Integers, LayerSpec


def input_range(spec: LayerSpec) -> tuple[int, int]:
    """Smallest and largest code that a tap can see, padding counted."""
    low, high = (-128, 127) if spec.in_signed else (0, 255)
    return (min(low, spec.z_in), max(high, spec.z_in)) if any(spec.padding) else (low, high)


def effective_weights(spec: LayerSpec, codes: Integers) -> Integers:
    """``[channels, taps]`` weights ``gain * d + weight_offset``; ones for an average pool, none for a max pool."""
    channels = spec.output[2]
    if spec.kind == "average_pool":
        return np.ones((channels, spec.kernel[0] * spec.kernel[1]), dtype=np.int64)
    if spec.kind == "max_pool":
        return np.zeros((channels, 0), dtype=np.int64)
    rows = codes.reshape(-1, channels).T if spec.kind == "depthwise" else codes.reshape(channels, -1)
    return spec.gain * rows.astype(np.int64) + spec.weight_offset


def sum_bounds(spec: LayerSpec, codes: Integers, bias: Integers) -> tuple[Integers, Integers]:
    """Per channel the smallest and the largest sum with bias that any input at all can make; exact, int64."""
    low, high = input_range(spec)
    weights = effective_weights(spec, codes)
    least = np.minimum(weights * low, weights * high).sum(axis=1) + bias
    most = np.maximum(weights * low, weights * high).sum(axis=1) + bias
    return least, most


def sums_narrow(spec: LayerSpec, codes: Integers, bias: Integers) -> bool:
    """Whether no input at all can push a sum out of the bits of a narrow one."""
    least, most = sum_bounds(spec, codes, bias)
    half = 1 << NARROW_BITS - 1
    return bool(least.min() >= -half and most.max() < half)


def fits_narrow(spec: LayerSpec, codes: Integers, bias: Integers, channel_shift: Integers, config: Config) -> bool:
    """Whether the drain may take J sums of the layer a cycle: neither thresholds nor a residual, and sums and shifts of narrow ones."""
    plain = not spec.thresholds and not spec.residual
    return plain and shifts_narrow(spec.shift, channel_shift, config) and sums_narrow(spec, codes, bias)


def shifts_narrow(shift: int, channel_shift: Integers, config: Config) -> bool:
    """Whether all E + s are among the shifts of narrow sums."""
    window = exponents(config.multiplier_bits, narrow=True)
    return all(shift + int(bound) in window for bound in (channel_shift.min(), channel_shift.max()))
