# amaranth: UnusedElaboratable=no
"""Boards: clocks, pins, the flow to a bitstream on a small design, and what goes wrong on the way."""

import json
import os
import re
import stat
from dataclasses import replace

import pytest
from amaranth.hdl import ClockDomain, Elaboratable, Fragment, Module, Signal
from amaranth.lib import io

from tercel.boards.bitstream import build_bitstream
from tercel.boards.board_top import BoardTop
from tercel.boards.boards import BOARDS
from tercel.boards.clocks import ClockError
from tercel.boards.ecp5_pll import Dividers, pll_dividers
from tercel.boards.gowin_pll import rpll_dividers
from tercel.boards.routing_rounds import LIMIT, UNTIL_CLOCK, RoutingRounds
from tercel.boards.tang_nano_20k import TANG_NANO_20K
from tercel.boards.ulx3s import ULX3S_25F, ULX3S_85F
from tercel.sim.cli import main
from tercel.sim.soc.link_fuzz import LEAST
from tercel.sim.toolchain import ToolError


class Blinker(Elaboratable):
    """A light that goes on and off."""

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.sync, m.domains.sdram = ClockDomain("sync"), ClockDomain("sdram")
        m.submodules.clocks = ULX3S_25F.clocks(ULX3S_25F.clock_hz)
        count = Signal(24)
        m.d.sync += count.eq(count + 1)
        m.submodules.led = led = io.FFBuffer("o", platform.request("led", 0, dir="-"))
        m.d.comb += led.o.eq(count[-1])
        return m


def test_pll_dividers() -> None:
    assert pll_dividers(input_hz=25_000_000, clock_hz=60_000_000) == Dividers(input=5, feedback=12, output=13)
    assert pll_dividers(input_hz=25_000_000, clock_hz=100_000_000) == Dividers(input=1, feedback=4, output=8)
    assert rpll_dividers(input_hz=27_000_000, clock_hz=54_000_000) == (1, 2, 16)
    assert rpll_dividers(input_hz=27_000_000, clock_hz=48_000_000) == (9, 16, 16)
    message = r"^clock_hz must be a rate that the PLL makes from 25000000 Hz, not 48000000 \(a multiple of 5000000 Hz\)$"
    with pytest.raises(ClockError, match=message):
        pll_dividers(input_hz=25_000_000, clock_hz=48_000_000)


def test_boards() -> None:
    """The line's rate, which ten bits of a byte may miss by 4 % in all, and the memory's clock suit each board."""
    for name, board in BOARDS.items():
        assert board.name == name
        assert abs(board.clock_hz / round(board.clock_hz / board.baud) / board.baud - 1) < 0.0125
        assert board.memory.cycles(clock_mhz=board.clock_hz / 1e6).cas == 2
        Fragment.get(board.clocks(board.clock_hz), board.platform())


def test_pins() -> None:
    """Every pin of the memory and the line has its place, and the clock its rate."""
    small = replace(ULX3S_25F, config=LEAST)
    constraints = small.platform().prepare(BoardTop(small), "top").files["top.lpf"]
    text = constraints if isinstance(constraints, str) else constraints.decode()
    for pin, site in {"clk25_0__io": "G2", "uart_0__rx__io": "M1", "uart_0__tx__io": "L4", "sdram_0__clk__io": "F19"}.items():
        assert f'LOCATE COMP "{pin}" SITE "{site}";' in text
    assert all(f'"sdram_0__dq__io[{bit}]" SITE' in text for bit in range(16))
    assert all(f'"sdram_0__a__io[{bit}]" SITE' in text for bit in range(13))
    assert 'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ;' in text


def test_memory_inside_the_package() -> None:
    """Place and route knows the memory of the GW2AR by the names of its ports."""
    least = replace(TANG_NANO_20K, config=LEAST)
    files = least.platform().prepare(BoardTop(least), "top").files
    constraints, netlist = (content if isinstance(content, str) else content.decode() for content in (files["top.cst"], files["top.il"]))
    for pin, site in {"clk27_0__io": 4, "uart_0__rx__io": 70, "uart_0__tx__io": 69, "led_0__io": 15}.items():
        assert f'IO_LOC "{pin}" {site};' in constraints
    top = netlist[netlist.index("module \\top\n") :]
    for port in (r"width 11 output \d+ +\\O_sdram_addr\n", r"output \d+ +\\O_sdram_wen_n\n", r"width 32 inout \d+ +\\IO_sdram_dq\n"):
        assert re.search(port, top), port
    assert "sdram" not in constraints


def test_flow(tmp_path) -> None:
    """The same seed gives the same bytes; figures of what was built."""
    first, second = (build_bitstream(ULX3S_25F, folder=tmp_path / name, top=Blinker()) for name in "ab")
    assert first.ok
    assert first.path == str(tmp_path / "a" / "ulx3s-25f.bit")
    assert (tmp_path / "a" / "ulx3s-25f.bit").read_bytes() == (tmp_path / "b" / "ulx3s-25f.bit").read_bytes()
    assert first.sha256 == second.sha256
    assert first.fmax > first.clock_mhz == 100
    assert 20 < first.used["LUT4"] < 100
    assert json.loads(json.dumps(first.as_json()))["ok"]


