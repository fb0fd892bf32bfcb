"""The SDRAM chip's model from Python: the same C++ that runs beside the RTL, as a shared library that is built once."""

import ctypes
import hashlib
import os
import tempfile
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tercel.hw.sdram.pins import Command
from tercel.hw.sdram.timing import SdramChip
from tercel.sim.toolchain import cache_folder, find_tool, run_tool

HEADER = Path(__file__).with_name("sdram_model.hpp")
_LIBRARY = Path(__file__).with_name("sdram_library.cpp")
_FLAGS = ("-std=c++17", "-O2", "-shared", "-fPIC")
_TEXT_BYTES = 200
_KEPT = 1000


@dataclass(frozen=True, kw_only=True)
class SdramViolation:
    """A rule of the chip that was broken. ``needed`` and ``had`` are cycles for times, counts or states (0, 1) otherwise."""

    cycle: int
    command: str
    parameter: str
    needed: int
    had: int


@dataclass(frozen=True, kw_only=True)
class SdramLevels:
    """Levels on the pins just before a rising edge; nothing but a running clock by default."""

    cke: int = 1
    cs_n: int = 1
    ras_n: int = 1
    cas_n: int = 1
    we_n: int = 1
    ba: int = 0
    a: int = 0
    dqm: int = 0
    dq_o: int = 0
    dq_oe: int = 0


def sdram_figures(chip: SdramChip, *, clock_mhz: float) -> str:
    """The figures of a chip as the model reads them, on one line: "name=value" with blanks between, times in nanoseconds."""
    timing = chip.timing
    values: dict[str, float] = {"clock_mhz": clock_mhz, "cas": next(cas for limit, cas in timing.cas if clock_mhz <= limit)}
    values |= {name: getattr(chip, name) for name in ("banks", "rows", "columns", "width", "refreshes")}
    values |= {field.name: getattr(timing, field.name) for field in fields(timing) if field.name != "cas"}
    return " ".join(f"{name}={value!r}" for name, value in values.items())


class SdramModel:
    """One chip. :meth:`clock` is one rising edge; :attr:`dq` then is what the chip drives for the next one (noise if nothing).

    Parameters
    ----------
    chip
        Its geometry and timing.
    clock_mhz
        Of its clock.
    """

    def __init__(self, chip: SdramChip, *, clock_mhz: float) -> None:
        self.chip = chip
        self._library = _library()
        self._handle = ctypes.c_void_p(self._library.sdram_new(sdram_figures(chip, clock_mhz=clock_mhz).encode()))

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self._library.sdram_delete(self._handle)

    def clock(self, levels: SdramLevels) -> None:
        """One rising edge with ``levels`` on the pins."""
        bits = levels.cke | levels.cs_n << 1 | levels.ras_n << 2 | levels.cas_n << 3 | levels.we_n << 4 | levels.dq_oe << 5
        self._library.sdram_clock(self._handle, bits, levels.ba, levels.a, levels.dqm, levels.dq_o)

    @property
    def dq(self) -> int:
        """On the data pins for the next edge."""
        return int(self._library.sdram_dq(self._handle))

    @property
    def drives(self) -> bool:
        """Whether the chip drives the data pins for the next edge."""
        return bool(self._library.sdram_drives(self._handle))

    @property
    def cycle(self) -> int:
        """Edges so far."""
        return int(self._library.sdram_cycle(self._handle))

    @property
    def contents(self) -> npt.NDArray[np.uint8]:
        """The bytes of the chip, as they lie in the address space of the controller; a view that can be written."""
        buffer = (ctypes.c_uint8 * self.chip.bytes).from_address(self._library.sdram_bytes(self._handle))
        buffer.owner = self  # type: ignore[attr-defined]  # the array keeps the buffer, and so the model
        return np.frombuffer(memoryview(buffer).cast("B"), np.uint8)

    def count(self, command: Command) -> int:
        """Times ``command`` was given."""
        return int(self._library.sdram_command_count(self._handle, int(command)))

    @property
    def violations(self) -> list[SdramViolation]:
        """Rules broken so far, the first thousand."""
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        found = []
        for number in range(min(_KEPT, self._library.sdram_violation_count(self._handle))):
            self._library.sdram_violation(self._handle, number, text, _TEXT_BYTES)
            found.append(parse_violation(text.value.decode()))
        return found


def parse_violation(text: str) -> SdramViolation:
    """A violation from the model's own words."""
    values = dict(pair.split("=", 1) for pair in text.split())
    return SdramViolation(
        cycle=int(values["cycle"]),
        command=values["command"],
        parameter=values["parameter"],
        needed=int(values["needed"]),
        had=int(values["had"]),
    )


@cache
def _library() -> ctypes.CDLL:
    compiler = find_tool("g++")
    digest = hashlib.sha256(b"\0".join((HEADER.read_bytes(), _LIBRARY.read_bytes(), compiler.version.encode(), " ".join(_FLAGS).encode())))
    folder = cache_folder() / "sdram"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"sdram-{digest.hexdigest()[:16]}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            built = Path(work) / target.name
            run_tool(compiler, [*_FLAGS, str(_LIBRARY), "-o", str(built)], folder=Path(work), log=target.with_suffix(".log"))
            os.replace(built, target)
    library = ctypes.CDLL(str(target))
    handle, word, number = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
    for name, result, arguments in (
        ("new", handle, [ctypes.c_char_p]),
        ("delete", None, [handle]),
        ("clock", None, [handle, word, word, word, word, word]),
        ("dq", word, [handle]),
        ("drives", ctypes.c_int, [handle]),
        ("cycle", number, [handle]),
        ("bytes", handle, [handle]),
        ("command_count", number, [handle, word]),
        ("violation_count", number, [handle]),
        ("violation", None, [handle, word, ctypes.c_char_p, word]),
    ):
        function = getattr(library, f"sdram_{name}")
        function.restype = result
        function.argtypes = arguments
    return library
