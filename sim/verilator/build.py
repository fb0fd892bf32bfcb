"""The simulation of the accelerator by itself: its memory and its driver are in C++."""

from pathlib import Path

from tercel.hw.config import Config
from tercel.sim.verilator.compile import Report, SimulationSource, build_program, gateware_sources

_HARNESS = Path(__file__).with_name("harness.cpp")
_SHELL = Path(__file__).with_name("shell.v")
_CSR_ADDR_BITS = 10
_OTHER_GATEWARE = ("link", "on_chip_memory.py", "sdram", "soc.py")
"""What the accelerator by itself does not contain."""


def build_simulation(config: Config, *, trace: bool = False, verilog: str | None = None, report: Report | None = None) -> Path:
    """The simulation program for ``config``, built unless it is in the cache.

    Parameters
    ----------
    config
        Of the machine; also of ``verilog``.
    trace
        Build one that can write waveforms; it is slower.
    verilog
        A design with the ports of ``tercel_npu`` to simulate in its place.
    report
        Called with the name of each build step as it begins.

    Raises
    ------
    ToolError
        A tool is missing or failed, or the cache lies in a folder with a blank in its name.
    """

    def emit() -> str:
        from tercel.hw.verilog import verilog as emit_machine

        return emit_machine(config) if verilog is None else verilog

    source = SimulationSource(
        name=config.name,
        verilog=emit,
        key=(f"{config.hash:08x}", *(() if verilog is None else ("design", verilog))),
        gateware=gateware_sources(without=_OTHER_GATEWARE) if verilog is None else (),
        top="shell",
        sources=(_HARNESS, _SHELL),
        verilog_defines={
            "MEMORY_WIDTH": config.memory_width,
            "MEMORY_ADDR_BITS": 33 - config.memory_width.bit_length(),
            "CSR_ADDR_BITS": _CSR_ADDR_BITS,
        },
        cpp_defines={"TERCEL_MEMORY_WIDTH": config.memory_width},
        trace=trace,
    )
    return build_program(source, report=report)
