"""Constant inputs of ECP5 carry cells, without wires.

An input of a carry cell (CCU2C, Lattice TN-02205) can be tied high inside the tile. Place and route brings every other constant over one
net of the whole chip: in ``base`` thousands of inputs that are 0, and the carries into more than a thousand chains. A router that must
move one trunk of this net has to route everything behind it again. So the LUT in front of the carry is changed instead.

::

    C = D = 0      both tied high, and the LUT holds for 11 what it held for 00
    D = 0          D gets C's signal, and the LUT holds for 11 what it held for C = 1, D = 0; for C = 0 likewise
    carry in       a cell in front whose propagate term is 0 and whose generate term is the constant

The generate term is the LUT's with C = D = 0, which stays as it is. A and B are left to place and route, which ties them high.
"""

from typing import Any

START = "$start"
"""Behind the name of a chain's first cell: the cell in front of it."""

GENERATE = 3
"""Bit of a starting cell's lower LUT that is the carry; bit 0 is written last."""

_QUARTER = 4
"""Bits of the LUT's contents for each value of (D, C)."""
_PASSES = "1" * 16


def tie_carry_constants(top: dict[str, Any]) -> None:
    """Change the module ``top`` of yosys' netlist so that no input C, D or CIN of a carry cell is 0, and no CIN is 1."""
    cells: dict[str, dict[str, Any]] = top["cells"]
    bits = [bit for cell in cells.values() for bits in cell["connections"].values() for bit in bits]
    following = 1 + max((bit for bit in bits if isinstance(bit, int)), default=1)
    for name, cell in list(cells.items()):
        if cell["type"] != "CCU2C":
            continue
        for half in "01":
            _tie(cell, half)
        (carry,) = cell["connections"]["CIN"]
        if carry in ("0", "1"):
            cells[name + START] = _start(carry, following)
            top["netnames"][name + START] = {"hide_name": 0, "bits": [following], "attributes": {}}
            cell["connections"]["CIN"] = [following]
            following += 1


def _tie(cell: dict[str, Any], half: str) -> None:
    wires, init = cell["connections"], f"INIT{half}"
    c, d = (wires[letter + half][0] for letter in "CD")
    if "0" not in (c, d):
        return
    # Written with the highest bit first: DC = 11, 10, 01, 00.
    contents = cell["parameters"][init]
    _, only_d, only_c, none = (contents[start : start + _QUARTER] for start in range(0, 4 * _QUARTER, _QUARTER))
    if c in ("0", "1") and d in ("0", "1"):
        both, tied = {"00": none, "10": only_c, "01": only_d}[c + d], "1"
    elif d == "0":
        both, tied = only_c, c
    else:
        both, tied = only_d, d
    wires["C" + half] = wires["D" + half] = [tied]
    cell["parameters"][init] = both + contents[_QUARTER:]


def _start(carry: str, out: int) -> dict[str, Any]:
    """A cell whose lower half generates ``carry`` and propagates nothing, and whose upper half passes it on."""
    inputs = [letter + half for half in "01" for letter in "ABCD"]
    return {
        "hide_name": 0,
        "type": "CCU2C",
        # All inputs are 1: bit 15 is the propagate term, bit 3 the generate term.
        "parameters": {"INIT0": "0" * 12 + carry + "0" * 3, "INIT1": _PASSES, "INJECT1_0": "NO", "INJECT1_1": "YES"},
        "attributes": {},
        "port_directions": {**dict.fromkeys([*inputs, "CIN"], "input"), "COUT": "output"},
        "connections": {**{port: ["1"] for port in inputs}, "CIN": ["x"], "COUT": [out]},
    }