def test_too_small(tmp_path) -> None:
    """Found after synthesis, before place and route; nothing of an earlier build is left."""
    device = replace(ULX3S_25F.device, available={**ULX3S_25F.device.available, "DSP": -1})
    (tmp_path / "ulx3s-25f.bit").write_text("old")
    with pytest.raises(ToolError, match=r"^ecp5-25f is too small: the design needs 0 of -1 DSP \("):
        build_bitstream(replace(ULX3S_25F, device=device), folder=tmp_path, top=Blinker())
    assert not (tmp_path / "ulx3s-25f.bit").exists()
    assert not (tmp_path / "place.log").exists()


def test_clock_not_reached(tmp_path, monkeypatch) -> None:
    """No bitstream, and exit code 1."""
    from tercel.boards import commands

    fast = replace(ULX3S_25F, clock_hz=390_000_000, clocks=lambda hz: ULX3S_25F.clocks(60_000_000))
    built = build_bitstream(fast, folder=tmp_path, top=Blinker())
    assert not built.ok
    assert not list(tmp_path.glob("*.bit"))
    monkeypatch.setattr(commands, "build_bitstream", lambda board, **_: built)
    assert main(["bitstream", "ulx3s-25f", "-o", str(tmp_path)]) == 1


def test_routing_rounds() -> None:
    """Routing may take its rounds, and more where only wires are left to sort out; not for ever where the clock is out of reach."""
    lines: list[str] = []
    rounds = RoutingRounds(clock_mhz=80, then=lines.append)
    rounds("Info: Running main router loop...")
    for number, late in ((1, 40), (LIMIT - 1, 3), (LIMIT, 0), (LIMIT + 1, 0)):
        rounds(f"Info:     iter={number} wires=1100 overused=2 overuse=2 tmgfail={late} archfail=NA")
    rounds("Info:     iter=900 wires=1100 overused=2 overuse=2 archfail=NA")
    assert len(lines) == 6
    message = r"^80 MHz are not reached: after 252 rounds of routing 7 connections are on paths that take longer \(try another --seed, or"
    with pytest.raises(ToolError, match=message):
        rounds("Info:     iter=252 wires=1100 overused=0 overuse=0 tmgfail=7 archfail=NA")
    assert len(lines) == 7


def test_routing_until_the_clock(tmp_path) -> None:
    """What the board says reaches place and route, and another seed gives another placement."""
    insisting = replace(ULX3S_85F, clock_hz=100_000_000, seed=7)
    assert UNTIL_CLOCK in insisting.place_arguments
    assert build_bitstream(insisting, folder=tmp_path / "a", top=Blinker()).ok
    assert " tmgfail=0 " in (tmp_path / "a" / "place.log").read_text()
    asked = {round(clock["constraint"], 1) for clock in json.loads((tmp_path / "a" / "report.json").read_text())["fmax"].values()}
    assert 101 in asked
    assert build_bitstream(insisting, folder=tmp_path / "b", top=Blinker(), seed=8).ok
    assert (tmp_path / "a" / "ulx3s-85f.bit").read_bytes() != (tmp_path / "b" / "ulx3s-85f.bit").read_bytes()


def test_tool_fails(tmp_path) -> None:
    """The tool's last lines are in the message."""
    device = replace(ULX3S_25F.device, place_arguments=("--no-such-option",))
    with pytest.raises(ToolError, match=r"(?s)^nextpnr-ecp5 failed with exit code \d+; its last lines .*no-such-option"):
        build_bitstream(replace(ULX3S_25F, device=device), folder=tmp_path, top=Blinker())


def test_commands(tmp_path, monkeypatch, capsys) -> None:
    """Unknown boards, missing files, and openFPGALoader: missing, called, failing."""
    assert main(["bitstream", "ulx4s"]) == 2
    assert capsys.readouterr().err.startswith("tercel: board must be one of ulx3s-85f, ulx3s-25f, tang-nano-20k, not 'ulx4s' ")
    assert main(["program", "ulx3s-25f", str(tmp_path / "none.bit")]) == 2
    assert "tercel bitstream ulx3s-25f makes one" in capsys.readouterr().err
    image = tmp_path / "some.bit"
    image.write_bytes(b"bits")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["program", "ulx3s-25f", str(image)]) == 5
    assert capsys.readouterr().err.startswith("tercel: openFPGALoader is needed for loading bitstreams and was not found (")
    loader = tmp_path / "openFPGALoader"
    loader.write_text(f'#!/bin/sh\n[ "$1" = --Version ] && echo openFPGALoader v0.12.1 || echo "$@" > {tmp_path}/called\n')
    loader.chmod(loader.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin:/usr/bin")
    assert main(["program", "ulx3s-25f", str(image)]) == 0
    assert (tmp_path / "called").read_text() == f"-b ulx3s {image}\n"
    loader.write_text('#!/bin/sh\n[ "$1" = --Version ] && echo openFPGALoader v0.12.1 && exit 0\necho unable to open ftdi device; exit 1\n')
    assert main(["program", "ulx3s-25f", str(image)]) == 5
    assert "unable to open ftdi device" in capsys.readouterr().err
