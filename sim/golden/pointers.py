"""Pointer arithmetic: from the pointers and deltas of an instruction to banks and addresses, for many pixels at once."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tercel.hw.isa import ADDR_BITS
from tercel.sim.golden.state import Bytes, Indices, Scratchpad

ADDR_MASK = (1 << ADDR_BITS) - 1
Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.integer[Any]]


class Tensor:
    """The pixels of a tensor in a scratchpad, as the fields that begin with ``prefix`` describe them."""

    def __init__(self, values: Mapping[str, int], prefix: str, *, banks: int) -> None:
        self.banks = banks
        self.start = (values[f"{prefix}_bank"], values[f"{prefix}_addr"])
        self.row_delta = (values[f"{prefix}_row_bank"], values[f"{prefix}_row_addr"])
        self.pixel = values[f"{prefix}_pixel"]
        self.limit = values[f"{prefix}_limit"]
        self.span = values[f"{prefix}_span"]

    def add_row(self, pointer: tuple[int, int], delta: tuple[int, int]) -> tuple[int, int]:
        """``pointer`` plus a row delta, wrapped into the circular buffer."""
        carry, bank = divmod(pointer[0] + delta[0], self.banks)
        addr = (pointer[1] + delta[1] + carry * self.pixel) & ADDR_MASK
        if self.limit and addr >= self.limit:
            addr = (addr - self.span) & ADDR_MASK
        return bank, addr

    def rows(self, count: int) -> list[tuple[int, int]]:
        """Pointers of the first pixel of ``count`` rows."""
        pointers = [self.start]
        while len(pointers) < count:
            pointers.append(self.add_row(pointers[-1], self.row_delta))
        return pointers

    def locate(self, bank: Indices, addr: Indices) -> tuple[Indices, Indices]:
        """Bank and address for a sum of banks that has not been carried yet."""
        return bank % self.banks, (addr + bank // self.banks * self.pixel) & ADDR_MASK

    def words(self, *, rows: int, columns: int, words: int) -> tuple[Indices, Indices]:
        """Bank and address ``[rows * columns, words]`` of the first ``words`` words of the first ``columns`` pixels of each row."""
        pointers = np.array(self.rows(rows), dtype=np.int64)
        bank, addr = self.locate(pointers[:, :1] + np.arange(columns), pointers[:, 1:])
        return with_words(bank.ravel(), addr.ravel(), words)


def with_words(bank: Indices, addr: Indices, count: int) -> tuple[Indices, Indices]:
    """Bank and address ``[..., count]`` of ``count`` words from each address on."""
    addr = (addr[..., None] + np.arange(count)) & ADDR_MASK
    return np.broadcast_to(bank[..., None], addr.shape), addr


class InputWindows:
    """The input pixels under the kernel for each output pixel of an ARRAY or DEPTHWISE instruction.

    Output pixels are numbered ``row * columns + x``, taps ``ky * kernel_width + kx``. ``tile`` is the number of output pixels after which
    ``in_tile`` is added, and of which there are ``tiles``; None: pixels lie ``stride`` apart over the whole row.
    """

    def __init__(self, values: Mapping[str, int], *, banks: int, tile: int | None) -> None:
        self.tensor = Tensor(values, "in", banks=banks)
        self.z_in = values["z_in"]
        self.columns = values["out_width"] + 1 if tile is None else min(values["out_width"] + 1, (values["tiles"] + 1) * tile)
        self.pixels = self.columns * (values["rows"] + 1)
        self.height, self.width = values["kernel_height"] + 1, values["kernel_width"] + 1
        self.taps = self.height * self.width
        stride = values["stride"] + 1
        x, kx = np.arange(self.columns)[:, None], np.arange(self.width)
        tiles, pixel = (0, x) if tile is None else (x // tile, x % tile)
        self._column_bank = kx * values["in_kx_bank"] + pixel * stride
        self._column_addr = kx * values["in_kx_addr"] + tiles * values.get("in_tile", 0) + 0 * x
        column = values["x_start"] + x * stride + kx * values["dilation_x"]
        self._column_inside = (column >= 0) & (column < values["in_width"])
        row = values["y_start"] + np.arange(values["rows"] + 1)[:, None] * stride + np.arange(self.height) * values["dilation_y"]
        self._row_inside = (row >= 0) & (row < values["in_height"])
        kernel_delta = (values["in_ky_bank"], values["in_ky_addr"])
        pointers = []
        for row_pointer in self.tensor.rows(values["rows"] + 1):
            pointers.append(row_pointer)
            for _ in range(self.height - 1):
                pointers.append(self.tensor.add_row(pointers[-1], kernel_delta))
        self._row_pointers = np.array(pointers, dtype=np.int64).reshape(-1, self.height, 2)

    def locate(self, first: int, end: int) -> tuple[Indices, Indices, Mask]:
        """Bank, address (of channel group 0) and whether inside the image, ``[end - first, taps]``, of output pixels ``first..end-1``."""
        row, x = np.divmod(np.arange(first, end), self.columns)
        bank = self._row_pointers[row, :, None, 0] + self._column_bank[x, None, :]
        addr = self._row_pointers[row, :, None, 1] + self._column_addr[x, None, :]
        inside = self._row_inside[row, :, None] & self._column_inside[x, None, :]
        bank, addr = self.tensor.locate(bank, addr)
        shape = (end - first, self.taps)
        return bank.reshape(shape), addr.reshape(shape), inside.reshape(shape)

    def gather(self, scratchpad: Scratchpad, first: int, end: int, *, groups: int, codes_of: Callable[[Bytes], Codes]) -> Codes:
        """Codes ``[end - first, taps, groups, K]``: ``codes_of`` the pixels that :meth:`locate` names; z_in outside the image."""
        bank, addr, inside = self.locate(first, end)
        bank, addr = with_words(bank, addr, groups)
        if inside.all():
            return codes_of(scratchpad.read(bank, addr))
        codes = np.full((*addr.shape, scratchpad.lanes), self.z_in, dtype=np.int16)
        codes[inside] = codes_of(scratchpad.read(bank[inside], addr[inside]))
        return codes
