"""A LUT in front of every flip-flop that has none, on parts where a flip-flop's input comes through the LUT beside it."""

from collections import Counter
from typing import Any

THROUGH = "$through"
_PASS = "10"
"""Contents of a LUT1 whose output is its input."""


def add_through_luts(top: dict[str, Any]) -> None:
    """Change the module ``top`` of yosys' netlist so that each ``DFF*`` has a LUT for itself.

    Place and route keeps a flip-flop and a LUT together that drives nothing else, and puts such pairs down before single LUTs.
    """
    cells: dict[str, dict] = top["cells"]
    drivers: dict[int | str, str] = {}
    users: Counter[int | str] = Counter(bit for port in top["ports"].values() for bit in port["bits"])
    for cell in cells.values():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "output":
                drivers.update(dict.fromkeys(bits, cell["type"]))
            else:
                users.update(bits)
    following = 1 + max(bit for bit in (*drivers, *users) if isinstance(bit, int))
    for name, cell in list(cells.items()):
        if not cell["type"].startswith("DFF"):
            continue
        (source,) = cell["connections"]["D"]
        if drivers.get(source, "").startswith("LUT") and users[source] == 1:
            continue
        cells[name + THROUGH] = {
            "hide_name": 0,
            "type": "LUT1",
            "parameters": {"INIT": _PASS},
            "attributes": {},
            "port_directions": {"I0": "input", "F": "output"},
            "connections": {"I0": [source], "F": [following]},
        }
        top["netnames"][name + THROUGH] = {"hide_name": 0, "bits": [following], "attributes": {}}
        cell["connections"]["D"] = [following]
        following += 1
