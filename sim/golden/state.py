"""What instructions read and write: scratchpads, linear memories, external memory.

All on-chip memories start as zeros.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tercel.hw.config import Config
from tercel.hw.isa import Fault, Space

Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

TAPS = 9
"""Words of K bytes in a record of the depthwise engine."""


class EngineFault(Exception):
    """An instruction stops its engine. ``code`` is the fault that the machine reports."""

    def __init__(self, code: Fault) -> None:
        super().__init__(code.name)
        self.code = code


class Scratchpad:
    """P banks of ``depth`` words of K bytes."""

    def __init__(self, *, banks: int, depth: int, lanes: int) -> None:
        self.depth = depth
        self.lanes = lanes
        self.banks: Bytes = np.zeros((banks, depth, lanes), dtype=np.uint8)
        self._words = self.banks.reshape(banks * depth, lanes)

    def read(self, bank: Indices, addr: Indices) -> Bytes:
        """Words ``[*addr.shape, K]``; :class:`EngineFault` SCRATCHPAD_RANGE if any address is at or past the depth."""
        return np.take(self._words, self._index(bank, addr), axis=0)

    def write(self, bank: Indices, addr: Indices, words: Bytes) -> None:
        """Store ``words[*addr.shape, K]``; where two go to one place, the later one (in C order) stays. Faults as :meth:`read`."""
        self._words[self._index(bank, addr)] = words

    def _index(self, bank: Indices, addr: Indices) -> Indices:
        if addr.size and addr.max() >= self.depth:
            raise EngineFault(Fault.SCRATCHPAD_RANGE)
        return bank * self.depth + addr


def as_codes(words: Bytes, *, signed: bool) -> npt.NDArray[np.int8] | Bytes:
    """The same bytes as activation codes."""
    return words.view(np.int8) if signed else words


def as_array_codes(words: Bytes, *, signed: bool) -> Bytes:
    """The same bytes as ARRAY takes them: unsigned, 128 greater than their codes where those are signed."""
    return words ^ np.uint8(128) if signed else words


class MachineState:
    """All on-chip memories of a config.

    Attributes
    ----------
    array, window
        The scratchpads (``window`` has depth 0 without the depthwise engine).
    linear
        The linear memories: uint8 ``[depth, bytes]`` in the format of their words in external memory. Records are stored by the
        tap: ``[record_depth * 9, K]``.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.array = Scratchpad(banks=config.pixels, depth=config.array_depth, lanes=config.lanes)
        self.window = Scratchpad(banks=config.pixels, depth=config.window_depth, lanes=config.lanes)
        shapes = {
            Space.WEIGHT: (config.weight_depth, config.weight_word_bytes),
            Space.PARAMETER: (config.parameter_depth, config.parameter_word_bytes),
            Space.RECORD: (config.record_depth * TAPS, config.lanes),
            Space.DEPTHWISE_PARAMETER: (config.record_depth, config.depthwise_parameter_word_bytes),
            Space.THRESHOLD: (config.threshold_depth, config.threshold_word_bytes),
        }
        self.linear: dict[Space, Bytes] = {space: np.zeros(shape, dtype=np.uint8) for space, shape in shapes.items()}

    def scratchpad(self, space: int) -> Scratchpad:
        """The scratchpad of ``Space.ARRAY`` (0) or ``Space.WINDOW`` (1)."""
        return self.window if space == Space.WINDOW else self.array

    def ring(self, space: Space, *, start: int, count: int) -> Bytes:
        """``count`` words ``[count, bytes]`` of a linear memory from word ``start`` on, around its end."""
        memory = self.linear[space]
        if start + count <= len(memory):
            return memory[start : start + count]
        return memory[(start + np.arange(count)) % len(memory)]


@dataclass(frozen=True)
class Channels:
    """Per-channel parameters of a requantizer: int64 arrays of one shape. ``multiplier`` is None where the config stores none."""

    bias: Indices
    shift: Indices
    multiplier: Indices | None

    @classmethod
    def unpack(cls, words: Bytes, config: Config) -> "Channels":
        """From parameter words ``[..., 8 * channels]``; the arrays are ``[..., channels]``."""
        entries = words.reshape(*words.shape[:-1], -1, 8)
        bias = np.ascontiguousarray(entries[..., 0:4]).view("<i4")[..., 0].astype(np.int64)
        shift = (entries[..., 4] & 0xF).astype(np.int64)
        if not config.per_channel_multiplier:
            return cls(bias=bias, shift=shift, multiplier=None)
        multiplier = np.ascontiguousarray(entries[..., 6:8]).view("<u2")[..., 0].astype(np.int64)
        return cls(bias=bias, shift=shift, multiplier=multiplier & (1 << config.multiplier_bits) - 1)


class ExternalMemory:
    """The bytes behind the memory port, address = index, with the regions that loads and stores may touch."""

    def __init__(self, data: Bytes, *, read_base: int, read_end: int, write_base: int, write_end: int) -> None:
        for name, value in (("read_base", read_base), ("read_end", read_end), ("write_base", write_base), ("write_end", write_end)):
            if not 0 <= value < 1 << 32:
                raise ValueError(f"{name} must be in 0..2**32-1, not {value} (it is a 32-bit register)")
        self.data = data
        self.read_region = (read_base, read_end)
        self.write_region = (write_base, write_end)

    def span(self, addr: int, count: int) -> Bytes:
        """A view of ``count`` bytes; ValueError where the region allows more than there is memory."""
        if count and addr + count > len(self.data):
            raise ValueError(
                f"memory must hold address {addr + count - 1:#x}, but has {len(self.data):#x} bytes (give more memory or a smaller region)"
            )
        return self.data[addr : addr + count]
