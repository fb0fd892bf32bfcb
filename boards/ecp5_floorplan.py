"""The floorplan of ``base`` on the ECP5-85F.

The part has seven rows of 52 large sites, in groups of four, with logic between them. An array pixel's multipliers are in the first row
and the block RAMs of the array scratchpad below them; one byte of all banks lies together, since the feeder may bring each bank's to each
pixel. Each half of the depthwise engine's lanes has a row of multipliers, a lane's side by side, and below it the block RAMs of the window
scratchpad and the records that hold its bytes. Block RAMs without a place here go where sites are left.

::

    row 10   multipliers   array: drain and activation sums, each pixel in a seventh of the row
    row 22   block RAMs    array scratchpad, the drain's parameters in the middle
    row 34   multipliers   depthwise: lanes 0 to 3
    row 46   block RAMs    window scratchpad and records of these
    row 58   multipliers   depthwise: lanes 4 to 7
    row 70   block RAMs    window scratchpad and records of these
    row 82   block RAMs
"""

from collections.abc import Iterator

from tercel.boards.floorplan import Floorplan
from tercel.hw.config import BASE
from tercel.hw.memory.space import RECORD_TAPS

_GROUPS = (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)
"""Columns at which a group of four sites begins."""
_SITES = 4 * len(_GROUPS)
_OFFSETS = {"EBR": (0, 2, 4, 6), "MULT18": (0, 1, 4, 5)}
"""Columns of its sites, from there."""

Row = list[str | None]
"""Cells of a row of sites from left to right; None where there is none or place and route chooses one."""


def _site(kind: str, row: int, number: int) -> str:
    group, index = divmod(number, 4)
    offset = _OFFSETS[kind][index]
    name = f"EBR{index}" if kind == "EBR" else f"MULT18_{offset}"
    return f"X{_GROUPS[group] + offset}/Y{row}/{name}"


def _drain_multipliers() -> Row:
    row: Row = [None] * _SITES
    for pixel in range(BASE.pixels):
        cells = [f"array.drain.row_{pixel}.products.product_{lane}.cell" for lane in range(BASE.drain_lanes)]
        cells.append(f"array.array.activations_{pixel}.product.cell")
        # Evenly over the row: the middle of each pixel's is the middle of a seventh.
        first = (_SITES * (2 * pixel + 1) - BASE.pixels * len(cells)) // (2 * BASE.pixels)
        row[first : first + len(cells)] = cells
    return row


def _array_memories() -> Row:
    # Each block RAM holds nine of a word's 64 bits, the last one only one: those, and one more for which there is no site, lie anywhere.
    banks: Row = [f"array_scratchpad.bank_{bank}.0.{part}" for part in range(7) for bank in range(BASE.pixels)]
    parameters: Row = [f"memory_system.parameter.memory_0.0.{part}" for part in range(4)]
    return banks[:24] + parameters + banks[24:48]


def _depthwise_multipliers(*, half: int) -> Row:
    row: Row = [None] * 4
    for lane in range(4 * half, 4 * half + 4):
        row += [f"depthwise.taps.product_{lane}_{tap}.cell" for tap in range(RECORD_TAPS)]
        row += [f"depthwise.results.requantizer_{lane}.{part}.cell" for part in ("low", "high")]
    return row


def _depthwise_memories(*, half: int) -> Row:
    # A block RAM of the window scratchpad holds bytes of two lanes, one of the records a tap of four.
    row: Row = []
    records: Row = [f"record.tap_{tap}.0.{half}" for tap in range(RECORD_TAPS)]
    for pair, beside in ((2 * half, records[:4]), (2 * half + 1, records[4:])):
        banks: Row = [f"window_scratchpad.bank_{bank}.0.{pair}" for bank in range(BASE.pixels)]
        cells = [*beside[:2], *banks, *beside[2:]]
        left = _SITES // 2 - len(cells)
        row += [None] * (left // 2) + cells + [None] * (left - left // 2)
    return row


def _places() -> Iterator[tuple[str, str]]:
    rows = (
        ("MULT18", 10, _drain_multipliers()),
        ("EBR", 22, _array_memories()),
        ("MULT18", 34, _depthwise_multipliers(half=0)),
        ("EBR", 46, _depthwise_memories(half=0)),
        ("MULT18", 58, _depthwise_multipliers(half=1)),
        ("EBR", 70, _depthwise_memories(half=1)),
    )
    for kind, row, cells in rows:
        assert len(cells) <= _SITES
        for number, cell in enumerate(cells):
            if cell is not None:
                yield cell, _site(kind, row, number)


BASE_FLOORPLAN = Floorplan(cell_types=frozenset({"DP16KD", "MULT18X18D"}), places=dict(_places()))
