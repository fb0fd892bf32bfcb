"""ECP5 carry chains (CCU2C, Lattice TN-02205) of as few cells as they need.

Place and route puts a cell behind every chain whose last carry has a net, whether something takes it or not, and a constant carry in
takes a cell in front (see :mod:`carry_constants`). A chain of an odd number of bits has half a cell to spare for that:

::

    start   cell 0   cell 1           cell 0   cell 1
    s   -   b0 b1    b2  -      ->    s   b0   b1  b2
"""

from collections import Counter
from typing import Any

from tercel.boards.carry_constants import START

Cells = dict[str, dict[str, Any]]

_NOWHERE = ["x"]
"""Of a port without a net; place and route wants the port itself."""


def shorten_carry_chains(top: dict[str, Any]) -> None:
    """Change the module ``top`` of yosys' netlist, after :func:`~tercel.boards.carry_constants.tie_carry_constants`.

    No carry has a net that nothing takes, and a cell that starts a chain stands in front only of chains without room for it.
    """
    cells: Cells = top["cells"]
    takers = Counter(bit for port in top["ports"].values() for bit in port["bits"])
    for cell in cells.values():
        outputs = {port for port, direction in cell["port_directions"].items() if direction == "output"}
        takers.update(bit for port, bits in cell["connections"].items() if port not in outputs for bit in bits)
    carries = {name: cell for name, cell in cells.items() if cell["type"] == "CCU2C"}
    for cell in carries.values():
        for port in ("S0", "S1", "COUT"):
            if port in cell["connections"] and not any(takers[bit] for bit in cell["connections"][port]):
                cell["connections"][port] = _NOWHERE
    following = {cell["connections"]["CIN"][0]: cell for cell in carries.values() if cell["connections"]["CIN"] != _NOWHERE}
    for name, cell in carries.items():
        if not name.endswith(START):
            continue
        chain = _chain(cell, following)
        if all(chain[-1]["connections"][port] == _NOWHERE for port in ("S1", "COUT")):
            _move_up(chain)
            del cells[name]


def _chain(start: dict[str, Any], following: dict[Any, dict[str, Any]]) -> list[dict[str, Any]]:
    """``start`` and the cells behind it, each of which takes the carry of the one before."""
    chain = [start]
    while cell := following.get(chain[-1]["connections"]["COUT"][0]):
        chain.append(cell)
    return chain


def _move_up(chain: list[dict[str, Any]]) -> None:
    """Move every bit half a cell towards the end, and the lower half of the start in front of them."""
    halves = [_half(cell, number) for cell in chain for number in "01"]
    # Behind the lower half of the start comes the first bit; its upper half and the end's are free.
    moved = [halves[0], *halves[2:-1]]
    chain[1]["connections"]["S0"] = _NOWHERE
    for place, (ports, parameters) in enumerate(moved):
        cell, number = chain[1 + place // 2], str(place % 2)
        cell["parameters"] |= {f"{parameter}{number}": value for parameter, value in parameters.items()}
        cell["connections"] |= {port + number: bits for port, bits in ports.items()}
    chain[1]["connections"]["CIN"] = chain[0]["connections"]["CIN"]


def _half(cell: dict[str, Any], number: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Ports with their bits, and parameters, of half a cell, without its number."""
    wires, parameters = cell["connections"], cell["parameters"]
    ports = {port: wires[port + number] for port in "ABCDS" if port + number in wires}
    return ports, {parameter: parameters[parameter + number] for parameter in ("INIT", "INJECT1_")}
