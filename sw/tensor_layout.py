"""Where tensors lie: in external memory as bytes, in a scratchpad as pixels spread over the banks.

External memory: ``[height][width][channel groups][lanes]``, one byte a code, channels padded to groups of ``lanes``.
Weights are ``[output group][plane][ky][kx][channel group]`` words, parameters ``drain_lanes`` (depthwise: ``lanes``) channels a word.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tercel.hw.config import Config
from tercel.hw.isa import ADDR_BITS
from tercel.sw import numeric

Integers = npt.NDArray[np.int64]


def ceil_div(value: int, divisor: int) -> int:
    """``value / divisor``, rounded up."""
    return -(-value // divisor)


def pack_tensor(codes: Integers, *, lanes: int) -> bytes:
    """Bytes of a ``[height, width, channels]`` tensor of codes in external memory; padding channels are 0."""
    height, width, channels = codes.shape
    padded = np.zeros((height, width, ceil_div(channels, lanes) * lanes), dtype=np.uint8)
    padded[:, :, :channels] = numeric.code_byte(codes)
    return padded.tobytes()


def unpack_tensor(data: npt.NDArray[np.uint8], *, shape: tuple[int, int, int], lanes: int, signed: bool) -> Integers:
    """The ``[height, width, channels]`` codes that :func:`pack_tensor` made bytes of."""
    height, width, channels = shape
    groups = ceil_div(channels, lanes)
    codes = data[: height * width * groups * lanes].reshape(height, width, groups * lanes)[:, :, :channels]
    return codes.view(np.int8).astype(np.int64) if signed else codes.astype(np.int64)


def pack_array_weights(codes: Integers, *, digits: int, config: Config) -> bytes:
    """Weight words of a ``[outputs, kernel height, kernel width, inputs]`` tensor; missing outputs and inputs are code 0."""
    outputs, height, width, inputs = codes.shape
    k, n = config.lanes, config.outputs
    output_groups, groups = ceil_div(outputs, n), ceil_div(inputs, k)
    padded = np.zeros((output_groups * n, height, width, groups * k), dtype=np.int64)
    padded[:outputs, :, :, :inputs] = codes
    fields = numeric.encode_digits(padded, digits=digits, digit_set=config.digit_set)
    fields = fields.reshape(digits, output_groups, n, height, width, groups, k).transpose(1, 0, 3, 4, 5, 2, 6)
    quads = np.ascontiguousarray(fields).reshape(-1, n * k // 4, 4)
    packed = quads[:, :, 0] | quads[:, :, 1] << 2 | quads[:, :, 2] << 4 | quads[:, :, 3] << 6
    words = np.zeros((packed.shape[0], config.weight_word_bytes), dtype=np.uint8)
    words[:, : packed.shape[1]] = packed
    return words.tobytes()


def pack_parameters(*, bias: Integers, shift: Integers, multiplier: Integers, channels: int) -> bytes:
    """Eight bytes a channel, padded with zeros to a multiple of ``channels`` channels a word."""
    count = ceil_div(len(bias), channels) * channels
    entries = np.zeros(count, dtype=np.dtype([("bias", "<i4"), ("shift", "u1"), ("zero", "u1"), ("multiplier", "<u2")]))
    entries["bias"][: len(bias)] = bias
    entries["shift"][: len(bias)] = shift
    entries["multiplier"][: len(bias)] = multiplier
    return entries.tobytes()


def pack_thresholds(table: Integers, *, config: Config) -> bytes:
    """Threshold words of a flat table."""
    words = np.zeros((len(table), config.threshold_word_bytes // 2), dtype="<i2")
    words[:, 0] = table
    return words.tobytes()


def pack_depthwise_records(weights: Integers, *, config: Config) -> bytes:
    """Records of a ``[kernel height, kernel width, channels]`` tensor: 9 x ``lanes`` weights for each channel group and 3x3 pass."""
    height, width, channels = weights.shape
    k = config.lanes
    groups, down, across = ceil_div(channels, k), ceil_div(height, 3), ceil_div(width, 3)
    padded = np.zeros((3 * down, 3 * across, groups * k), dtype=np.int64)
    padded[:height, :width, :channels] = weights
    blocks = padded.reshape(down, 3, across, 3, groups, k).transpose(4, 0, 2, 1, 3, 5)
    return numeric.code_byte(blocks).tobytes()


def pack_matrix_records(weights: Integers, *, config: Config) -> bytes:
    """Records of an ``[outputs, inputs]`` matrix: for each group of ``lanes`` outputs, input group and half, tap t is input lane t."""
    outputs, inputs = weights.shape
    k = config.lanes
    groups, steps, taps = ceil_div(outputs, k), ceil_div(inputs, k), min(k, 8)
    padded = np.zeros((groups * k, steps * k), dtype=np.int64)
    padded[:outputs, :inputs] = weights
    blocks = padded.reshape(groups, k, steps * k // taps, taps).transpose(0, 2, 3, 1)
    records = np.zeros((groups, steps * k // taps, 9, k), dtype=np.int64)
    records[:, :, :taps] = blocks
    return numeric.code_byte(records).tobytes()


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A tensor in a scratchpad, or the part of its rows that lies there.

    Row slot s begins ``s * pitch`` pixels after the first pixel. With ``circular``, row y lies in slot ``(y - first_row + rotation)
    mod rows`` and instructions wrap at :meth:`limit`; ``rows * pitch`` is then a multiple of ``banks`` and ``pitch`` at least ``banks``.
    Otherwise row y lies in slot ``y - first_row``.

    Parameters
    ----------
    space
        0 array scratchpad, 1 window scratchpad.
    base
        Word address of the first line of ``banks`` pixels.
    bank
        Bank of the first pixel.
    pitch
        Pixels from row to row, at least the width.
    pixel
        Words of a pixel.
    """

    banks: int
    space: int
    base: int
    bank: int = 0
    pitch: int
    pixel: int
    rows: int
    first_row: int = 0
    circular: bool = False
    rotation: int = 0

    @staticmethod
    def words_needed(*, banks: int, bank: int, pitch: int, pixel: int, rows: int) -> int:
        """Words per bank that such a placement takes."""
        return ceil_div(bank + rows * pitch, banks) * pixel

    def pointer(self, *, row: int, column: int) -> tuple[int, int]:
        """Bank and address of a pixel, which may lie outside the image."""
        slot = row - self.first_row
        if self.circular:
            slot = (slot + self.rotation) % self.rows
        line, bank = divmod(self.bank + slot * self.pitch + column, self.banks)
        return bank, (self.base + line * self.pixel) % (1 << ADDR_BITS)

    def delta(self, *, rows: int = 0, columns: int = 0) -> tuple[int, int]:
        """What takes a pointer ``rows`` down and ``columns`` to the right."""
        line, bank = divmod(rows * self.pitch + columns, self.banks)
        return bank, (line * self.pixel) % (1 << ADDR_BITS)

    def limit(self, *, column: int) -> tuple[int, int]:
        """Limit and span for row pointers that point at ``column``."""
        if not self.circular:
            return 0, 0
        line = (self.bank + self.rows * self.pitch + column) // self.banks
        return self.base + line * self.pixel, self.rows * self.pitch // self.banks * self.pixel

    def fields(self, prefix: str, *, row: int, column: int, step: int, group: int = 0) -> dict[str, int]:
        """The fields of pointer, row delta of ``step`` rows, pixel and wrap that begin with ``prefix``, from channel group ``group`` on."""
        bank, addr = self.pointer(row=row, column=column)
        row_bank, row_addr = self.delta(rows=step)
        limit, span = self.limit(column=column)
        return {
            f"{prefix}_bank": bank,
            f"{prefix}_addr": (addr + group) % (1 << ADDR_BITS),
            f"{prefix}_row_bank": row_bank,
            f"{prefix}_row_addr": row_addr,
            f"{prefix}_pixel": self.pixel,
            f"{prefix}_limit": limit + group if limit else 0,
            f"{prefix}_span": span,
        }


def window_pitch(*, width: int, banks: int, stride: int, dilation: tuple[int, int]) -> int:
    """Pixels from row to row with which the window's reads hit the fewest banks twice.

    The depthwise engine reads, for every output, ``stride`` new columns of three rows. The smallest pitch of at least ``width``
    whose reads conflict least is taken; with 6 or more banks and no dilation it is 2 modulo ``banks``.
    """

    def conflicts(pitch: int) -> tuple[int, bool]:
        taken = [0] * banks
        for row in range(3):
            for column in range(min(stride, 3)):
                taken[(row * dilation[0] * pitch + column * dilation[1]) % banks] += 1
        return max(taken), banks >= 6 and dilation == (1, 1) and pitch % banks != 2

    return min(range(width, width + banks), key=lambda pitch: (conflicts(pitch), pitch))
