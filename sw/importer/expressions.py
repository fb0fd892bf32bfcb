"""What the value of a node is before it is quantized: an expression over stored codes, from which the next quantization makes layers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from tercel.sw.importer.capture import Operation
from tercel.sw.importer.report import Rejection
from tercel.sw.importer.scaling import Reals
from tercel.sw.layer_spec import Integers

Sides = tuple[int, int, int, int]
NO_PADDING: Sides = (0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """Numbers of a quantize op on activations: ``clip(round(x / scale) + zero_point, low, high)``, stored signed or not."""

    scale: float
    zero_point: int
    low: int
    high: int
    signed: bool

    def code(self, value: float) -> int:
        """The code of one real value."""
        return int(np.clip(np.rint(np.float64(value) / self.scale) + self.zero_point, self.low, self.high))

    def narrowed(self, low: float, high: float) -> "Quantizer":
        """The quantizer after a clamp of real values; the two are one clamp of codes, because rounding keeps the order."""
        return replace(self, low=self.code(low), high=self.code(high))

    @property
    def full(self) -> "Quantizer":
        """The same scale over all 8 bits."""
        return replace(self, low=-128 if self.signed else 0, high=127 if self.signed else 255)

    @property
    def numbers(self) -> tuple[float, int, bool]:
        """What two tensors share whose codes mean the same."""
        return self.scale, self.zero_point, self.signed


@dataclass(frozen=True)
class QuantizedConstant:
    """Where a constant's codes came from: ``real = (code - zero_point) * scale``; axis None: one scale for all."""

    codes: Integers
    scales: Reals
    zero_points: Integers
    axis: int | None
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor known at import; ``quantized`` for those that stand behind a dequantize op."""

    value: torch.Tensor
    quantized: QuantizedConstant | None = None


@dataclass(frozen=True, eq=False)
class Stored:
    """Codes of a tensor of the graph.

    ``shape`` is what PyTorch sees, without the batch; its elements stand in the order channel, row, column. ``padding`` (top, left,
    bottom, right) is real zeros around it that no tensor holds: the next window reads them.
    """

    tensor: str
    shape: tuple[int, ...]
    padding: Sides = NO_PADDING


@dataclass(frozen=True, eq=False)
class FloatInput:
    """An input of the network before its quantize op."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Window:
    """Geometry of a convolution or pool, rows before columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: Sides = NO_PADDING
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True, eq=False)
class Weighted:
    """A convolution or matrix product."""

    operation: Operation
    kind: Literal["conv", "linear"]
    input: "Expression"
    weight: Constant
    bias: Constant | None
    shape: tuple[int, ...]
    window: Window
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Pool:
    """A maximum or an average over windows."""

    operation: Operation
    kind: Literal["max_pool", "average_pool"]
    input: "Expression"
    shape: tuple[int, ...]
    window: Window


@dataclass(frozen=True, eq=False)
class Clamp:
    """``min(max(x, low), high)`` of real values."""

    operation: Operation
    input: "Expression"
    shape: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Affine:
    """``gain[c] * x + offset[c]`` for values of channel c: batch norm, sums and products with constants.

    Only thresholds take it up; before anything else it is the rejection ``otherwise``.
    """

    operation: Operation
    input: "Expression"
    shape: tuple[int, ...]
    gain: Reals
    offset: Reals
    otherwise: Rejection


@dataclass(frozen=True, eq=False)
class Slope:
    """``x``, below zero ``slopes[c] * x``, for values of channel c; for thresholds alone, as :class:`Affine`."""

    operation: Operation
    input: "Expression"
    shape: tuple[int, ...]
    slopes: Reals
    otherwise: Rejection


@dataclass(frozen=True, eq=False)
class Count:
    """The number of thresholds below each value: codes whose scale the dequantize op after it tells.

    ``thresholds`` is ``[channels or 1, count]``.
    """

    operation: Operation
    input: "Expression"
    shape: tuple[int, ...]
    thresholds: Reals


@dataclass(frozen=True, eq=False)
class Add:
    """A sum of two tensors of the same shape."""

    operation: Operation
    left: "Expression"
    right: "Expression"
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class View:
    """The same elements in the same order under another shape."""

    operation: Operation
    input: "Expression"
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Resample:
    """Every n-th row and column by ``stride``, then real zeros around the image and before and after the channels."""

    operation: Operation
    input: "Expression"
    shape: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    padding: Sides = NO_PADDING
    channels: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Concat:
    """Channels of several tensors, one after the other."""

    operation: Operation
    inputs: tuple["Expression", ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class HostValue:
    """What an operator on the host gives; ``head`` while it depends on the network's inputs alone.

    ``kind`` and ``parameters`` are those of :data:`tercel.sw.host.KINDS`; ``operands`` are what it reads, constants as arrays without a
    batch. ``whole`` where its values are whole numbers.
    """

    operation: Operation
    shape: tuple[int, ...]
    head: bool
    kind: str
    operands: tuple["HostOperand", ...]
    parameters: Mapping[str, Any]
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Broken:
    """The result of a rejected operator, named for those that follow it."""

    name: str
    shape: tuple[int, ...]


HostOperand = HostValue | Stored | FloatInput | npt.NDArray[np.float32]
"""What an operator on the host reads."""

Expression = Stored | FloatInput | Weighted | Pool | Clamp | Affine | Slope | Count | Add | View | Resample | Concat | HostValue | Broken
"""A value of real numbers."""
