"""Carry cells compute the same with constants tied high as with constants brought to them."""

import copy
import itertools
import random

import pytest
from carry_cells import PINS, carry_cell

from tercel.boards.carry_constants import START, tie_carry_constants


def netlist(cells):
    directions = {**dict.fromkeys([*PINS, "CIN"], "input"), **dict.fromkeys(["S0", "S1", "COUT"], "output")}
    made = {
        name: {
            "type": "CCU2C",
            "parameters": {"INIT0": inits[0], "INIT1": inits[1], "INJECT1_0": "NO", "INJECT1_1": "NO"},
            "port_directions": directions,
            "connections": {**{pin: [bit] for pin, bit in zip([*PINS, "CIN"], bits, strict=True)}, "S0": [90], "S1": [91], "COUT": [92]},
        }
        for name, inits, bits in cells
    }
    return {"modules": {"top": {"ports": {}, "netnames": {}, "cells": made}}}


def edited(content):
    top = copy.deepcopy(content["modules"]["top"])
    tie_carry_constants(top)
    return top["cells"]


@pytest.mark.parametrize("seed", range(12))
def test_computes_the_same_without_a_zero(seed):
    rng = random.Random(seed)
    nets = [2, 3, 4, 5]
    for _ in range(40):
        inits = ["".join(rng.choices("01", k=16)) for _ in range(2)]
        bits = [rng.choice([*nets, "0", "0", "1"]) for _ in range(9)]
        before = netlist([("cell", inits, bits)])
        after = edited(before)
        old, new = before["modules"]["top"]["cells"]["cell"], after["cell"]
        assert not {new["connections"][letter + half][0] for letter in "CD" for half in "01"} & {"0"}
        for letters in ("A", "B"):
            assert all(new["connections"][letters + half] == old["connections"][letters + half] for half in "01")
        for drawn in itertools.product((0, 1), repeat=5):
            values = dict(zip([*nets, "floating"], drawn, strict=True))
            if isinstance(bits[8], str):
                values[new["connections"]["CIN"][0]] = carry_cell(after["cell" + START], values)[2]
            assert carry_cell(new, values) == carry_cell(old, values)


def test_only_carry_cells_with_a_constant_change():
    before = netlist([("cell", ["1001011010101010"] * 2, [2, 3, 4, 5, 2, 3, 4, 5, 6])])
    cells = before["modules"]["top"]["cells"]
    cells["lut"] = {"type": "LUT4", "parameters": {}, "port_directions": {"A": "input"}, "connections": {"A": ["0"]}}
    assert edited(before) == cells
