"""One layer as people describe it, and its tensors."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from tercel.hw.config import Config, exponents, unit_exponent
from tercel.sw.tensor_layout import ceil_div

Integers = npt.NDArray[np.int64]
Kind = Literal["conv", "depthwise", "max_pool", "average_pool", "linear"]


class LayerError(ValueError):
    """A layer that the machine cannot run. The message names the argument, the limit, the value and a way out."""


def check(condition: bool, argument: str, limit: str, value: object, way_out: str) -> None:
    """:class:`LayerError` unless ``condition``."""
    if not condition:
        raise LayerError(f"{argument} must be {limit}, not {value} ({way_out})")


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """A single layer.

    Parameters
    ----------
    kind
        ``conv``, ``depthwise``, ``max_pool``, ``average_pool`` or ``linear``.
    input
        Height, width and channels of the input; ``linear`` takes all pixels as rows of a matrix.
    out
        Output channels of ``conv`` and ``linear``; 0 elsewhere.
    kernel, dilation
        Rows and columns.
    padding
        Top, left, bottom, right.
    groups
        Convolution groups; ``depthwise`` is its own kind.
    weight_bits
        2..8; odd widths run as the next even one.
    gain, weight_offset
        The weight of a code d is ``gain * d + weight_offset``; the depthwise engine takes -128..127.
    multiplier, shift
        M and E; 0 lets :func:`~tercel.sw.layer_tensors.calibrate` choose both.
    lo, hi
        Clamp; None is the end of the output's range.
    thresholds
        Thresholds per channel, 0 for the clamp.
    residual
        Add a tensor of the output's shape before the rounding.
    narrow
        Take sums modulo 2**18, or None: where it makes no difference.
    array
        ``linear`` on the array although the depthwise engine could run it.
    out_space
        Scratchpad that takes the output: 0 array, 1 window.
    """

    kind: Kind
    input: tuple[int, int, int]
    out: int = 0
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    weight_bits: int = 8
    gain: int = 1
    weight_offset: int = 0
    in_signed: bool = False
    z_in: int = 0
    out_signed: bool = False
    z_out: int = 0
    lo: int | None = None
    hi: int | None = None
    multiplier: int = 0
    shift: int = 0
    thresholds: int = 0
    threshold_shared: bool = False
    residual: bool = False
    res_signed: bool = False
    z_res: int = 0
    res_multiplier: int = 0
    res_shift: int = 0
    narrow: bool | None = None
    array: bool = False
    out_space: int = 0

    def __post_init__(self) -> None:
        check(min(self.input) > 0, "input", "positive in height, width and channels", self.input, "write it as HxWxC")
        check(self.kind not in ("conv", "linear") or self.out > 0, "out", "positive", self.out, "the number of output channels")
        check(min(self.kernel) >= 1 and max(self.kernel) <= 16, "kernel", "in 1..16", self.kernel, "split larger kernels")
        check(1 <= self.stride <= 4, "stride", "in 1..4", self.stride, "subsample in a layer of its own")
        check(min(self.dilation) >= 1 and max(self.dilation) <= 15, "dilation", "in 1..15", self.dilation, "the field has 4 bits")
        check(min(self.padding) >= 0 and max(self.padding) <= 127, "padding", "in 0..127", self.padding, "the field has 8 bits")
        check(2 <= self.weight_bits <= 8, "weight_bits", "in 2..8", self.weight_bits, "1 bit runs as 2")
        check(self.gain in (1, 2), "gain", "1 or 2", self.gain, "put other factors into the multiplier")
        check(-255 <= self.weight_offset <= 255, "weight_offset", "in -255..255", self.weight_offset, "weights have 9 bits")
        for name, value in (("z_in", self.z_in), ("z_out", self.z_out), ("z_res", self.z_res), ("lo", self.low), ("hi", self.high)):
            check(-256 <= value <= 255, name, "in -256..255", value, "the field has 9 bits")
        check(0 <= self.thresholds <= 15, "thresholds", "in 0..15", self.thresholds, "codes of 4 bits have 15")
        check(not self.thresholds or self.kind in ("conv", "linear"), "thresholds", "0 here", self.thresholds, f"{self.kind} only clamps")
        check(not self.residual or self.kind == "conv", "residual", "false here", self.residual, "only the array adds a residual")
        check(
            self.groups == 1 or (self.kind == "conv" and not (self.input[2] % self.groups or self.out % self.groups)),
            "groups",
            f"a divisor of {self.input[2]} input and {self.out} output channels",
            self.groups,
            "kind depthwise needs no groups",
        )
        check(0 <= self.shift <= 63, "shift", "in 0..63", self.shift, "the field has 6 bits")
        height, width = self.output[:2]
        check(height > 0 and width > 0, "kernel", "no larger than the padded input", self.kernel, f"the output would be {height}x{width}")

    @property
    def output(self) -> tuple[int, int, int]:
        """Height, width and channels of the output."""
        top, left, bottom, right = self.padding
        height = (self.input[0] + top + bottom - (self.kernel[0] - 1) * self.dilation[0] - 1) // self.stride + 1
        width = (self.input[1] + left + right - (self.kernel[1] - 1) * self.dilation[1] - 1) // self.stride + 1
        return height, width, self.out or self.input[2]

    @property
    def digits(self) -> int:
        """Digit planes of a weight."""
        return ceil_div(self.weight_bits, 2)

    @property
    def low(self) -> int:
        """Lower clamp."""
        return self.lo if self.lo is not None else -128 if self.out_signed else 0

    @property
    def high(self) -> int:
        """Upper clamp."""
        return self.hi if self.hi is not None else 127 if self.out_signed else 255

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates (comparisons or additions of a pool), padding counted."""
        height, width, channels = self.output
        taps = self.kernel[0] * self.kernel[1]
        return height * width * channels * taps * (self.input[2] // self.groups if self.kind in ("conv", "linear") else 1)

    def on_array(self, config: Config) -> bool:
        """Whether the array runs the layer; the rest is for the depthwise engine.

        A ``linear`` layer of one pixel goes to the depthwise engine if there is one whose record memory holds a group of outputs.
        """
        if self.kind == "linear":
            records = ceil_div(self.input[2], config.lanes) * max(1, config.lanes // 8)
            return self.array or self.input[:2] != (1, 1) or self.thresholds > 0 or records > config.record_depth
        return self.kind == "conv"

    def code_range(self, config: Config) -> tuple[int, int]:
        """Smallest and largest weight code."""
        if config.digit_set == "ternary" and self.on_array(config):
            return -1, 1
        return -(1 << self.weight_bits - 1), (1 << self.weight_bits - 1) - 1


def check_multiplier(spec: LayerSpec, config: Config) -> None:
    """:class:`LayerError` for a multiplier or a shift that the config has no room for."""
    bits = config.multiplier_bits
    check(spec.multiplier < 1 << bits, "multiplier", f"below 2**{bits}", spec.multiplier, "take a smaller shift")
    least, most = unit_exponent(bits), exponents(bits)[-1]
    check(spec.shift == 0 or least <= spec.shift <= most, "shift", f"in {least}..{most}", spec.shift, "scale the multiplier")


@dataclass(frozen=True, kw_only=True)
class LayerTensors:
    """The tensors of a layer; int64.

    Parameters
    ----------
    input
        ``[height, width, channels]`` codes.
    weights
        Codes: conv ``[outputs, kernel height, kernel width, inputs / groups]``, linear ``[outputs, inputs]``, depthwise
        ``[kernel height, kernel width, channels]``, pools empty.
    bias, shift, multiplier
        One a channel; ``multiplier`` counts only where the config stores it per channel.
    thresholds
        ``[channels or 1, thresholds]``, empty without.
    residual
        ``[height, width, channels]`` of the output, empty without.
    """

    input: Integers
    weights: Integers
    bias: Integers
    shift: Integers
    multiplier: Integers
    thresholds: Integers
    residual: Integers


def as_conv(spec: LayerSpec, tensors: LayerTensors) -> tuple[LayerSpec, LayerTensors]:
    """A linear layer as the pointwise convolution that it is; any other unchanged."""
    if spec.kind != "linear":
        return spec, tensors
    return replace(spec, kind="conv"), replace(tensors, weights=tensors.weights[:, None, None, :])
