"""ECP5 carry chains (CCU2C, Lattice TN-02205) of as few cells as they need.

Place and route puts a cell behind every chain whose last carry has a net, whether something takes it or not, and a constant carry in
takes a cell in front (see :mod:`carry_constants`). A chain of an odd number of bits has half a cell to spare for that. In others a LUT
makes the lowest bit of the result, and its half of a cell only the carry, which needs no start where it depends on two signals at most:

::

    start   cell 0   cell 1                   cell 0   cell 1
    s   -   b0 b1    b2  -      ->            s   b0   b1  b2

    start   cell 0   cell 1            LUT    cell 0   cell 1
    s   -   b0 b1    b2  b3     ->     b0     c0  b1   b2  b3
"""

import itertools
from collections import Counter
from typing import Any

from tercel.boards.carry_constants import GENERATE, START

Cells = dict[str, dict[str, Any]]

FIRST = "$first"
"""Behind the name of a chain's first cell: the LUT that makes its lowest bit."""

_NOWHERE = ["x"]
"""Of a port without a net; place and route wants the port itself."""

_PINS = "ABCD"


def shorten_carry_chains(top: dict[str, Any]) -> None:
    """Change the module ``top`` of yosys' netlist, after :func:`~tercel.boards.carry_constants.tie_carry_constants`.

    No carry has a net that nothing takes, and a cell that starts a chain stands only in front of those that cannot begin without it.
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
        elif (first := _take_out_first(chain)) is not None:
            del cells[name]
            if first["connections"]["Z"] != _NOWHERE:
                cells[name.removesuffix(START) + FIRST] = first


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


def _take_out_first(chain: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The LUT that makes the lowest bit, if two signals are enough for the carry behind it; ``chain[1]`` then begins with that carry."""
    begin, first = chain[0], chain[1]
    wires, contents = first["connections"], first["parameters"]["INIT0"][::-1]
    carry = begin["parameters"]["INIT0"][::-1][GENERATE]
    inputs = [wires[f"{pin}0"][0] for pin in _PINS]
    signals = sorted({bit for bit in inputs if isinstance(bit, int)})
    sums, carries = {}, {}
    for values in itertools.product((0, 1), repeat=len(signals)):
        known = dict(zip(signals, values, strict=True))
        index = sum(known.get(bit, int(bit == "1")) << place for place, bit in enumerate(inputs))
        sums[values] = str(int(contents[index] != carry))
        carries[values] = carry if contents[index] == "1" else contents[index % 4]
    counting = [place for place in range(len(signals)) if any(carries[values] != carries[_flipped(values, place)] for values in carries)]
    if len(counting) > 2:
        return None
    table = {tuple(values[place] for place in counting): value for values, value in carries.items()}
    generate = "".join(table[tuple(index >> place & 1 for place in range(len(counting)))] for index in range(4))
    # Inputs C and D are 1: bits 12 to 15 are the propagate term, 0 to 3 the generate term.
    first["parameters"]["INIT0"] = "0" * 12 + generate[::-1]
    lowest = wires.pop("S0")
    wires |= {f"{pin}0": ["1"] for pin in _PINS} | {f"{pin}0": [signals[place]] for pin, place in zip(_PINS, counting, strict=False)}
    wires |= {"S0": _NOWHERE, "CIN": begin["connections"]["CIN"]}
    rows = [tuple(index >> place & 1 for place in range(len(signals))) for index in range(16)]
    return {
        "hide_name": 0,
        "type": "LUT4",
        "parameters": {"INIT": "".join(sums[row] for row in rows)[::-1]},
        "attributes": {},
        "port_directions": {**dict.fromkeys(_PINS, "input"), "Z": "output"},
        "connections": {pin: [bit] for pin, bit in itertools.zip_longest(_PINS, signals, fillvalue="1")} | {"Z": lowest},
    }


def _flipped(values: tuple[int, ...], place: int) -> tuple[int, ...]:
    return (*values[:place], 1 - values[place], *values[place + 1 :])


def _half(cell: dict[str, Any], number: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Ports with their bits, and parameters, of half a cell, without its number."""
    wires, parameters = cell["connections"], cell["parameters"]
    ports = {port: wires[port + number] for port in (*_PINS, "S") if port + number in wires}
    return ports, {parameter: parameters[parameter + number] for parameter in ("INIT", "INJECT1_")}
