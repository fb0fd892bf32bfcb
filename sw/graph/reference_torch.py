"""Layers on batches of codes with PyTorch's floating-point kernels, exactly.

A tensor is kept as float32 ``code - zero_point``, ``[batch, height, width, channels]``, so that padding is plain zeros.

Sums. A floating-point sum of whole numbers is exact in any order as long as no partial sum leaves the mantissa: ``sum |w| * 255`` from the
actual weights is below 2**24 for float32, else float64 is taken, where a verified layer always fits 2**53. Winograd kernels (which multiply
by fractions) and reduced precision are switched off.

Requantization. ``y = floor(t)`` with ``t = (v*M + residual + 2**(e-1)) / 2**e`` in float64: ``M / 2**e`` is exact, and every product and
partial sum of ``t`` is a whole number divided by ``2**e``. Where the sum of their largest numerators is below 2**53 (:func:`_fits`), all of
them are exact, and so is the floor; other layers go through the integer arithmetic of :mod:`~tercel.sw.numeric`. Clamping before the floor
gives the same as after it, because the limits are whole numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tercel.sw.graph.integer_graph import LayerNode
from tercel.sw.graph.reference_numpy import Codes, finish
from tercel.sw.layer_bounds import effective_weights, input_range
from tercel.sw.layer_spec import LayerSpec

_CHUNK = 1 << 17
"""Elements that are requantized at a time, so that the float64 values stay in the cache."""


@contextmanager
def exact_kernels() -> Iterator[None]:
    """No Winograd, no reduced precision, no gradients, whatever the process has set."""
    backend: Any = torch.backends.mkldnn
    convolutions = backend.conv
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        with torch.inference_mode(), torch.backends.nnpack.flags(enabled=False):
            yield
    finally:
        convolutions.fp32_precision = before


def from_stored(codes: Codes, zero_point: int) -> Tensor:
    """Codes as this module keeps them."""
    return torch.from_numpy(np.ascontiguousarray(codes)).float().sub_(zero_point)


def to_stored(values: Tensor, zero_point: int, *, signed: bool) -> Codes:
    """Codes as uint8 or int8; the inverse of :func:`from_stored`."""
    stored: Codes = (values + zero_point).to(torch.int8 if signed else torch.uint8).numpy()
    return stored


class TorchLayer:
    """A verified layer with its constants made ready for many batches."""

    def __init__(self, layer: LayerNode) -> None:
        self.layer = layer
        spec = self.spec = layer.spec
        weights = effective_weights(spec, layer.weights)
        low, high = input_range(spec)
        self.reach = int(np.abs(weights).sum(axis=1).max(initial=0)) * max(high - spec.z_in, spec.z_in - low, 1)
        self.dtype = torch.float32 if self.reach < 1 << 24 else torch.float64
        self.weights = _kernel(layer).to(self.dtype).contiguous(memory_format=torch.channels_last)
        # v = sum of w * (a - z) + constant
        constant = layer.bias + spec.z_in * weights.sum(axis=1)
        multiplier = layer.multipliers if layer.multipliers.size else np.full(len(layer.bias), spec.multiplier)
        exponent = spec.shift + layer.shift
        self.fits = _fits(layer, self.reach, constant, multiplier)
        self.constant = constant
        self.scale = torch.from_numpy(multiplier * np.exp2(-exponent))
        self.offset = torch.from_numpy(constant * multiplier * np.exp2(-exponent) + 0.5)
        self.res_scale = spec.res_multiplier * 2.0 ** (spec.res_shift - spec.shift)
        self.low, self.high = float(spec.low - spec.z_out), float(spec.high - spec.z_out)

    def run(self, values: Tensor, residual: Tensor | None) -> Tensor:
        """The output for ``values`` and ``residual``, all ``code - zero_point``."""
        if self.spec.kind == "max_pool":
            return self._largest(values)
        sums = self._sums(values)
        if not self.fits:
            return self._slowly(sums, residual)
        channels = sums.shape[3]
        flat = sums.view(-1, channels)
        added = None if residual is None else residual.view(-1, channels)
        result = torch.empty(flat.shape, dtype=torch.float32)
        rows = max(1, _CHUNK // channels)
        space = torch.empty((min(rows, len(flat)), channels), dtype=torch.float64)
        for start in range(0, len(flat), rows):
            part = flat[start : start + rows]
            scaled = space[: len(part)]
            scaled.copy_(part)
            torch.addcmul(self.offset, scaled, self.scale, out=scaled)
            if added is not None:
                scaled.add_(added[start : start + rows], alpha=self.res_scale)
            if self.spec.thresholds:
                result[start : start + rows] = self._count(scaled.floor_())
            else:
                result[start : start + rows] = scaled.clamp_(self.low, self.high).floor_()
        return result.view(sums.shape)

    def _sums(self, values: Tensor) -> Tensor:
        """``sum of w * (a - z)``, ``[batch, height, width, channels]``."""
        spec = self.spec
        image = values.to(self.dtype).permute(0, 3, 1, 2)
        if spec.kind == "average_pool" and spec.kernel == spec.input[:2] and not any(spec.padding):
            return values.to(self.dtype).sum(dim=(1, 2), keepdim=True)
        top, left, bottom, right = spec.padding
        padding = (top, left)
        if padding != (bottom, right):
            image, padding = F.pad(image, (left, right, top, bottom)), (0, 0)
        groups = spec.groups if spec.kind in ("conv", "linear") else spec.input[2]
        sums = F.conv2d(image, self.weights, None, spec.stride, padding, spec.dilation, groups)
        return sums.permute(0, 2, 3, 1).contiguous()

    def _largest(self, values: Tensor) -> Tensor:
        spec = self.spec
        top, left, bottom, right = spec.padding
        image = F.pad(values.permute(0, 3, 1, 2), (left, right, top, bottom), value=-torch.inf)
        largest = F.max_pool2d(image, spec.kernel, spec.stride, 0, spec.dilation)
        # A window without any pixel gives the zero point.
        largest = torch.where(torch.isneginf(largest), 0.0, largest).clamp_(self.low, self.high)
        return largest.permute(0, 2, 3, 1).contiguous()

    def _count(self, scaled: Tensor) -> Tensor:
        spec = self.spec
        saturated = scaled.clamp_(-32768 - spec.z_out, 32767 - spec.z_out)
        table = torch.from_numpy(self.layer.thresholds).double() - spec.z_out
        count = torch.zeros_like(saturated, dtype=torch.float32)
        for column in table.T:
            count += saturated > column
        return count.sub_(spec.z_out)

    def _slowly(self, sums: Tensor, residual: Tensor | None) -> Tensor:
        """By the integer arithmetic of the contract."""
        spec = self.spec
        codes = None if residual is None else residual.to(torch.int64).add_(spec.z_res).numpy()
        result = finish(self.layer, sums.to(torch.int64).numpy() + self.constant, codes)
        return torch.from_numpy(result).float().sub_(spec.z_out)


def _kernel(layer: LayerNode) -> Tensor:
    """Weights as PyTorch's convolution takes them: ``[outputs, inputs of a group, rows, columns]``."""
    spec: LayerSpec = layer.spec
    if spec.kind in ("average_pool", "max_pool"):
        return torch.ones((spec.input[2], 1, *spec.kernel), dtype=torch.float64)
    weights = torch.from_numpy((spec.gain * layer.weights + spec.weight_offset).astype(np.float64))
    if spec.kind == "depthwise":
        return weights.permute(2, 0, 1)[:, None]
    return weights.permute(0, 3, 1, 2) if spec.kind == "conv" else weights[:, :, None, None]


def _fits(layer: LayerNode, reach: int, constant: np.ndarray[tuple[int, ...], np.dtype[np.int64]], multiplier: np.ndarray) -> bool:
    """Whether every numerator over ``2**e`` in the requantization stays below 2**53."""
    spec = layer.spec
    exponent = spec.shift + layer.shift
    largest = (reach + np.abs(constant).astype(np.float64)) * multiplier + np.exp2(exponent)
    if spec.residual:
        low, high = (-128, 127) if spec.res_signed else (0, 255)
        largest += max(high - spec.z_res, spec.z_res - low) * spec.res_multiplier * np.exp2(spec.res_shift + layer.shift)
    return bool(largest.max() < 2.0**52)
