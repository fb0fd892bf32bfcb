"""LOAD and STORE instructions for parts of tensors and for the linear memories."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from tercel.hw.isa import Opcode, Space
from tercel.sw.program import Port
from tercel.sw.tensor_layout import Placement

_COUNT_LIMIT = 4096


class Instructions(Protocol):
    """What takes instructions: an :class:`~tercel.sw.emitter.Emitter`, a compiler's trace."""

    def add(self, opcode: Opcode, values: Mapping[str, int], *, after: Iterable[int] = ()) -> int:
        """Append an instruction that may start when those ``after`` have landed; returns its index."""
        ...


def move_tensor(
    emitter: Instructions,
    opcode: Opcode,
    port: Port,
    placement: Placement,
    *,
    rows: int,
    column: int,
    columns: int,
    after: Iterable[int],
) -> int:
    """LOAD into, or STORE out of, ``placement`` of a rectangle of a tensor; returns the instruction's index.

    The rectangle's rows are those from ``placement.first_row`` on, its first column lies at the placement's column 0. Channel groups
    that the placement has and the tensor has not stay untouched.
    """
    pixel_bytes = port.groups * port.lanes
    values = placement.fields("spad", row=placement.first_row, column=0, step=1)
    values |= {
        "space": placement.space,
        "memory_addr": port.address + (placement.first_row * port.columns + column) * pixel_bytes,
        "memory_row": port.columns * pixel_bytes,
        "rows": rows - 1,
        "pixels": columns - 1,
        "groups": port.groups - 1,
    }
    return emitter.add(opcode, values, after=after)


def move_groups(
    emitter: Instructions,
    opcode: Opcode,
    port: Port,
    placement: Placement,
    *,
    rows: int,
    columns: int,
    groups: tuple[int, int],
    after: list[int],
) -> list[int]:
    """As :func:`move_tensor` of whole rows, but only some channel groups: the first of them and their number.

    All groups take one instruction; some take one a row, because a pixel's other groups lie between in external memory.
    """
    first, count = groups
    if count == port.groups:
        return [move_tensor(emitter, opcode, port, placement, rows=rows, column=0, columns=columns, after=after)]
    pixel_bytes = port.groups * port.lanes
    pixel_bank, pixel_addr = placement.delta(columns=1)
    indices = []
    for row in range(placement.first_row, placement.first_row + rows):
        bank, addr = placement.pointer(row=row, column=0)
        values = {
            "space": placement.space,
            "memory_addr": port.address + row * port.columns * pixel_bytes + first * port.lanes,
            "memory_row": pixel_bytes,
            "rows": columns - 1,
            "groups": count - 1,
            "spad_bank": bank,
            "spad_addr": addr,
            "spad_row_bank": pixel_bank,
            "spad_row_addr": pixel_addr,
            "spad_pixel": placement.pixel,
        }
        indices.append(emitter.add(opcode, values, after=after))
    return indices


def load_words(
    emitter: Instructions, space: Space, *, address: int, word_bytes: int, first: int, count: int, depth: int, after: Iterable[int]
) -> list[int]:
    """LOADs of ``count`` words (records of 9 memory words) into a linear memory from word ``first`` on; returns their indices."""
    per_word = 9 if space is Space.RECORD else 1
    indices = []
    waits = list(after)
    for start in range(0, count, _COUNT_LIMIT):
        values = {
            "space": int(space),
            "memory_addr": address + start * per_word * word_bytes,
            "pixels": min(_COUNT_LIMIT, count - start) - 1,
            "groups": per_word - 1,
            "addr_linear": (first + start) % depth,
        }
        indices.append(emitter.add(Opcode.LOAD, values, after=waits))
    return indices
