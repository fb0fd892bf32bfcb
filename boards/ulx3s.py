"""Radiona ULX3S: ECP5, 32 MB of 16-bit SDRAM, an FT231X as serial line. With the 85F it holds ``base``, with the 25F ``small``."""

from functools import partial

from amaranth_boards.ulx3s import ULX3S_25F_Platform, ULX3S_85F_Platform

from tercel.boards.board import Board, Packer
from tercel.boards.board_top import resource_ports
from tercel.boards.ecp5 import DEVICES
from tercel.boards.ecp5_pll import Ecp5Clocks
from tercel.boards.routing_rounds import UNTIL_CLOCK
from tercel.hw.config import BASE, SMALL, Config
from tercel.hw.sdram.chips import IS42S16160G

_DEVICES = {device.name: device for device in DEVICES}

PACKER = Packer(
    tool="ecppack",
    arguments=("--compress", "--input", "top.config", "--bit", "{bitstream}"),
    place_arguments=("--lpf", "top.lpf", "--textcfg", "top.config"),
    suffix=".bit",
    constraint=("top.lpf", 'FREQUENCY NET "clk" {mhz} MHZ;'),
)

_CLOCKS = partial(Ecp5Clocks, pin="clk25", input_hz=25_000_000, sdram_degrees=67.5)
"""A fifth of a period: the chip must see commands 1.5 ns before its clock, and its data, 6 ns after its clock and the way back, must be
here at the end of ours."""


def _ulx3s(*, part: str, config: Config, device: str, platform: type, clock_hz: int, seed: int) -> Board:
    return Board(
        name=f"ulx3s-{part}",
        summary=f"Radiona ULX3S with an ECP5-{part.upper()}, 32 MB SDRAM",
        config=config,
        device=_DEVICES[device],
        platform=platform,
        clocks=lambda hz: _CLOCKS(clock_hz=hz),
        memory=IS42S16160G,
        memory_ports=resource_ports,
        clock_hz=clock_hz,
        packer=PACKER,
        loader="ulx3s",
        seed=seed,
        # Without it router2 leaves a few wires on detours over half of the 85F, and with them a clock below what placement estimates.
        place_arguments=(UNTIL_CLOCK,),
    )


ULX3S_85F = _ulx3s(part="85f", config=BASE, device="ecp5-85f", platform=ULX3S_85F_Platform, clock_hz=100_000_000, seed=1)
ULX3S_25F = _ulx3s(part="25f", config=SMALL, device="ecp5-25f", platform=ULX3S_25F_Platform, clock_hz=100_000_000, seed=3)
