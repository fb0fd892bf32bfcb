"""ARRAY: convolution by gathering the codes under each output pixel's window and one exact matrix product.

::

    codes [pixels, taps * groups * K] @ weights [taps * groups * K, output groups * N (+ 1)] -> sums -> requantize -> codes

The digits of all planes are added up into whole weights first, and the sums are taken modulo 2**32 at the end, which is the same
because both are linear.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tercel.hw.config import NARROW_BITS, Config
from tercel.hw.isa import Space
from tercel.sim.golden.pointers import InputWindows, Tensor
from tercel.sim.golden.state import Bytes, Channels, MachineState, as_array_codes
from tercel.sw.numeric import (
    Integers,
    clamp,
    code_byte,
    count_thresholds,
    digit_value,
    requantize,
    residual_term,
    saturate,
    total_shift,
    wrap,
)

THRESHOLDS_PER_CHANNEL = 16
_BLOCK_CODES = 1 << 20
"""Gathered codes per matrix product: small enough for the caches, large enough for BLAS."""
_FLOAT32_EXACT = 1 << 24
_LARGEST_CODE = 255

Real = npt.NDArray[np.floating[Any]]


def execute_array(state: MachineState, values: Mapping[str, int]) -> None:
    """Compute all output pixels of an ARRAY instruction, then write them. Raises :class:`EngineFault` SCRATCHPAD_RANGE."""
    config = state.config
    windows = InputWindows(values, banks=config.pixels, tile=config.pixels)
    words = (values["output_groups"] + 1) * config.words_per_tile
    rows = values["rows"] + 1
    weights = _weight_matrix(state, values, taps=windows.taps)
    drain = _Drain(state, values)
    result = np.empty((windows.pixels, words * config.lanes), dtype=np.uint8)
    if values["residual"]:
        res_bank, res_addr = Tensor(values, "res", banks=config.pixels).words(rows=rows, columns=windows.columns, words=words)

    codes_of = partial(as_array_codes, signed=bool(values["in_signed"]))
    block = max(1, _BLOCK_CODES // len(weights))
    for first in range(0, windows.pixels, block):
        end = min(first + block, windows.pixels)
        codes = windows.gather(state.array, first, end, groups=values["groups"] + 1, codes_of=codes_of)
        sums: Real = codes.reshape(end - first, -1).astype(weights.dtype) @ weights
        v = drain.sums(sums.astype(np.int64))
        added = drain.residual(state.array.read(res_bank[first:end], res_addr[first:end])) if values["residual"] else None
        result[first:end] = drain.codes(v, added)

    out_bank, out_addr = Tensor(values, "out", banks=config.pixels).words(rows=rows, columns=windows.columns, words=words)
    state.scratchpad(values["out_space"]).write(out_bank, out_addr, result.reshape(windows.pixels, words, config.lanes))


def _weight_matrix(state: MachineState, values: Mapping[str, int], *, taps: int) -> Real:
    """Weights ``[taps * groups * K, output channels]`` without their constant; with ``offset`` a last column of ones.

    Rows of lanes that the last channel group does not have are zero, so what is read there does not count. float32 where no sum can
    leave the range in which it is exact, float64 (always exact here: below 2**40) otherwise.
    """
    config = state.config
    planes, groups, output_groups = values["digits"] + 1, values["groups"] + 1, values["output_groups"] + 1
    words = state.ring(Space.WEIGHT, start=values["weight_addr"], count=output_groups * planes * taps * groups)
    digits = _digit_table(config)[words[:, : config.outputs * config.lanes // 4]]
    digits = digits.reshape(output_groups, planes, taps * groups, config.outputs, config.lanes)
    whole = digits[:, 0].astype(np.int16)
    for plane in range(1, planes):
        whole = 4 * whole + digits[:, plane]
    channels = output_groups * config.outputs
    lanes = np.zeros((taps, groups, config.lanes, channels + (values["offset"] != 0)), dtype=np.int16)
    lanes[..., :channels] = whole.transpose(1, 3, 0, 2).reshape(taps, groups, config.lanes, channels)
    lanes[..., channels:] = 1
    lanes[:, -1, values["last_lanes"] + 1 :] = 0
    matrix = lanes.reshape(taps * groups * config.lanes, -1)
    # No code is negative, so in whatever order they are added, sums stay between those of the negative and of the positive weights.
    positive, negative = (int(np.maximum(part, 0).sum(axis=0, dtype=np.int64).max()) for part in (matrix, -matrix))
    bound = max(positive, negative) * _LARGEST_CODE
    return matrix.astype(np.float32 if bound < _FLOAT32_EXACT else np.float64)


def _digit_table(config: Config) -> npt.NDArray[np.int8]:
    """The four digits in a byte of a weight word ``[256, 4]``, lowest bits first."""
    fields = (np.arange(256)[:, None] >> np.arange(0, 8, 2) & 3).astype(np.uint8)
    return digit_value(fields, config.digit_set)


class _Drain:
    """From sums of all output channels ``[pixels, channels]`` to stored codes."""

    def __init__(self, state: MachineState, values: Mapping[str, int]) -> None:
        config = state.config
        self._values = values
        self._multiplier_bits = config.multiplier_bits
        count = (values["output_groups"] + 1) * config.drain_groups
        words = state.ring(Space.PARAMETER, start=values["parameter_addr"], count=count)
        self._channels = Channels.unpack(words[:, : 8 * config.drain_lanes].reshape(-1), config)
        self._multiplier = values["multiplier"] if self._channels.multiplier is None else self._channels.multiplier
        self._thresholds: Integers | None = None
        if values["thresholds"]:
            channel = np.zeros(1, dtype=np.int64) if values["threshold_shared"] else np.arange(len(self._channels.bias))
            place = values["threshold_addr"] + channel[:, None] * THRESHOLDS_PER_CHANNEL + np.arange(values["thresholds"])
            entries = state.linear[Space.THRESHOLD][place % config.threshold_depth, :2]
            self._thresholds = np.ascontiguousarray(entries).view("<i2")[..., 0].astype(np.int64)

    def sums(self, sums: Integers) -> Integers:
        """v: the sums times gain plus bias, and plus the sum of activations where there is a column of it."""
        channels = len(self._channels.bias)
        v = sums[:, :channels] << self._values["gain"]
        v += self._channels.bias
        if self._values["offset"]:
            v += sums[:, channels:] * self._values["offset"]
        return wrap(v, bits=NARROW_BITS if self._values["narrow"] else 32)

    def residual(self, words: Bytes) -> Integers:
        """The residual terms of ``words[pixels, words, K]``."""
        values = self._values
        return residual_term(
            as_array_codes(words, signed=bool(values["res_signed"])).reshape(len(words), -1),
            zero_point=values["z_res"],
            multiplier=values["res_multiplier"],
            shift=values["res_shift"],
            channel_shift=self._channels.shift,
        )

    def codes(self, v: Integers, residual: Integers | None) -> Bytes:
        """Stored bytes ``[pixels, channels]``."""
        values = self._values
        narrow = bool(values["narrow"])
        e = total_shift(values["shift"], self._channels.shift, multiplier_bits=self._multiplier_bits, narrow=narrow)
        q = requantize(
            v,
            multiplier=self._multiplier,
            exponent=e,
            residual=0 if residual is None else residual,
        )
        p = saturate(q, zero_point=values["z_out"])
        if self._thresholds is not None:
            return code_byte(count_thresholds(p, self._thresholds))
        return code_byte(clamp(p, lo=values["lo"], hi=values["hi"]))
