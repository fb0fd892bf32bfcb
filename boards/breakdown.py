"""Which block of the design the resources go to."""

import json
from collections import Counter

from tercel.boards.device import Device

OTHER = "(pins and shared)"


def parse_blocks(text: str, *, device: Device, depth: int = 2) -> dict[str, dict[str, int]]:
    """Resources of each block, largest first, from yosys' JSON netlist of a :class:`~tercel.boards.pin_wrapper.PinWrapper`.

    A block is named by the first ``depth`` parts of its path. Cells keep the path of the net they drive, so that logic on the border of
    two blocks may count for either.
    """
    cells = json.loads(text)["modules"]["top"]["cells"]
    kinds: dict[str, Counter[str]] = {}
    for name, cell in cells.items():
        parts = [part.partition("$")[0] for part in name.split(".")]
        inside = parts[0] == "inner" and len(parts) > 2
        block = ".".join(parts[1 : min(1 + depth, len(parts) - 1)]) if inside else OTHER
        kinds.setdefault(block, Counter())[cell["type"]] += 1
    counted = {block: device.count(types) for block, types in kinds.items()}
    return dict(sorted(counted.items(), key=lambda item: -item[1]["LUT4"]))
