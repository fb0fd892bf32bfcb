"""Benches that run in Verilator under cocotb."""

from pathlib import Path

from amaranth.back import verilog
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from tercel.hw.config import TINY
from tercel.hw.memory.port import MemoryPort
from tercel.sim.toolchain import verilator_environment


def test_memory_port(tmp_path, monkeypatch):
    source = tmp_path / "memory_port.v"
    source.write_text(verilog.convert(MemoryPort(TINY), name="memory_port", emit_src=False))
    for name, value in verilator_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(Path(__file__).with_name("cocotb_benches")))
    runner = get_runner("verilator")
    runner.build(
        sources=[source],
        hdl_toplevel="memory_port",
        build_dir=tmp_path,
        build_args=["-Wno-fatal", "-Wno-lint"],
        log_file=tmp_path / "build.log",
    )
    results = runner.test(
        test_module="memory_port_bench",
        hdl_toplevel="memory_port",
        build_dir=tmp_path,
        test_dir=tmp_path,
        seed=1,
        log_file=tmp_path / "test.log",
    )
    assert get_results(results) == (5, 0), (tmp_path / "test.log").read_text()
