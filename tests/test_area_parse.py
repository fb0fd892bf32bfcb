"""The parts of the area flow that need no long tool run, and one short run of it."""

import dataclasses
import io
import json

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from rich.console import Console

from tercel.boards.area import DEVICES, Area, area_table, blocks_table, check_fit, measure, parse_cells, parse_report
from tercel.boards.breakdown import parse_blocks
from tercel.boards.pin_wrapper import PinWrapper
from tercel.sim.cli import main
from tercel.sim.toolchain import ToolError

STATISTICS = """
1. Printing statistics.
{
   "creator": "Yosys 0.70",
   "modules": {"\\\\top": {"num_cells": 12}},
   "design": {
      "num_wires": 5,
      "num_cells_by_type": {
         "CCU2C": 3, "DP16KD": 2, "L6MUX21": 4, "LUT4": 100, "MULT18X18D": 5, "PFUMX": 9, "TRELLIS_DPR16X4": 2, "TRELLIS_FF": 40
      }
   }
}
"""
REPORT = {
    "fmax": {"$glbnet$clk": {"achieved": 123.456, "constraint": 100.0}},
    "utilization": {
        "TRELLIS_COMB": {"used": 150, "available": 83640},
        "TRELLIS_FF": {"used": 44, "available": 83640},
        "MULT18X18D": {"used": 5, "available": 156},
        "DP16KD": {"used": 2, "available": 208},
    },
    "critical_paths": [
        {
            "from": "<async>",
            "to": "posedge $glbnet$clk",
            "path": [{"delay": 9.0, "type": "routing", "from": {"cell": "x"}, "to": {"cell": "y"}}],
        },
        {
            "from": "posedge $glbnet$clk",
            "to": "posedge $glbnet$clk",
            "path": [
                {"delay": 0.5, "type": "clk-to-q", "from": {"cell": "a"}, "to": {"cell": "a"}},
                {"delay": 3.25, "type": "routing", "from": {"cell": "a"}, "to": {"cell": "b"}},
                {"delay": 0.25, "type": "setup", "from": {"cell": "b"}, "to": {"cell": "b"}},
            ],
        },
    ],
}


def test_cells_are_counted():
    counts = DEVICES["ecp5-85f"].count(parse_cells(STATISTICS))
    assert counts == {"LUT4": 100 + 2 * 3 + 6 * 2, "FF": 40, "DSP": 5, "block RAM": 2}


def test_types_that_end_in_a_star():
    counts = DEVICES["up5k"].count({"SB_LUT4": 7, "SB_DFF": 1, "SB_DFFESR": 2, "SB_CARRY": 9, "SB_RAM40_4KNR": 3, "SB_SPRAM256KA": 4})
    assert counts == {"LUT4": 7, "FF": 3, "DSP": 0, "block RAM": 3, "SPRAM": 4}


@pytest.mark.parametrize("text", ["", "{}", '{"design": {}}', '{"design": {"num_cells_by_type": 5}}'])
def test_statistics_that_cannot_be_read(text):
    with pytest.raises(ToolError, match=r"^yosys' statistics cannot be read: .* \(this release knows yosys 0\.40 to 0\.70\)$"):
        parse_cells(text)


def test_cells_belong_to_blocks():
    names = {
        "o_LUT4_Z": "LUT4",
        "inner.array.feeder.walk.x_LUT4_Z": "LUT4",
        "inner.array.feeder$12.y_CCU2C_S0": "CCU2C",
        "inner.array.z_LUT4_Z": "LUT4",
        "inner.sum_TRELLIS_FF_Q": "TRELLIS_FF",
    }
    text = json.dumps({"modules": {"top": {"cells": {name: {"type": kind} for name, kind in names.items()}}}})
    blocks = parse_blocks(text, device=DEVICES["ecp5-85f"])
    assert {name: counts["LUT4"] for name, counts in blocks.items()} == {"array.feeder": 3, "(pins and shared)": 1, "array": 1}
    assert next(iter(blocks)) == "array.feeder"
    assert blocks["(pins and shared)"]["FF"] == 1


