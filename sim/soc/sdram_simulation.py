"""The SDRAM controller by itself on Verilator: requests of both ports in, answers, cycles and broken rules out."""

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tercel.hw.sdram.controller import SdramController
from tercel.hw.sdram.timing import SdramChip
from tercel.sim.soc.sdram_model import HEADER, SdramViolation, parse_violation, sdram_figures
from tercel.sim.verilator.compile import SimulationSource, build_program, gateware_sources

_HARNESS = Path(__file__).with_name("sdram_harness.cpp")
TOP = "tercel_sdram"
_OTHER_GATEWARE = ("array", "control", "depthwise", "link", "npu.py", "on_chip_memory.py", "soc.py")
"""What the controller by itself does not contain."""

_MAX_CYCLES = 100_000_000

REQUEST = np.dtype([("adr", "u4"), ("wait", "u4"), ("sel", "u2"), ("write", "u1"), ("abandon", "u1"), ("data", "u1", 16)])
"""One beat: its address in beats; cycles to wait after the request before; byte selects and data of a write; ``abandon``: ``cyc`` falls
while it waits (1 cycle or more), and nothing outstanding is answered."""

ANSWER = np.dtype([("accepted", "u4"), ("answered", "u4"), ("kind", "u1"), ("unused", "u1", 3), ("data", "u1", 16)])
"""What became of a request: the cycles in which it was taken and answered, and how (:data:`NO_ANSWER`, :data:`ACK` or :data:`ERR`)."""

NO_ANSWER, ACK, ERR = range(3)

Records = npt.NDArray[np.void]


class SdramSimulationError(RuntimeError):
    """The controller lost or invented an answer."""


class ControllerBuild(Protocol):
    """A controller to be simulated, with the ports of :class:`~tercel.hw.sdram.controller.SdramController`."""

    @property
    def chip(self) -> SdramChip:
        """On its pins."""
        ...

    @property
    def clock_mhz(self) -> float:
        """Of controller and chip."""
        ...

    @property
    def pin_latency(self) -> int:
        """Cycles between its pins and the chip's, both ways added; -1: the chip's clock comes a part of a cycle after the controller's."""
        ...

    def source(self) -> SimulationSource:
        """From :func:`controller_source`."""
        ...


@dataclass(frozen=True, kw_only=True)
class SdramBuild:
    """What is simulated; see :class:`~tercel.hw.sdram.controller.SdramController`."""

    chip: SdramChip
    clock_mhz: float
    memory_width: int
    pin_latency: int = 0

    def controller(self) -> SdramController:
        """With 32-bit byte addresses."""
        return SdramController(
            self.chip,
            clock_mhz=self.clock_mhz,
            memory_width=self.memory_width,
            addr_width=33 - self.memory_width.bit_length(),
            pin_latency=self.pin_latency,
        )

    def source(self) -> SimulationSource:
        """What it is built of."""

        def emit() -> str:
            from amaranth.back import verilog

            text: str = verilog.convert(self.controller(), name=TOP, emit_src=False, strip_internal_attrs=True)
            return text

        gateware = gateware_sources(without=_OTHER_GATEWARE)
        return controller_source(name="sdram", verilog=emit, key=(repr(self),), gateware=gateware, memory_width=self.memory_width)


@dataclass(frozen=True, kw_only=True)
class SdramRun:
    """What a simulation left.

    Attributes
    ----------
    cycles
        From reset on. ``busy`` counts those after the initialisation in which a port asked for something or waited for an answer.
    npu, host
        An :data:`ANSWER` for each request.
    commands
        Given to the chip, by name.
    violations
        Rules of the chip that were broken.
    contents
        Of the chip at the end; None unless asked for.
    """

    cycles: int
    busy: int
    npu: Records
    host: Records
    commands: dict[str, int]
    violations: tuple[SdramViolation, ...]
    contents: npt.NDArray[np.uint8] | None


def run_sdram(
    build: ControllerBuild,
    *,
    npu: Records,
    host: Records | None = None,
    outstanding: int = 16,
    max_cycles: int = _MAX_CYCLES,
    contents: bool = False,
) -> SdramRun:
    """Simulate until all :data:`REQUEST` records of both ports are answered, ``outstanding`` at most at the same time on each port.

    Raises
    ------
    SdramSimulationError
        An answer came that nobody waited for, or ``max_cycles`` went by.
    ToolError
        The simulation cannot be built.
    """
    program = build_program(build.source())
    host = np.zeros(0, REQUEST) if host is None else host
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "contents"
        header = {
            "figures": sdram_figures(build.chip, clock_mhz=build.clock_mhz),
            "pin_latency": build.pin_latency,
            "npu": len(npu),
            "host": len(host),
            "outstanding": outstanding,
            "max_cycles": max_cycles,
            "dump": dump if contents else "",
        }
        text = "\t".join(f"{key}={value}" for key, value in header.items()) + "\n"
        ended = subprocess.run([program], input=text.encode() + npu.tobytes() + host.tobytes(), stdout=subprocess.PIPE, check=True)
        left = np.fromfile(dump, np.uint8) if contents else None
    line, _, rest = ended.stdout.partition(b"\n")
    values = dict(pair.split("=", 1) for pair in line.decode().split("\t"))
    violations = []
    for _ in range(int(values["violations"])):
        line, _, rest = rest.partition(b"\n")
        violations.append(parse_violation(line.decode()))
    if values["status"] != "done":
        what = values["detail"] or f"still waiting for answers after {max_cycles} cycles"
        raise SdramSimulationError(f"the SDRAM controller broke the bus protocol after {values['cycles']} cycles: {what}")
    answers = np.frombuffer(rest, ANSWER)
    names = ("MODE", "REFRESH", "PRECHARGE", "ACTIVATE", "WRITE", "READ")
    return SdramRun(
        cycles=int(values["cycles"]),
        busy=int(values["busy"]),
        npu=answers[: len(npu)],
        host=answers[len(npu) :],
        commands={name: int(values[name]) for name in names},
        violations=tuple(violations),
        contents=left,
    )


def controller_source(
    *, name: str, verilog: Callable[[], str], key: tuple[str, ...], gateware: tuple[Path, ...], memory_width: int
) -> SimulationSource:
    """A controller's simulation: its outermost module in ``verilog`` is :data:`TOP`; see :class:`SimulationSource` for the others."""
    return SimulationSource(
        name=name,
        verilog=verilog,
        key=key,
        gateware=gateware,
        top=TOP,
        sources=(_HARNESS,),
        includes=(HEADER,),
        cpp_defines={"TERCEL_MEMORY_WIDTH": memory_width},
    )
