"""Seeded random tensors for a layer, and a scale that spreads its sums over the output codes."""

from dataclasses import replace

import numpy as np

from tercel.hw.config import Config, exponents, unit_exponent
from tercel.sw.layer_reference import layer_sums
from tercel.sw.layer_spec import Integers, LayerSpec, LayerTensors

_EMPTY = np.zeros(0, dtype=np.int64)


def random_tensors(spec: LayerSpec, config: Config, *, seed: int, channel_shifts: bool = True) -> tuple[LayerSpec, LayerTensors]:
    """Uniform codes over their whole range, shifts 0..3, and ``spec`` with multiplier, shift and residual scale filled in."""
    random = np.random.default_rng(seed)
    channels = spec.output[2]
    low, high = spec.code_range(config)
    shapes = {
        "conv": (spec.out, *spec.kernel, spec.input[2] // spec.groups),
        "linear": (spec.out, spec.input[2]),
        "depthwise": (*spec.kernel, channels),
    }
    # Pools have one parameter word for all channels.
    scaled = spec.kind not in ("max_pool", "average_pool")
    tensors = LayerTensors(
        input=_codes(random, spec.input, signed=spec.in_signed),
        weights=random.integers(low, high + 1, shapes[spec.kind]) if scaled else _EMPTY,
        bias=random.integers(-500, 501, channels) if scaled else np.full(channels, -spec.z_in * spec.kernel[0] * spec.kernel[1]),
        shift=random.integers(0, 4, channels) if channel_shifts and scaled else np.zeros(channels, dtype=np.int64),
        multiplier=np.zeros(channels, dtype=np.int64),
        thresholds=_EMPTY,
        residual=_codes(random, spec.output, signed=spec.res_signed) if spec.residual else _EMPTY,
    )
    return calibrate(spec, tensors, config, random=random)


def _codes(random: np.random.Generator, shape: tuple[int, int, int], *, signed: bool) -> Integers:
    return random.integers(-128, 128, shape) if signed else random.integers(0, 256, shape)


def calibrate(spec: LayerSpec, tensors: LayerTensors, config: Config, *, random: np.random.Generator) -> tuple[LayerSpec, LayerTensors]:
    """Fill in a multiplier and shift of 0, residual scale and thresholds, so that the outputs take many different codes.

    Average pools get 1/n; other layers a scale that makes the standard deviation of the sums 60 codes (1000 before thresholds).
    """
    if spec.kind == "max_pool":
        return replace(spec, multiplier=spec.multiplier or 1, shift=spec.shift or unit_exponent(config.multiplier_bits)), tensors
    top = 1 << config.multiplier_bits
    if spec.shift == 0 or spec.multiplier == 0:
        if spec.kind == "average_pool":
            scale = 1 / (spec.kernel[0] * spec.kernel[1])
        else:
            spread = float(np.std(layer_sums(spec, tensors) / np.exp2(tensors.shift)))
            scale = (1000 if spec.thresholds else 60) / max(spread, 1.0)
        bits = config.multiplier_bits
        most = exponents(bits)[-1] - int(tensors.shift.max(initial=0))
        shift = int(np.clip(np.floor(np.log2(top / scale)), unit_exponent(bits), most))
        spec = replace(spec, shift=shift, multiplier=int(np.clip(round(scale * 2**shift), 1, top - 1)))
    if not tensors.multiplier.any():
        wobble = random.uniform(0.6, 1.4, tensors.multiplier.shape) if spec.kind not in ("average_pool",) else 1.0
        per_channel = np.clip(np.rint(spec.multiplier * np.broadcast_to(wobble, tensors.multiplier.shape)), 1, top - 1).astype(np.int64)
        tensors = replace(tensors, multiplier=per_channel)
    if spec.residual and spec.res_multiplier == 0:
        res_shift = max(0, spec.shift - 16)
        spec = replace(
            spec, res_shift=res_shift, res_multiplier=min(65535, round(2 ** (spec.shift - res_shift) * random.uniform(0.3, 0.9)))
        )
    if spec.thresholds and not tensors.thresholds.size:
        rows = 1 if spec.threshold_shared else spec.output[2]
        table = np.sort(np.rint(random.normal(spec.z_out, 1000, (rows, spec.thresholds))).astype(np.int64), axis=1)
        tensors = replace(tensors, thresholds=np.clip(table, -32768, 32767))
    return spec, tensors