def test_report_is_read():
    routed, fmax, path = parse_report(json.dumps(REPORT), device=DEVICES["ecp5-85f"])
    assert routed == {"LUT4": 150, "FF": 44, "DSP": 5, "block RAM": 2}
    assert fmax == 123.46
    assert path == {"from": "a", "to": "b", "logic_ns": 0.75, "routing_ns": 3.25}


def test_report_without_a_clock():
    assert parse_report('{"fmax": {}, "utilization": {}}', device=DEVICES["up5k"])[1:] == (None, {})


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"utilization": {"A": 1}, "fmax": {}}'])
def test_report_that_cannot_be_read(text):
    with pytest.raises(ToolError, match=r"^nextpnr's report cannot be read: .* \(this release knows nextpnr 0\.7 to 0\.11\)$"):
        parse_report(text, device=DEVICES["ecp5-25f"])


def test_design_that_does_not_fit():
    check_fit({"LUT4": 10**6, "DSP": 28, "block RAM": 56}, device=DEVICES["ecp5-25f"])
    needs = "29 of 28 DSP, 212 of 56 block RAM"
    message = rf"^ecp5-25f is too small: the design needs {needs} \(take a smaller config, or leave out place and route\)$"
    with pytest.raises(ToolError, match=message):
        check_fit({"LUT4": 1, "DSP": 29, "block RAM": 212}, device=DEVICES["ecp5-25f"])


def test_unknown_device(capsys):
    assert main(["area", "tiny", "--device", "ice"]) == 2
    message = "tercel: device must be one of ecp5-85f, ecp5-25f, up5k, gw2a-18, not 'ice' (the parts whose area can be measured)\n"
    assert capsys.readouterr().err == message


def test_unknown_config(capsys):
    assert main(["area", "huge"]) == 2
    assert capsys.readouterr().err.startswith("tercel: config must be one of tiny, nano, small, base, large, not 'huge'")


def test_limits_are_marked():
    area = Area(
        component="x",
        device="ecp5-25f",
        lanes=10,
        synthesized={"LUT4": 601, "FF": 3, "DSP": 1, "block RAM": 57},
        routed={},
        fmax=99.9,
        critical_path={},
        blocks={"array.feeder": {"LUT4": 345, "FF": 2}},
        tools={},
        seconds={},
        notes=(),
    )
    assert [limit.name for limit in area.limits if not limit.ok] == ["block RAM", "LUT4 per lane", "fmax MHz"]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(area_table(area), blocks_table(area))
    text = console.export_text()
    assert "60.1" in text
    assert "array.feeder" in text
    assert "under" in text
    assert area.as_json()["limits"][0] == {"name": "LUT4", "value": 601, "limit": 24288, "kind": "most", "ok": True}


class Adder(wiring.Component):
    """A registered 16-bit adder: 16 LUTs, 8 carry cells or, without those, twice as many LUTs; 48 flip-flops, without reset."""

    def __init__(self):
        super().__init__({"a": In(16), "b": In(16), "sum": Out(16)})

    def elaborate(self, platform):
        m = Module()
        first, second, total = (Signal(16, name=name, reset_less=True) for name in ("first", "second", "total"))
        m.d.sync += [first.eq(self.a), second.eq(self.b), total.eq(first + second)]
        m.d.comb += self.sum.eq(total)
        return m


def test_wrapper_knows_its_own_size():
    wrapper = PinWrapper(Adder())
    assert wrapper.own == {"LUT4": 4 + 1, "FF": 2 * 32 + 16 + 4 + 1}
    assert "\\top.inner" in rtlil.convert(wrapper, name="top")


@pytest.mark.parametrize("device", ["ecp5-25f", "up5k", "gw2a-18"])
def test_adder_is_measured(device, tmp_path):
    steps = []
    area = measure(Adder(), name="adder", device=DEVICES[device], folder=tmp_path, report=steps.append)
    assert 14 <= area.synthesized["LUT4"] <= (32 if device == "gw2a-18" else 24)
    assert area.synthesized["FF"] == 48
    assert area.synthesized["DSP"] == area.synthesized["block RAM"] == 0
    assert area.fmax > 20
    assert area.routed["LUT4"] >= area.synthesized["LUT4"] - 2
    assert area.critical_path["logic_ns"] > 0
    assert set(area.tools) == {"yosys", DEVICES[device].place_tool}
    assert any("nextpnr" in step for step in steps)
    assert any("yosys" in step for step in steps)


