"""Weight constants as the machine's codes: widths, offsets, groups of whole lanes."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tercel.sw.importer.expressions import Constant, QuantizedConstant
from tercel.sw.importer.report import Rejection
from tercel.sw.importer.scaling import Reals, channel_shifts
from tercel.sw.layer_spec import Integers


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights ``scales[c] * (gain * codes[c] + offset)``; ``codes`` is ``[outputs, inputs of a group, ...]`` as in PyTorch."""

    codes: Integers
    scales: Reals
    bits: int
    gain: int = 1
    offset: int = 0

    @property
    def values(self) -> Integers:
        """The whole numbers that activations are multiplied by."""
        return self.gain * self.codes + self.offset

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        """Output channels with a weight that is not zero."""
        return np.asarray(self.values.reshape(len(self.codes), -1).any(axis=1))

    def negated(self, channels: npt.NDArray[np.bool_]) -> "Weights":
        """The weights of some output channels with the other sign; in one more bit if the lowest code has no counterpart."""
        if not channels.any():
            return self
        codes = self.codes.copy()
        codes[channels] = -codes[channels] - 2 * self.offset // self.gain
        half = 1 << self.bits - 1
        bits = self.bits + bool(codes.min() < -half or codes.max() >= half)
        if bits > 8 or codes.min() < -2 * half or codes.max() >= 2 * half:
            limit = f"at most {self.bits - 1} bits" if bits > 8 else "symmetric"
            raise Rejection("weights of a channel whose sign changes", limit, f"{codes.min()}..{codes.max()}", "use symmetric weights")
        return replace(self, codes=codes, bits=bits)

    def with_zero(self) -> "Weights":
        """The same weights in one more bit, if need be, so that 0 is one of them."""
        zero, odd = divmod(-self.offset, self.gain)
        if not odd and -(1 << self.bits - 1) <= zero < 1 << self.bits - 1:
            return self
        bits = self.bits + 1
        if self.bits > 7 or self.values.min() < -(1 << bits - 1) or self.values.max() >= 1 << bits - 1:
            raise Rejection("groups of weights without a code for 0", "of at most 7 bits", self.bits, "use symmetric weights")
        return replace(self, codes=self.values, gain=1, offset=0, bits=bits)

    def quadrupled(self) -> "Weights":
        """The same weights of two more bits, in units a quarter as large."""
        return replace(self, codes=4 * self.codes, offset=4 * self.offset, scales=self.scales / 4, bits=self.bits + 2)

    def with_shifts(self) -> tuple["Weights", Integers, float]:
        """Scales ``base * 2**-shift``, the shifts, and the largest relative change of a scale.

        Where a scale changes, the channel's codes are rounded anew to the new one; otherwise they stay as they are. Dead channels take
        the base scale.
        """
        base, shifts, change = channel_shifts(self.scales, self.live)
        if change == 0.0:
            return replace(self, scales=np.where(self.live, self.scales, base)), shifts, change
        if self.gain != 1 or self.offset != 0:
            limit = "powers of two of each other"
            raise Rejection(
                "scales of asymmetric weights", limit, f"{change:.1%} off", "use symmetric weights or per_channel_multiplier=True"
            )
        scales = base * np.exp2(-shifts)
        ratio = (self.scales / scales).reshape(-1, *[1] * (self.codes.ndim - 1))
        return replace(self, codes=np.rint(self.codes * ratio).astype(np.int64), scales=scales), shifts, change


def weights_of(constant: Constant, *, ternary: bool = False) -> Weights:
    """Codes of a dequantized constant; :class:`~tercel.sw.importer.report.Rejection` for what the machine cannot hold."""
    quantized = constant.quantized
    if quantized is None:
        raise Rejection("weight", "quantized", "float values", "put a dequantize op between the stored codes and this operator")
    codes, outputs = quantized.codes, len(quantized.codes)
    if quantized.axis not in (None, 0):
        raise Rejection("weight's quantization axis", "0", quantized.axis, "one scale for each output channel")
    if codes.size and (codes.min() < quantized.low or codes.max() > quantized.high):
        raise Rejection("weight codes", f"in {quantized.low}..{quantized.high}", f"{codes.min()}..{codes.max()}", "clamp them first")
    scales = np.broadcast_to(quantized.scales, (outputs,)).astype(np.float64)
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise Rejection("weight scales", "positive and finite", f"{scales.min()}..{scales.max()}", "give dead channels any positive scale")
    zero_points = np.unique(quantized.zero_points)
    if len(zero_points) != 1:
        raise Rejection("weight zero points", "equal in all channels", f"{len(zero_points)} different", "use symmetric weights")
    return _narrowest(quantized, scales, int(zero_points[0]), ternary=ternary)


