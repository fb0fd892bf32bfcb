"""Sipeed Tang Nano 20K: Gowin GW2AR-18 with 8 MB of 32-bit SDRAM in its package, a BL616 as serial line. It holds ``nano``."""

from collections.abc import Iterator
from typing import Any

from amaranth.build import Attrs, Clock, Pins, Resource
from amaranth.build.res import PortMetadata
from amaranth.hdl import IOPort
from amaranth.lib import io
from amaranth.vendor import GowinPlatform
from amaranth_boards.resources import LEDResources, UARTResource

from tercel.boards.board import Board, MemoryPorts, Packer
from tercel.boards.gowin import DEVICES
from tercel.boards.gowin_pll import GowinClocks
from tercel.hw.config import NANO
from tercel.hw.sdram.chips import GW2AR18

_IN_PACKAGE = "in package"
_LVCMOS33 = Attrs(IO_TYPE="LVCMOS33")


class TangNano20kPlatform(GowinPlatform):
    """What leads out of the package, as far as it is used here."""

    part = "GW2AR-LV18QN88C8/I7"
    family = "GW2AR-18C"
    default_clk = "clk27"
    resources = [
        Resource("clk27", 0, Pins("4", dir="i"), Clock(27e6), _LVCMOS33),
        *LEDResources(pins="15 16 17 18 19 20", invert=True, attrs=_LVCMOS33),
        UARTResource(0, rx="70", tx="69", attrs=_LVCMOS33),
    ]
    connectors = []

    def __init__(self) -> None:
        super().__init__(toolchain="Apicula")

    def iter_port_constraints_bits(self) -> Iterator[tuple[str, str, dict]]:
        """Without the memory's pins, which have no place of their own to be named."""
        yield from ((port, pin, attributes) for port, pin, attributes in super().iter_port_constraints_bits() if pin != _IN_PACKAGE)


def _memory_ports(platform: Any) -> MemoryPorts:
    """The memory's pins lie inside the package; place and route knows them by these names."""

    def port(name: str, width: int, direction: str) -> io.SingleEndedPort:
        metadata = [PortMetadata(_IN_PACKAGE, {})] * width
        return io.SingleEndedPort(IOPort(width, name=name, metadata=metadata), direction=direction)

    widths = {"addr": 11, "ba": 2, "cke": 1, "dqm": 4, "cs_n": 1, "ras_n": 1, "cas_n": 1, "wen_n": 1, "clk": 1}
    ports = {name: port(f"O_sdram_{name}", width, "o") for name, width in widths.items()}
    return MemoryPorts(
        a=ports["addr"],
        ba=ports["ba"],
        cke=ports["cke"],
        dqm=ports["dqm"],
        cs_n=ports["cs_n"],
        ras_n=ports["ras_n"],
        cas_n=ports["cas_n"],
        we_n=ports["wen_n"],
        clk=ports["clk"],
        dq=port("IO_sdram_dq", 32, "io"),
    )


TANG_NANO_20K = Board(
    name="tang-nano-20k",
    summary="Sipeed Tang Nano 20K with a GW2AR-18, 8 MB SDRAM",
    config=NANO,
    device=DEVICES[0],
    platform=TangNano20kPlatform,
    # A quarter of a period, 4.6 ns: the chip must see commands 1.5 ns before its clock, and flip-flops are up to 3 ns from their pins. Its
    # data, 6 ns after its clock, have 7.9 ns left for both ways through the pins and the one to their flip-flops.
    clocks=lambda hz: GowinClocks(pin="clk27", input_hz=27_000_000, clock_hz=hz, sdram_degrees=90),
    memory=GW2AR18,
    memory_ports=_memory_ports,
    clock_hz=54_000_000,
    packer=Packer(
        tool="gowin_pack",
        arguments=("-d", "GW2A-18C", "-o", "{bitstream}", "top.pnr.json"),
        place_arguments=("--write", "top.pnr.json"),
        suffix=".fs",
    ),
    loader="tangnano20k",
)
