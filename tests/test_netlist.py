"""Netlists in place of the RTL: what of it needs no synthesis."""

import json

import pytest

from tercel.boards import netlist
from tercel.boards.netlist import NetlistLayer, NetlistResult, cell_library
from tercel.hw.config import TINY
from tercel.sim.backend import VerilatorBackend
from tercel.sim.cli import main
from tercel.sim.toolchain import ToolError, find_tool


def layer(*, differing=0, cycles=100):
    return NetlistLayer(layer="conv", compared=64, differing=differing, cycles=cycles, rtl_cycles=100)


def result(*layers):
    return NetlistResult(config="tiny", device="up5k", cells=7, layers=layers, seconds={})


def test_the_library_holds_the_cells():
    text = cell_library(find_tool("yosys")).read_text()
    for cell in ("SB_LUT4", "SB_CARRY", "SB_DFFESR", "SB_RAM40_4K", "SB_MAC16", "SB_SPRAM256KA"):
        assert f"module {cell}" in text


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    yosys = find_tool("yosys")
    monkeypatch.setattr(netlist.util, "find_spec", lambda name: None)
    monkeypatch.setattr(netlist.shutil, "which", lambda name: str(tmp_path / "bin" / name))
    with pytest.raises(ToolError, match=r"yosys .* must come with its library ice40/cells_sim.v, but it was not found"):
        cell_library(yosys)


def test_bytes_and_cycles_count():
    assert result(layer()).equal
    assert not result(layer(), layer(differing=1)).equal
    assert not result(layer(cycles=101)).equal


def test_a_netlist_needs_its_config():
    with pytest.raises(ValueError, match="config must be given with design"):
        VerilatorBackend(design="module tercel_npu; endmodule")


def test_the_command_fails_where_something_differs(monkeypatch, capsys, tmp_path):
    asked = []

    def run(config, *, folder, report):
        asked.append(config)
        return result(layer(differing=3))

    monkeypatch.setattr(netlist, "run_netlist", run)
    assert main(["netlist", "tiny", "-o", str(tmp_path)]) == 1
    assert "3" in capsys.readouterr().out
    assert main(["netlist", "tiny", "-o", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["layers"][0]["differing"] == 3
    assert asked == [TINY, TINY]
