"""Carry chains compute the same in fewer cells."""

import copy
import itertools
import random

import pytest
from carry_cells import PINS, carry_cell

from tercel.boards.carry_chains import FIRST, shorten_carry_chains
from tercel.boards.carry_constants import START, tie_carry_constants

INPUTS = (2, 3, 4, 5)
FABRIC = 6


def netlist(rng, *, bits, carry, carry_out):
    """A module with one chain; sum bit i is net 100 + i, carries are nets from 200 on, and those of ``taken`` have a user."""
    cells, taken = {}, [100 + bit for bit in range(bits)]
    count = (bits + 1) // 2
    for number in range(count):
        wires = {pin: [rng.choice((*INPUTS, "0", "1"))] for pin in PINS}
        wires |= {"CIN": [carry if number == 0 else 200 + number], "COUT": [201 + number]}
        wires |= {f"S{half}": [100 + 2 * number + half] for half in range(2)}
        cells[f"cell_{number}"] = {
            "type": "CCU2C",
            "parameters": {f"INIT{half}": "".join(rng.choices("01", k=16)) for half in range(2)} | {"INJECT1_0": "NO", "INJECT1_1": "NO"},
            "port_directions": {port: "output" if port in ("S0", "S1", "COUT") else "input" for port in wires},
            "connections": wires,
        }
    taken += [200 + count] * carry_out
    ports = {"i": {"direction": "input", "bits": [*INPUTS, FABRIC]}}
    cells["user"] = {
        "type": "LUT4",
        "parameters": {},
        "port_directions": {"A": "input", "Z": "output"},
        "connections": {"A": taken, "Z": [300]},
    }
    return {"ports": ports, "netnames": {}, "cells": cells}


def outputs(top, values):
    """Values of the nets that the user takes, by the cells that drive them, in order of the chain."""
    nets, waiting = dict(values), [cell for name, cell in top["cells"].items() if name != "user"]
    while waiting:
        cell = next(cell for cell in waiting if all(bits[0] in nets or isinstance(bits[0], str) for bits in inputs_of(cell)))
        waiting.remove(cell)
        if cell["type"] == "LUT4":
            index = sum(int(bit if isinstance(bit, str) else nets[bit]) << place for place, (bit,) in enumerate(inputs_of(cell)))
            nets[cell["connections"]["Z"][0]] = int(cell["parameters"]["INIT"][::-1][index])
            continue
        for port, value in zip(("S0", "S1", "COUT"), carry_cell(cell, nets), strict=True):
            if cell["connections"].get(port, ["x"]) != ["x"]:
                nets[cell["connections"][port][0]] = value
    return [nets[bit] for bit in top["cells"]["user"]["connections"]["A"]]


def inputs_of(cell):
    return [bits for port, bits in cell["connections"].items() if cell["port_directions"][port] == "input"]


@pytest.mark.parametrize("carry", ["0", "1", FABRIC])
@pytest.mark.parametrize("carry_out", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 3, 6, 7])
def test_computes_the_same(bits, carry, carry_out):
    """Odd chains take their start in, others keep it unless their first carry needs none; a carry that someone takes stays."""
    rng = random.Random(f"{bits} {carry} {carry_out}")
    before = netlist(rng, bits=bits, carry=carry, carry_out=carry_out)
    tied = copy.deepcopy(before)
    tie_carry_constants(tied)
    after = copy.deepcopy(tied)
    shorten_carry_chains(after)
    moved = bits % 2 == 1 and not carry_out and carry != FABRIC
    starts, firsts = ([name for name in after["cells"] if name.endswith(end)] for end in (START, FIRST))
    assert len(starts) + len(firsts) == (carry != FABRIC and not moved)
    assert len(after["cells"]) == len(tied["cells"]) - moved
    last = after["cells"][f"cell_{(bits - 1) // 2}"]["connections"]
    assert (last["COUT"] == ["x"]) == (not carry_out)
    for drawn in itertools.product((0, 1), repeat=6):
        values = dict(zip([*INPUTS, FABRIC, "floating"], drawn, strict=True))
        wanted = outputs(before, values)
        assert outputs(tied, values) == wanted
        assert outputs(after, values) == wanted


ADD = "1001011010101010"
"""LUT4 contents of yosys' adders: with D = 1 A ^ B or, by C, A ^ ~B."""


@pytest.mark.parametrize(("contents", "pins", "needs_start"), [(ADD, (2, 3, "0", "1"), False), (ADD, (2, 3, 4, "1"), True)])
@pytest.mark.parametrize("carry", ["0", "1"])
@pytest.mark.parametrize("lowest", [True, False], ids=["sum", "carry only"])
def test_first_bit_of_two_signals_needs_no_start(contents, pins, needs_start, carry, lowest):
    """A LUT makes it, unless nobody takes it."""
    before = netlist(random.Random(2), bits=4, carry=carry, carry_out=True)
    first = before["cells"]["cell_0"]
    first["parameters"]["INIT0"] = contents
    first["connections"] |= {f"{letter}0": [bit] for letter, bit in zip("ABCD", pins, strict=True)}
    if not lowest:
        before["cells"]["user"]["connections"]["A"].remove(100)
    after = copy.deepcopy(before)
    tie_carry_constants(after)
    shorten_carry_chains(after)
    kinds = [name for name in after["cells"] if name.endswith((START, FIRST))]
    assert kinds == ["cell_0" + START] * needs_start + ["cell_0" + FIRST] * (lowest and not needs_start)
    for drawn in itertools.product((0, 1), repeat=6):
        values = dict(zip([*INPUTS, FABRIC, "floating"], drawn, strict=True))
        assert outputs(after, values) == outputs(before, values)


def test_ports_of_the_module_take_nets():
    """A carry out that leaves the module stays, and its chain keeps its start (its first carry takes more than two signals)."""
    top = netlist(random.Random(4), bits=3, carry="0", carry_out=False)
    top["ports"]["o"] = {"direction": "output", "bits": [202]}
    tie_carry_constants(top)
    wanted = copy.deepcopy(top)
    wanted["cells"]["cell_1"]["connections"]["S1"] = ["x"]
    shorten_carry_chains(top)
    assert top == wanted
