"""The system in Verilator as a line to a machine: what is written goes bit by bit to its pad, what its pad sends comes back."""

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tercel.hw.config import Config
from tercel.hw.sdram.timing import SdramChip
from tercel.hw.soc import OnChip, Soc
from tercel.sim.soc.sdram_model import HEADER, sdram_figures
from tercel.sim.verilator.compile import Report, SimulationSource, build_program, gateware_sources
from tercel.sim.verilator.model import SimulationError

_HARNESS = Path(__file__).with_name("harness.cpp")
_TOP = "tercel_soc_bench"


@dataclass(frozen=True, kw_only=True)
class SocBuild:
    """A system to simulate; see :class:`~tercel.hw.soc.Soc`. ``pin_latency`` are registers of the board that the simulation puts in."""

    config: Config
    memory: SdramChip | OnChip
    clock_hz: int
    baud: int
    pin_latency: int = 0
    payload_bytes: int = 2048

    def soc(self) -> Soc:
        """The gateware."""
        return Soc(
            self.config,
            memory=self.memory,
            clock_hz=self.clock_hz,
            baud=self.baud,
            pin_latency=self.pin_latency,
            payload_bytes=self.payload_bytes,
        )

    @property
    def divider(self) -> int:
        """Clock cycles a bit on the line."""
        return round(self.clock_hz / self.baud)


@dataclass(frozen=True, kw_only=True)
class SocStatistics:
    """What a simulated system has done so far.

    Attributes
    ----------
    cycles
        Clock cycles since power-up; ``ready`` is the one in which the memory could be used.
    framing_errors
        Bytes from the machine without a stop bit.
    words_read, words_written
        By the memory chip.
    violations, violation
        Rules of the chip that were broken: how often, and the first.
    """

    cycles: int
    ready: int
    framing_errors: int
    words_read: int = 0
    words_written: int = 0
    violations: int = 0
    violation: str = ""


class SocSimulation:
    """A running system, from power-up on: a :class:`~tercel.sw.link.transport.Transport`. Its clock runs only while somebody reads.

    Parameters
    ----------
    build
        What is simulated.
    report
        Called with the name of each step when it has to be built.

    Raises
    ------
    ToolError
        It cannot be built.
    """

    def __init__(self, build: SocBuild, *, report: Report | None = None) -> None:
        self.name = "simulation"
        self.byte_seconds = 10 * build.divider / build.clock_hz
        self._clock_hz = build.clock_hz
        self._chip_bytes = build.memory.bytes if isinstance(build.memory, SdramChip) else 0
        program = build_program(_source(build), report=report)
        figures = sdram_figures(build.memory, clock_mhz=build.clock_hz / 1e6) if isinstance(build.memory, SdramChip) else ""
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [program, str(build.divider), str(build.pin_latency), figures], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def now(self) -> float:
        """Simulated seconds since power-up."""
        return self.statistics().cycles / self._clock_hz

    def write(self, data: bytes) -> None:
        """As :meth:`~tercel.sw.link.transport.Transport.write`."""
        self._ask(b"w" + struct.pack("=I", len(data)) + data)

    def read(self, timeout_s: float) -> bytes:
        """As :meth:`~tercel.sw.link.transport.Transport.read`; what has come when the line has been quiet for two bytes' time."""
        return self._ask(b"r" + struct.pack("=Q", int(timeout_s * self._clock_hz) + 1), answer=True)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def memory(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """What the memory chip holds; nothing goes over the line for this. :class:`ValueError` for bytes that it does not have."""
        self._check_chip(address, size)
        return np.frombuffer(self._ask(b"m" + struct.pack("=QQ", address, size), answer=True), dtype=np.uint8)

    def preload(self, address: int, data: bytes) -> None:
        """Put ``data`` into the memory chip by the back door: not over the line, not through its pins, in no time.

        :class:`ValueError` for bytes that it does not have.
        """
        self._check_chip(address, len(data))
        self._ask(b"p" + struct.pack("=QQ", address, len(data)) + data)

    def _check_chip(self, address: int, size: int) -> None:
        if not 0 <= address <= address + size <= self._chip_bytes:
            raise ValueError(
                f"address must lie in the memory chip, 0..{self._chip_bytes}, not {address}..{address + size} "
                "(memory on the FPGA has no back door)"
            )

    def statistics(self) -> SocStatistics:
        """So far."""
        pairs = (pair.split("=", 1) for pair in self._ask(b"s", answer=True).decode().split("\t") if pair)
        return SocStatistics(**{key: value if key == "violation" else int(value) for key, value in pairs})  # type: ignore[arg-type]

    def _ask(self, request: bytes, *, answer: bool = False) -> bytes:
        to, back = self._process.stdin, self._process.stdout
        assert to is not None and back is not None
        try:
            to.write(request)
            to.flush()
        except BrokenPipeError:
            raise _ended() from None
        if not answer:
            return b""
        header = back.read(4)
        if len(header) < 4:
            raise _ended()
        (size,) = struct.unpack("=I", header)
        return back.read(size)


def _ended() -> SimulationError:
    return SimulationError("the simulation process ended (run it again; if it stays so, clear the cache folder)")


def _source(build: SocBuild) -> SimulationSource:
    with_chip = isinstance(build.memory, SdramChip)
    return SimulationSource(
        name=f"soc-{build.config.name}",
        verilog=lambda: _verilog(build),
        key=(repr(build), f"{build.config.hash:08x}", Path(__file__).read_text()),
        gateware=gateware_sources(),
        top=_TOP,
        sources=(_HARNESS,),
        includes=(HEADER,) if with_chip else (),
        cpp_defines={"TERCEL_SDRAM": int(with_chip)},
    )


def _verilog(build: SocBuild) -> str:
    from amaranth.back import verilog

    return str(verilog.convert(_bench(build.soc()), name=_TOP, emit_src=False, strip_internal_attrs=True))


def _bench(soc: Soc) -> Any:
    """The system with a reset that goes through a register: Verilator would evaluate what lies behind an input again and again."""
    from amaranth.hdl import ClockDomain, ClockSignal, Module, ResetInserter, Signal
    from amaranth.lib.wiring import Component, In, Out, connect, flipped

    class Bench(Component):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__({"pads": Out(soc.signature), "clk": In(1), "reset": In(1)})

        def elaborate(self, platform: object) -> Module:
            m = Module()
            m.domains.sync = ClockDomain("sync", reset_less=True)
            m.d.comb += ClockSignal("sync").eq(self.clk)
            registered = Signal(init=1)
            m.d.sync += registered.eq(self.reset)
            m.submodules.soc = ResetInserter(registered)(soc)
            connect(m, soc, flipped(self.pads))
            return m

    return Bench()