def _narrowest(quantized: QuantizedConstant, scales: Reals, zero_point: int, *, ternary: bool) -> Weights:
    """Two's complement codes of the declared range: bits, gain and offset so that ``gain * d + offset`` is code - zero point."""
    low, high, codes = quantized.low, quantized.high, quantized.codes
    levels = (high - low) // 2 + 1
    # A grid of odd levels only has no zero and half the codes: -3, -1, 1, 3 are 2 * d + 1 for d of 2 bits.
    if low % 2 and high % 2 and zero_point == 0 and low == -high and levels & (levels - 1) == 0 and levels > 2 and (codes % 2).all():
        return Weights(codes=(codes - 1) // 2, scales=scales, bits=levels.bit_length() - 1, gain=2, offset=1)
    middle = 0
    if low >= 0:
        bits = max(2, high.bit_length())
        middle = 1 << bits - 1 + bits % 2
    else:
        bits = max(2, (-low - 1).bit_length() + 1, high.bit_length() + 1)
    if bits > 8:
        raise Rejection("weight codes", "of at most 8 bits", f"{low}..{high}", "choose fewer bits for this layer")
    offset = middle - zero_point
    if not -255 <= offset <= 255:
        raise Rejection("weight zero point", f"in {middle - 255}..{middle + 255}", zero_point, "use symmetric weights")
    weights = Weights(codes=codes - middle, scales=scales, bits=bits, offset=offset)
    if ternary and (bits > 2 or codes.min(initial=0) - middle < -1):
        raise Rejection("weights", "ternary (codes -1, 0, 1)", f"{low}..{high}", "quantize with scheme ternary, or take a radix4 config")
    return weights


def merged_groups(weights: Weights, *, groups: int, lanes: int) -> tuple[Weights, int]:
    """The same convolution with groups of whole lanes, as few merged as possible; zeros between the old groups.

    ``codes`` is ``[outputs, inputs of a group, rows, columns]``. Returns the weights and the number of groups left.
    """
    outputs, inputs = len(weights.codes) // groups, weights.codes.shape[1]
    whole = (count for count in range(1, groups) if groups % count == 0 and not (inputs * count % lanes or outputs * count % lanes))
    merged = next(whole, groups)
    if merged == 1 or groups == 1:
        return weights, groups
    weights = weights.with_zero()
    zero = -weights.offset // weights.gain
    codes = np.full((len(weights.codes), inputs * merged, *weights.codes.shape[2:]), zero, dtype=np.int64)
    for channel, row in enumerate(weights.codes):
        place = channel // outputs % merged
        codes[channel, place * inputs : (place + 1) * inputs] = row
    return replace(weights, codes=codes), groups // merged


def one_hot(inputs: int, *, before: int = 0, after: int = 0, taps: tuple[int, int] = (1, 1)) -> Weights:
    """Weights of 2 bits that copy channel c to channel ``before + c`` (sums of the window for larger ``taps``); zeros for the others."""
    outputs = before + inputs + after
    codes = np.zeros((outputs, inputs, *taps), dtype=np.int64)
    codes[before + np.arange(inputs), np.arange(inputs)] = 1
    return Weights(codes=codes, scales=np.ones(outputs), bits=2)


def diagonal(channels: int, *, taps: tuple[int, int] = (1, 1)) -> Weights:
    """As :func:`one_hot` without further channels, as a convolution of one channel a group."""
    return Weights(codes=np.ones((channels, 1, *taps), dtype=np.int64), scales=np.ones(channels), bits=2)
