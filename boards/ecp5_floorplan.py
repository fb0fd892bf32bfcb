"""The floorplan of ``base`` on the ECP5-85F.

The part has seven rows of 52 large sites, in groups of four, with logic between them. The depthwise engine is around the first three: a
lane has its multipliers side by side, and the block RAMs of the window scratchpad and of the records are between those of their lanes. The
array is around the last four: each pixel has its multipliers in a seventh of a row, and of the array scratchpad one byte of all banks lies
together, since the feeder may bring each bank's to each pixel. The drain's parameters and the weights are at the left, by the row of pixel
0, which takes them first and passes them on. The queues of load and store, the counters and the link's buffer are at the right, by the
pins of the memory chip. Block RAMs without a place here go where sites are left.

::

    row 10   multipliers   depthwise: lanes 0, 2, 4, 6
    row 22   block RAMs    window scratchpad and records, parameters of lanes 0, 2, 4, 6
    row 34   multipliers   depthwise: lanes 1, 3, 5, 7
    row 46   block RAMs    weights of outputs 0, 1, 2; parameters of lanes 1, 3, 5, 7; queues, counters, link
    row 58   multipliers   array: drain and activation sums
    row 70   block RAMs    the drain's parameters, array scratchpad
    row 82   block RAMs    weights of the other outputs

With the array first and the depthwise engine around the middle rows, the wires in the middle of the part were too many to route.
"""

from collections.abc import Iterator

from tercel.boards.floorplan import Floorplan
from tercel.hw.config import BASE
from tercel.hw.memory.scratchpad import BLOCKS_PER_COPY
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
    parts = [divmod(number, BLOCKS_PER_COPY) for number in range(7)]
    banks: Row = [f"array_scratchpad.bank_{bank}_{copy}.0.{part}" for copy, part in parts for bank in range(BASE.pixels)]
    parameters: Row = [f"memory_system.parameter.memory_{lane}.0.0" for lane in range(BASE.drain_lanes)]
    return parameters + banks[:48]


def _depthwise_multipliers(*, odd: bool) -> Row:
    row: Row = [None] * 4
    for lane in range(odd, BASE.lanes, 2):
        row += [f"depthwise.taps.product_{lane}_{tap}.cell" for tap in range(RECORD_TAPS)]
        row += [f"depthwise.results.requantizer_{lane}.{part}.cell" for part in ("low", "high")]
    return row


def _depthwise_memories() -> Row:
    row: Row = []
    for pair in range(BASE.lanes // 2):
        # A block RAM of the window scratchpad holds bytes of two lanes, one of the records a tap of four: its place is by either pair.
        records: Row = [f"record.tap_{tap}.0.{pair // 2}" for tap in range(RECORD_TAPS)]
        records = records[:5] if pair % 2 == 0 else [*records[5:], None]
        banks: Row = [f"window_scratchpad.bank_{bank}_0.0.{pair}" for bank in range(BASE.pixels)]
        row += [*records[:3], *banks, *records[3:], _depthwise_parameters(lane=2 * pair)]
    return row


def _depthwise_parameters(*, lane: int) -> str:
    return f"memory_system.depthwise_parameter.memory_{lane}.0.0"


def _weights(output: int) -> Row:
    # A block RAM has one digit of each word.
    return [f"memory_system.weight.memory_{BASE.lanes * output + lane}.0.0" for lane in range(BASE.lanes)]


def _middle_memories() -> Row:
    row: Row = []
    for lane in range(1, BASE.lanes, 2):
        row += [*[None] * 12, _depthwise_parameters(lane=lane)]
    # Outputs 2 and 3, whose addresses come from the same registers, are both at the left end of their rows.
    weights = _weights(2) + _weights(0) + _weights(1)
    row[:12], row[13:25] = weights[:12], weights[12:]
    queues = [f"memory_system.load.{name}" for name in ("targets.storage.0.0", "beats.storage.0.0", "beats.storage.0.1")]
    queues += [f"memory_system.store.{name}" for name in ("words.storage.0.0", "words.storage.0.1", "places.storage.0.0")]
    row[42:51] = ["sequencer.counters.sums.0.0", "sequencer.counters.sums.1.0", *queues, "link.buffer.0.0"]
    row[26:28] = "depthwise.place.queue.storage.0.0", "depthwise.place.queue.storage.0.1"
    return row


def _places() -> Iterator[tuple[str, str]]:
    rows = (
        ("MULT18", 10, _depthwise_multipliers(odd=False)),
        ("EBR", 22, _depthwise_memories()),
        ("MULT18", 34, _depthwise_multipliers(odd=True)),
        ("EBR", 46, _middle_memories()),
        ("MULT18", 58, _drain_multipliers()),
        ("EBR", 70, _array_memories()),
        ("EBR", 82, [cell for output in range(3, BASE.outputs) for cell in _weights(output)]),
    )
    for kind, row, cells in rows:
        assert len(cells) <= _SITES
        for number, cell in enumerate(cells):
            if cell is not None:
                yield cell, _site(kind, row, number)


BASE_FLOORPLAN = Floorplan(cell_types=frozenset({"DP16KD", "MULT18X18D"}), places=dict(_places()))