class Cleared(wiring.Component):
    """A narrow counter and a wide register, each cleared on a condition of its own."""

    clear_narrow: In(1)
    clear_wide: In(1)
    value: In(64)
    narrow: Out(8)
    wide: Out(64)

    def elaborate(self, platform):
        m = Module()
        narrow, wide = Signal(8, reset_less=True), Signal(64, reset_less=True)
        m.d.sync += [narrow.eq(narrow + 1), wide.eq(self.value), self.narrow.eq(narrow), self.wide.eq(wide)]
        with m.If(self.clear_narrow):
            m.d.sync += narrow.eq(0)
        with m.If(self.clear_wide):
            m.d.sync += wide.eq(0)
        return m


def test_resets_become_logic_on_the_25f(tmp_path):
    """One reset serves a tile of eight flip-flops, and the 25F is full of them; see :mod:`tercel.boards.ecp5`."""
    resets = []
    for device in ("ecp5-25f", "ecp5-85f"):
        folder = tmp_path / device
        measure(Cleared(), name="cleared", device=DEVICES[device], folder=folder, route=False)
        cells = json.loads((folder / "top.json").read_text())["modules"]["top"]["cells"].values()
        nets = [cell["connections"]["LSR"][0] for cell in cells if cell["type"] == "TRELLIS_FF" and cell["connections"].get("LSR")]
        sizes = sorted(nets.count(net) for net in set(nets) - {"0"})
        resets.append([size for size in sizes if size in (8, 64)])
    assert resets == [[], [8, 64]]


class Elements(wiring.Component):
    """Elements of arrays, added."""

    a: In(data.ArrayLayout(2, 8))
    b: In(data.ArrayLayout(2, 8))
    sums: Out(data.ArrayLayout(2, 8))

    def elaborate(self, platform):
        m = Module()
        m.d.sync += [self.sums[index].eq(self.a[index] + self.b[7 - index]) for index in range(8)]
        return m


@pytest.mark.parametrize("device", ["ecp5-25f", "up5k", "gw2a-18"])
def test_no_wire_has_the_name_of_a_bit(device, tmp_path):
    """ABC9 would take the element ``a[3]`` and bit 3 of ``a`` for one; see :mod:`tercel.boards.device`."""
    measure(Elements(), name="elements", device=DEVICES[device], folder=tmp_path, route=False)
    names = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]["netnames"]
    assert "wire width 2 \\a[5]" in (tmp_path / "top.il").read_text()
    assert not [name for name in names if "[" in name]


class Chosen(wiring.Component):
    """A sum and one of sixteen bits, registered."""

    a: In(16)
    b: In(16)
    sum: Out(16)
    bit: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += [self.sum.eq(self.a + self.b), self.bit.eq(self.a.bit_select(self.b[:4], 1))]
        return m


def test_flip_flops_stand_behind_luts_on_the_gowin(tmp_path):
    """Place and route puts no flip-flop behind an adder cell or a wide multiplexer; see :mod:`tercel.boards.gowin`."""
    measure(Chosen(), name="chosen", device=DEVICES["gw2a-18"], folder=tmp_path, route=False)
    cells = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]["cells"].values()
    from_luts = {bit for cell in cells if cell["type"].startswith("LUT") for bit in cell["connections"]["F"]}
    assert sum(cell["connections"]["D"][0] in from_luts for cell in cells if cell["type"].startswith("DFF")) >= 17
    assert not [cell["type"] for cell in cells if cell["type"] == "ALU" or cell["type"].startswith("MUX2_")]


def test_failed_synthesis_shows_the_last_lines(tmp_path):
    device = dataclasses.replace(DEVICES["up5k"], synthesis="synth_nothing")
    with pytest.raises(
        ToolError, match=r"(?s)^yosys failed with exit code 1; its last lines \(all are in .*/yosys\.log\):\n.*No such command"
    ):
        measure(Adder(), name="adder", device=device, folder=tmp_path, route=False)
