"""Block RAMs that take the flip-flops behind them in give the same bits in the same cycles."""

import copy
import json
import random

import pytest

from tercel.boards.output_registers import use_output_registers

CLOCK, OTHER_CLOCK, ENABLE, OTHER_ENABLE, RESET = 2, 3, 4, 5, 6


def memory(outputs, *, width=18, **wires):
    """A DP16KD with nets at ``outputs`` and, at its other outputs, nets that nobody takes."""
    ports = [f"DO{side}{bit}" for side in "AB" for bit in range(18)]
    connections = {port: [outputs.get(port, 1000 + number)] for number, port in enumerate(ports)}
    inputs = {"CLKA": CLOCK, "CLKB": CLOCK, "CEA": "1", "CEB": "1", "OCEA": "1", "OCEB": "1"} | wires
    return {
        "type": "DP16KD",
        "parameters": {"DATA_WIDTH_A": f"{width:032b}", "DATA_WIDTH_B": f"{width:032b}", "REGMODE_A": "NOREG", "REGMODE_B": "NOREG"},
        "port_directions": {**dict.fromkeys(ports, "output"), **dict.fromkeys(inputs, "input")},
        "connections": connections | {port: [bit] for port, bit in inputs.items()},
    }


def flip_flop(d, q, *, clock=CLOCK, enable=None, **parameters):
    wires = {"CLK": [clock], "DI": [d], "LSR": ["0"], "Q": [q]} | ({} if enable is None else {"CE": [enable]})
    return {
        "type": "TRELLIS_FF",
        "parameters": {"CEMUX": "1 " if enable is None else "CE", "CLKMUX": "CLK", "LSRMUX": "LSR", "REGSET": "RESET"} | parameters,
        "port_directions": {port: "output" if port == "Q" else "input" for port in wires},
        "connections": wires,
    }


def lut(a, z):
    return {"type": "LUT4", "parameters": {}, "port_directions": {"A": "input", "Z": "output"}, "connections": {"A": [a], "Z": [z]}}


def edited(cells, *, ports=()):
    top = {"ports": {"pins": {"bits": [CLOCK, OTHER_CLOCK, ENABLE, OTHER_ENABLE, RESET, *ports]}}, "cells": copy.deepcopy(cells)}
    use_output_registers(top)
    return top["cells"]


def traces(cells, read, enabled):
    """What each flip-flop's output net holds, cycle by cycle; ``read`` is what the memory's arrays gave, by port, in each cycle.

    The registers of a DP16KD as Lattice describes them: those of port B keep what it has read where OCEB is 1, and in words of 36 bits
    those of port A too.
    """
    ram = cells["ram"]
    whole = int(ram["parameters"]["DATA_WIDTH_B"], 2) == 36
    nets, made = {}, []
    for word, on in zip(read, enabled, strict=True):
        now = dict(nets)

        def level(bit, now=now, on=on):
            return int(bit) if isinstance(bit, str) else on if bit == ENABLE else now.get(bit, 0)

        for port, value in word.items():
            side = port[2]
            (bit,) = ram["connections"][port]
            if ram["parameters"][f"REGMODE_{side}"] == "NOREG":
                now[bit] = value
            elif level(ram["connections"][f"OCE{'B' if whole else side}"][0]):
                nets[bit] = value
        for cell in cells.values():
            if cell["type"] == "TRELLIS_FF" and level(cell["connections"].get("CE", ["1"])[0]):
                nets[cell["connections"]["Q"][0]] = now.get(cell["connections"]["DI"][0], 0)
        made.append(dict(nets))
    return made


@pytest.mark.parametrize("width", (9, 18, 36))
@pytest.mark.parametrize("enable", (None, ENABLE))
def test_gives_the_same_bits_in_the_same_cycles(width, enable):
    rng = random.Random(width)
    ports = [f"DO{side}{bit}" for side in ("AB" if width == 36 else "B") for bit in range(min(width, 18))]
    cells = {"ram": memory({port: 10 + number for number, port in enumerate(ports)}, width=width)}
    cells |= {f"q_{port}": flip_flop(10 + number, 100 + number, enable=enable) for number, port in enumerate(ports)}
    after = edited(cells)
    assert list(after) == ["ram"]
    assert [after["ram"]["connections"][port][0] for port in ports] == [100 + number for number in range(len(ports))]
    modes = {side: after["ram"]["parameters"][f"REGMODE_{side}"] for side in "AB"}
    assert modes == {"A": "OUTREG" if width == 36 else "NOREG", "B": "OUTREG"}
    read = [{port: rng.randrange(2) for port in ports} for _ in range(50)]
    enabled = [rng.randrange(2) for _ in read]
    before, with_registers = (traces(netlist, read, enabled) for netlist in (cells, after))
    for old, new in zip(before, with_registers, strict=True):
        assert {net: old.get(net, 0) for net in range(100, 100 + len(ports))} == {
            net: new.get(net, 0) for net in range(100, 100 + len(ports))
        }


TWO = {"DOB0": 10, "DOB1": 11}


@pytest.mark.parametrize(
    "behind",
    [
        {"q_0": flip_flop(10, 100), "gate": lut(11, 101)},
        {"q_0": flip_flop(10, 100), "q_1": flip_flop(11, 101), "gate": lut(11, 102)},
        {"q_0": flip_flop(10, 100), "q_1": flip_flop(11, 101, enable=ENABLE)},
        {"q_0": flip_flop(10, 100, enable=OTHER_ENABLE), "q_1": flip_flop(11, 101, enable=ENABLE)},
        {"q_0": flip_flop(10, 100, enable=ENABLE, CEMUX="INV"), "q_1": flip_flop(11, 101, enable=ENABLE, CEMUX="INV")},
        {"q_0": flip_flop(10, 100, clock=OTHER_CLOCK), "q_1": flip_flop(11, 101, clock=OTHER_CLOCK)},
        {"q_0": flip_flop(10, 100), "q_1": flip_flop(11, 101, CLKMUX="INV")},
        {"q_0": flip_flop(10, 100), "q_1": flip_flop(11, 101, REGSET="SET")},
        {"q_0": flip_flop(10, 100), "q_1": flip_flop(11, 101, clock=CLOCK, enable=10)},
    ],
    ids=["gate", "gate too", "enables", "other enables", "inverted", "clock", "edge", "set", "own enable"],
)
def test_what_a_port_cannot_do_stays_outside(behind):
    cells = {"ram": memory(TWO), **behind}
    assert edited(cells) == cells


def test_a_reset_stays_outside():
    cells = {"ram": memory(TWO), "q_0": flip_flop(10, 100), "q_1": flip_flop(11, 101)}
    cells["q_1"]["connections"]["LSR"] = [RESET]
    assert edited(cells) == cells


def test_an_output_of_the_chip_stays_outside():
    cells = {"ram": memory(TWO), "q_0": flip_flop(10, 100), "q_1": flip_flop(11, 101)}
    assert edited(cells, ports=[11]) == cells


def test_each_port_moves_by_itself():
    cells = {"ram": memory({"DOA0": 12, **TWO}), "q_0": flip_flop(10, 100), "q_1": flip_flop(11, 101), "gate": lut(12, 102)}
    after = edited(cells)
    assert list(after) == ["ram", "gate"]
    assert after["ram"]["parameters"]["REGMODE_A"] == "NOREG" and after["ram"]["parameters"]["REGMODE_B"] == "OUTREG"
    assert json.dumps(after["gate"]) == json.dumps(cells["gate"])
