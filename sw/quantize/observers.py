"""Observers: what PT2E puts on each quantized tensor, and asks for scales in the end."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tercel.sw.quantize.code_range import best_range, scale_and_zero_point
from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.quantize.histogram import BINS, Histogram
from tercel.sw.quantize.scheme import Scheme
from tercel.sw.quantize.torchao_import import import_torchao

import_torchao()
from torchao.quantization.pt2e import ObserverBase  # noqa: E402  (its import is noisy)


class ActivationObserver(ObserverBase):  # type: ignore[misc]
    """Collects a histogram of a tensor, or of all tensors that share a scale.

    Parameters
    ----------
    dtype, quant_min, quant_max, qscheme, is_dynamic
        From the quantization spec: unsigned codes of 8 bits, one scale and zero point.
    """

    ch_axis = None

    def __init__(self, *, dtype: torch.dtype, quant_min: int, quant_max: int, qscheme: torch.qscheme, is_dynamic: bool = False) -> None:
        super().__init__(dtype, is_dynamic)
        self.quant_min, self.quant_max, self.qscheme = quant_min, quant_max, qscheme
        self.histogram = Histogram()
        self.where = "a tensor"
        self._chosen: tuple[float, int] | None = None
        self._expected: tuple[float, float] | None = None

    def expect(self, low: float, high: float) -> None:
        """Take a range of values that is known without seeing any; of several, what holds them all."""
        before = self._expected or (low, high)
        self._expected, self._chosen = (min(low, before[0]), max(high, before[1])), None

    def forward(self, values: Tensor) -> Tensor:
        """Count ``values`` and pass them on; :class:`~tercel.sw.quantize.errors.QuantizeError` if one is NaN or infinite."""
        detached = values.detach()
        low, high = (float(end) for end in detached.aminmax())
        if not np.isfinite(low) or not np.isfinite(high):
            raise QuantizeError(f"the output of {self.where} must be finite on the calibration images, but holds NaN or infinity "
                                "(check the images and the weights)")  # fmt: skip
        histogram = self.histogram
        histogram.make_room(low, high)
        if histogram.reach > 0:
            counts = torch.histc(detached, bins=2 * BINS, min=-histogram.reach, max=histogram.reach)
            histogram.add(counts.numpy().astype(np.float64))
        self._chosen = None
        return values

    @property
    def scale_and_zero_point(self) -> tuple[float, int]:
        """The float32 scale and the zero point of the codes."""
        if self._chosen is None:
            low, high = self._expected or best_range(self.histogram, codes=self.quant_max)
            self._chosen = scale_and_zero_point(low, high, codes=self.quant_max)
        return self._chosen

    def calculate_qparams(self, **_: Any) -> tuple[Tensor, Tensor]:
        """Scale and zero point as PT2E wants them."""
        scale, zero_point = self.scale_and_zero_point
        return torch.tensor([scale], dtype=torch.float32), torch.tensor([zero_point], dtype=torch.int64)

    def fake_quantize(self, values: Tensor) -> Tensor:
        """What is left of ``values`` behind quantize and dequantize."""
        scale, zero_point = self.scale_and_zero_point
        return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, self.quant_min, self.quant_max)


class PerChannelWeightObserver(ObserverBase):  # type: ignore[misc]
    """Keeps a layer's weights, and their scales by the layer's scheme.

    Parameters
    ----------
    scheme, bits
        Of the layer.
    dtype, quant_min, quant_max, qscheme, ch_axis, is_dynamic
        From the quantization spec: signed codes, a scale per output channel (axis 0), no zero point.
    """

    def __init__(
        self,
        *,
        scheme: Scheme,
        bits: int,
        dtype: torch.dtype,
        quant_min: int,
        quant_max: int,
        qscheme: torch.qscheme,
        ch_axis: int,
        is_dynamic: bool = False,
    ) -> None:
        super().__init__(dtype, is_dynamic)
        self.scheme, self.bits = scheme, bits
        self.quant_min, self.quant_max, self.qscheme, self.ch_axis = quant_min, quant_max, qscheme, ch_axis
        self._weights: Tensor | None = None
        self._scales: Tensor | None = None

    def forward(self, weights: Tensor) -> Tensor:
        """Keep ``weights`` and pass them on."""
        self._weights = weights.detach()
        return weights

    def choose(self, weights: Tensor, *, least: np.ndarray[Any, np.dtype[np.float64]]) -> Tensor:
        """Fix the scales for ``weights``, none below ``least`` ``[channels]``; returns them, float32 ``[channels]``."""
        rows = weights.detach().reshape(len(weights), -1).numpy().astype(np.float64)
        self._scales = torch.from_numpy(self.scheme.scales(rows, bits=self.bits, least=least))
        return self._scales

    def replace(self, scales: Tensor) -> None:
        """Put other scales in their place, float32 ``[channels]``."""
        self._scales = scales

    def calculate_qparams(self, **_: Any) -> tuple[Tensor, Tensor]:
        """Scales and zero points as PT2E wants them; of the weights seen last, without regard to the bias, if none were fixed."""
        if self._scales is None:
            if self._weights is None:
                raise QuantizeError("calibration must run the network at least once before its weights are converted")
            self.choose(self._weights, least=np.zeros(len(self._weights)))
        assert self._scales is not None
        return self._scales, torch.zeros(len(self._scales), dtype=torch.int64)

    def fake_quantize(self, weights: Tensor) -> Tensor:
        """What is left of ``weights`` behind quantize and dequantize."""
        scales = self.calculate_qparams()[0].reshape(-1, *[1] * (weights.dim() - 1))
        return torch.clamp(torch.round(weights / scales), self.quant_min, self.quant_max) * scales
