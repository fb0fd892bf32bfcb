"""Cells of a netlist that are given places."""

import json
import re

import pytest

from tercel.boards.ecp5 import DEVICES
from tercel.boards.ecp5_floorplan import BASE_FLOORPLAN
from tercel.boards.floorplan import Floorplan
from tercel.hw.config import BASE
from tercel.sim.toolchain import ToolError

_PLAN = Floorplan(cell_types=frozenset({"RAM"}), places={"memory.bank_0": "X1/Y2/EBR0", "memory.bank_1": "X3/Y2/EBR1"})


def _top(cells):
    empty = ("attributes", "connections", "port_directions", "parameters")
    content = {name: {"type": kind, **{part: {} for part in empty}} for name, kind in cells.items()}
    return {"cells": content, "netnames": {}, "ports": {}}


def _places(top):
    return {name: cell["attributes"].get("BEL") for name, cell in top["cells"].items()}


def test_cells_are_found_inside_other_modules_and_under_numbered_names():
    cells = {"soc.memory$12.bank_0": "RAM", "soc.memory$12.bank_1": "RAM", "soc.memory$12.bank_2": "RAM", "other.bank_0": "RAM"}
    top = _top(cells)
    _PLAN.apply(top)
    assert list(_places(top).values()) == ["X1/Y2/EBR0", "X3/Y2/EBR1", None, None]


def test_a_cell_of_another_type_is_not_placed():
    top = _top({"memory.bank_0": "RAM", "memory.bank_1": "LUT4"})
    with pytest.raises(ToolError, match=re.escape("a place for memory.bank_1, which synthesis did not make; change the floorplan")):
        _PLAN.apply(top)
    assert _places(top)["memory.bank_1"] is None


def test_a_machine_with_a_floorplan_gets_it_and_others_do_not(tmp_path):
    device = next(device for device in DEVICES if device.name == "ecp5-85f")
    assert device.floorplans == {BASE.name: BASE_FLOORPLAN}
    path = tmp_path / "top.json"
    path.write_text(json.dumps({"modules": {"top": _top(dict.fromkeys(BASE_FLOORPLAN.places, "MULT18X18D"))}}))
    device.prepare_netlist(path, machine="small")
    assert set(_places(json.loads(path.read_text())["modules"]["top"]).values()) == {None}
    device.prepare_netlist(path, machine=BASE.name)
    top = json.loads(path.read_text())["modules"]["top"]
    assert _places(top) == BASE_FLOORPLAN.places
    assert top["settings"] == {f"router2/bbMargin/{axis}": "0" * 28 + "1000" for axis in "xy"}


def test_the_sites_of_base_differ_and_exist_in_rows_of_their_kind():
    sites = list(BASE_FLOORPLAN.places.values())
    assert len(sites) == len(set(sites))
    rows = {"MULT18": {10, 34, 58}, "EBR": {22, 46, 70, 82}}
    for site in sites:
        column, row, kind = re.fullmatch(r"X(\d+)/Y(\d+)/(EBR|MULT18)_?\d", site).groups()
        assert int(row) in rows[kind] and 4 <= int(column) <= 120
    multipliers = sum("MULT18" in site for site in sites)
    assert multipliers == BASE.pixels * (BASE.drain_lanes + 1) + BASE.depthwise_lanes + 2 * BASE.lanes
