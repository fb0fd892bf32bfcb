"""LUTs in front of flip-flops in yosys' netlist."""

import copy

from tercel.boards.through_luts import THROUGH, add_through_luts


def cell(kind: str, **connections: int | str) -> dict:
    outputs = ("Q", "F", "V")
    return {
        "type": kind,
        "port_directions": {port: "output" if port in outputs else "input" for port in connections},
        "connections": {port: [bit] for port, bit in connections.items()},
    }


CELLS = {
    "high": cell("VCC", V=2),
    "alone": cell("LUT2", I0=10, I1=11, F=3),
    "shared": cell("LUT1", I0=10, F=4),
    "port": cell("LUT1", I0=11, F=12),
    "behind_alone": cell("DFFE", CLK=20, CE=10, D=3, Q=5),
    "behind_shared": cell("DFF", CLK=20, D=4, Q=6),
    "behind_port": cell("DFF", CLK=20, D=12, Q=13),
    "behind_flip_flop": cell("DFFR", CLK=20, RESET=4, D=5, Q=7),
    "behind_constant": cell("DFFS", CLK=20, SET=11, D=2, Q=8),
    "behind_digit": cell("DFF", CLK=20, D="1", Q=9),
}
PORTS = {"in": {"bits": [10, 11, 20]}, "out": {"bits": [6, 7, 8, 9, 12, 13]}}


def test_every_flip_flop_has_a_lut_for_itself() -> None:
    top = copy.deepcopy({"ports": PORTS, "cells": CELLS, "netnames": {"kept": {"bits": [3]}}})
    add_through_luts(top)
    cells = top["cells"]
    added = {name.removesuffix(THROUGH): cell for name, cell in cells.items() if name.endswith(THROUGH)}
    assert list(added) == ["behind_shared", "behind_port", "behind_flip_flop", "behind_constant", "behind_digit"]
    sources = {name: cell["connections"]["I0"][0] for name, cell in added.items()}
    assert sources == {name: CELLS[name]["connections"]["D"][0] for name in added}
    assert all(cell["type"] == "LUT1" and cell["parameters"] == {"INIT": "10"} for cell in added.values())
    bits = [cell["connections"]["F"][0] for cell in added.values()]
    assert [cells[name]["connections"]["D"][0] for name in added] == bits == list(range(21, 26))
    assert [top["netnames"][name + THROUGH]["bits"] for name in added] == [[bit] for bit in bits]
    assert top["netnames"]["kept"] == {"bits": [3]}
    assert {name: cells[name] for name in CELLS if name not in added} == {name: CELLS[name] for name in CELLS if name not in added}
