"""A board: what is on it, and how its tools are called. Each board is a file of this folder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Elaboratable

from tercel.boards.device import Device
from tercel.hw.config import Config
from tercel.hw.sdram.timing import SdramChip
from tercel.hw.soc import Soc


@dataclass(frozen=True, kw_only=True)
class MemoryPorts:
    """The memory chip's pins, as ports of :mod:`amaranth.lib.io` that carry electric levels (``_n``: active low)."""

    a: Any
    ba: Any
    cke: Any
    dqm: Any
    cs_n: Any
    ras_n: Any
    cas_n: Any
    we_n: Any
    clk: Any
    dq: Any


@dataclass(frozen=True, kw_only=True)
class Packer:
    """What makes a bitstream of the placed and routed design.

    Attributes
    ----------
    tool
        Name in :mod:`tercel.sim.toolchain`.
    arguments
        ``{bitstream}`` stands for the file to make.
    place_arguments
        What place and route needs so that there is something to pack.
    suffix
        Of the bitstream.
    constraint
        File and line to add to it, in which ``{mhz}`` stands for the clock that routing has to reach; None where it needs none.
    """

    tool: str
    arguments: tuple[str, ...]
    place_arguments: tuple[str, ...]
    suffix: str
    constraint: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board with one config.

    Attributes
    ----------
    name, summary
        For people.
    config
        The accelerator that it is built with.
    device
        Its FPGA.
    platform
        Makes its pins, as Amaranth knows them.
    clocks
        What drives the domains ``sync`` and ``sdram``, for a clock in Hz.
    memory, memory_ports
        Its memory chip, and what makes its pins.
    clock_hz
        Of the core, as place and route reaches it.
    baud
        Of its serial line, to which ``uart`` 0 leads.
    pin_latency
        Registers between the memory controller and the chip, out and back.
    seed
        Of place and route, with which its clock is reached.
    place_arguments
        Of place and route, for its design alone.
    packer
        Makes the bitstream.
    loader
        Its name for openFPGALoader.
    """

    name: str
    summary: str
    config: Config
    device: Device
    platform: Callable[[], Any]
    clocks: Callable[[int], Elaboratable]
    memory: SdramChip
    memory_ports: Callable[[Any], MemoryPorts]
    clock_hz: int
    packer: Packer
    loader: str
    baud: int = 3_000_000
    pin_latency: int = 2
    seed: int = 1
    place_arguments: tuple[str, ...] = ()

    def soc(self) -> Soc:
        """The system that goes into its bitstream."""
        return Soc(self.config, memory=self.memory, clock_hz=self.clock_hz, baud=self.baud, pin_latency=self.pin_latency)
