"""The files beside the Verilog: they are read by the tools they are for, and name the ports that the Verilog has."""

import re

import pytest

from tercel.hw.config import BASE, TINY, Config
from tercel.hw.integration import integration_files, litex_module, verilog_ports
from tercel.sim.cli import main
from tercel.sim.toolchain import find_tool, run_tool


@pytest.mark.parametrize("config", [TINY, BASE], ids=lambda config: config.name)
def test_ports(config: Config) -> None:
    ports = {name: (direction, bits) for direction, name, bits in verilog_ports(config)}
    assert ports["memory__dat_w"] == ("output", 8 * config.memory_width)
    assert ports["memory__stall"] == ("input", 1)
    assert ports["csr__adr"] == ("input", 10)
    assert ports["interrupt"] == ("output", 1)


@pytest.mark.parametrize("config", [TINY, BASE], ids=lambda config: config.name)
def test_litex_module(config: Config) -> None:
    """It is Python, and its ports are the accelerator's."""
    text = litex_module(config)
    compile(text, "tercel_npu_litex.py", "exec")
    masters = {f"memory__{name}" for name in ("adr", "dat_w", "sel", "we", "cyc", "stb", "dat_r", "ack", "err")}
    ports = {name for _, name, _ in verilog_ports(config)}
    assert ports == masters | {name.replace("memory", "csr") for name in masters} | {
        "clk", "rst", "interrupt", "memory__stall", "csr__stall"
    }  # fmt: skip
    assert f"data_width={8 * config.memory_width}, adr_width={33 - config.memory_width.bit_length()}" in text


def test_command(tmp_path, capsys) -> None:
    """The example around the Verilog elaborates, with every port connected."""
    assert main(["verilog", "tiny", "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(str(tmp_path)) == 4
    assert set(integration_files(TINY)) <= {path.name for path in tmp_path.iterdir()}
    core = (tmp_path / "tercel_npu.core").read_text()
    assert core.startswith("CAPI=2:\nname: tercel:tercel:npu_tiny:")
    assert re.search(r"toplevel: tercel_npu$", core, re.MULTILINE)
    script = "read_verilog -sv tercel_npu.v tercel_npu_example.v; hierarchy -check -top tercel_npu_example"
    log = run_tool(find_tool("yosys"), ["-p", script], folder=tmp_path, log=tmp_path / "yosys.log")
    assert "Warning" not in log
