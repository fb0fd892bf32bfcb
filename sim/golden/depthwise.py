"""DEPTHWISE: per-channel convolution, pooling and the matrix-vector product."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tercel.hw.isa import Mode, Space
from tercel.sim.golden.pointers import InputWindows, Tensor, with_words
from tercel.sim.golden.state import TAPS, Bytes, Channels, MachineState, as_codes
from tercel.sw.numeric import Integers, clamp, code_byte, requantize, saturate, total_shift, wrap

_BLOCK_CODES = 1 << 18
"""Gathered codes at a time, so that they and their products stay in the caches."""
_NOTHING = -(1 << 15)
"""Below every code: what a tap outside the image counts for in MAX."""


def execute_depthwise(state: MachineState, values: Mapping[str, int]) -> None:
    """Compute all output words of a DEPTHWISE instruction, then write them. Raises :class:`EngineFault` SCRATCHPAD_RANGE."""
    config = state.config
    tensor = Tensor(values, "out", banks=config.pixels)
    if values["mode"] == Mode.MATRIX_VECTOR:
        result = _matrix_vector(state, values)[None]
        place = with_words(np.array([tensor.start[0]]), np.array([tensor.start[1]]), values["groups"] + 1)
    else:
        result = _windows(state, values)
        place = tensor.words(rows=values["rows"] + 1, columns=values["out_width"] + 1, words=values["groups"] + 1)
    bank, addr = place
    # Channel groups are the outermost loop.
    state.scratchpad(values["out_space"]).write(bank.T, addr.T, result.transpose(1, 0, 2))


def _windows(state: MachineState, values: Mapping[str, int]) -> Bytes:
    """Output words ``[pixels, groups, K]`` of the modes that slide a window."""
    windows = InputWindows(values, banks=state.config.pixels, tile=None)
    groups = values["groups"] + 1
    weights = _tap_weights(state, values, windows) if values["mode"] == Mode.CONV else None
    result = np.empty((windows.pixels, groups, state.config.lanes), dtype=np.uint8)
    codes_of = partial(as_codes, signed=bool(values["in_signed"]))
    block = max(1, _BLOCK_CODES // (windows.taps * groups * state.config.lanes))
    for first in range(0, windows.pixels, block):
        end = min(first + block, windows.pixels)
        codes = windows.gather(state.window, first, end, groups=groups, codes_of=codes_of)
        if values["mode"] == Mode.MAX:
            largest = _largest(codes, windows.locate(first, end)[2], z_in=values["z_in"])
            result[first:end] = code_byte(clamp(largest, lo=values["lo"], hi=values["hi"]))
        else:
            # 256 taps of an 8-bit weight and a 9-bit code stay within 2**23.
            sums = np.zeros((end - first, groups, state.config.lanes), dtype=np.int32)
            for tap in range(windows.taps):
                sums += codes[:, tap] if weights is None else codes[:, tap] * weights[tap]
            result[first:end] = _requantized(state, values, sums.astype(np.int64))
    return result


def _tap_weights(state: MachineState, values: Mapping[str, int], windows: InputWindows) -> npt.NDArray[np.int32]:
    """Weights ``[taps, groups, K]``, picked from the 3x3 blocks that records hold."""
    groups = values["groups"] + 1
    blocks_down, blocks_across = -(-windows.height // 3), -(-windows.width // 3)
    records = _records(state, values, groups * blocks_down * blocks_across)
    grid = records.reshape(groups, blocks_down, blocks_across, 3, 3, state.config.lanes).transpose(1, 3, 2, 4, 0, 5)
    grid = grid.reshape(3 * blocks_down, 3 * blocks_across, groups, state.config.lanes)
    return grid[: windows.height, : windows.width].reshape(windows.taps, groups, state.config.lanes)


def _records(state: MachineState, values: Mapping[str, int], count: int) -> npt.NDArray[np.int32]:
    """Weights ``[count, 9, K]`` of the instruction's records."""
    words = state.ring(Space.RECORD, start=values["record_addr"] * TAPS, count=count * TAPS)
    return words.reshape(count, TAPS, state.config.lanes).view(np.int8).astype(np.int32)


def _largest(codes: npt.NDArray[np.integer[Any]], inside: npt.NDArray[np.bool_], *, z_in: int) -> Integers:
    """The largest code of the taps inside the image, z_in where none is: ``[pixels, groups, K]``."""
    largest: Integers = np.where(inside[:, :, None, None], codes, np.int16(_NOTHING)).max(axis=1).astype(np.int64)
    largest[~inside.any(axis=1)] = z_in
    return largest


def _matrix_vector(state: MachineState, values: Mapping[str, int]) -> Bytes:
    """Output words ``[groups, K]``: one input pixel times a matrix whose rows are the taps of the records."""
    lanes = state.config.lanes
    groups, steps = values["groups"] + 1, values["steps"] + 1
    halves, taps = max(1, lanes // 8), min(lanes, 8)
    bank, addr = with_words(np.array(values["in_bank"]), np.array(values["in_addr"]), steps)
    codes = as_codes(state.window.read(bank, addr), signed=bool(values["in_signed"])).astype(np.int64)
    weights = _records(state, values, groups * steps * halves).reshape(groups, steps * halves, TAPS, lanes)[:, :, :taps]
    sums: Integers = codes.reshape(-1) @ weights.reshape(groups, steps * lanes, lanes).astype(np.int64)
    words: Bytes = _requantized(state, values, sums[None])[0]
    return words


def _requantized(state: MachineState, values: Mapping[str, int], sums: Integers) -> Bytes:
    """Stored bytes of sums ``[pixels, groups, K]``."""
    groups = 1 if values["mode"] == Mode.AVERAGE else values["groups"] + 1
    words = state.ring(Space.DEPTHWISE_PARAMETER, start=values["parameter_addr"], count=groups)
    channels = Channels.unpack(words, state.config)
    q = requantize(
        wrap(sums + channels.bias, bits=32),
        multiplier=values["multiplier"] if channels.multiplier is None else channels.multiplier,
        exponent=total_shift(values["shift"], channels.shift, multiplier_bits=state.config.multiplier_bits),
    )
    return code_byte(clamp(saturate(q, zero_point=values["z_out"]), lo=values["lo"], hi=values["hi"]))
