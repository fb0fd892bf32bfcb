# amaranth: UnusedElaboratable=no
"""Chips in cycles of a clock, and what the controller refuses."""

from dataclasses import replace

import pytest

from tercel.hw.sdram.chips import CHIPS, EM638325, IS42S16160G, named_chip
from tercel.hw.sdram.controller import SdramController
from tercel.hw.sdram.timing import REFRESH_ROOM, SdramError, cycles_of


@pytest.mark.parametrize(
    ("nanoseconds", "clock_mhz", "cycles"),
    [(20, 100, 2), (20, 50, 1), (20.1, 50, 2), (15, 66.667, 1), (15, 67, 2), (1, 10, 1), (67.5, 100, 7)],
)
def test_cycles_are_rounded_up(nanoseconds, clock_mhz, cycles):
    assert cycles_of(nanoseconds, clock_mhz=clock_mhz) == cycles


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
@pytest.mark.parametrize("clock_mhz", [27, 50, 66.667, 100, 100.5, 133])
def test_every_time_is_kept_at_every_clock(chip, clock_mhz):
    cycles, timing, period = chip.cycles(clock_mhz=clock_mhz), chip.timing, 1000 / clock_mhz
    slack = period / 999
    for name in ("rcd", "rp", "ras", "rrd", "rfc", "wr"):
        needed = getattr(timing, name)
        assert needed - slack <= getattr(cycles, name) * period < max(needed, timing.rc if name == "ras" else 0) + period
    assert (cycles.ras + cycles.rp) * period >= timing.rc - slack
    assert cycles.refresh * chip.refreshes * period + REFRESH_ROOM * period <= timing.retention
    assert cycles.power_up * cycles.refresh * period >= timing.power_up
    assert cycles.cas == (2 if clock_mhz <= 100 else 3)


def test_the_sizes_of_the_boards_chips():
    assert {name: chip.bytes >> 20 for name, chip in CHIPS.items()} == {"is42s16160g": 32, "em638325": 8, "gw2ar18": 8}


def refused(call, text):
    with pytest.raises(SdramError) as error:
        call()
    assert str(error.value) == text


def test_clocks_out_of_range():
    refused(
        lambda: IS42S16160G.cycles(clock_mhz=150.0),
        "clock_mhz must be above 0 and at most 133 for IS42S16160G-7, not 150 (take a slower clock)",
    )
    refused(
        lambda: IS42S16160G.cycles(clock_mhz=12.0),
        "clock_mhz must be at least 25 for IS42S16160G-7, not 12 (refreshes would take all time)",
    )
    assert IS42S16160G.cycles(clock_mhz=25.0).refresh > REFRESH_ROOM


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"banks": 3}, "banks must be 2 or 4, not 3 (one or two bank address pins)"),
        ({"rows": 1024}, "rows must be 2048, 4096 or 8192, not 1024 (11 to 13 address pins)"),
        ({"columns": 2048}, "columns must be a power of two in 8..1024, not 2048 (pin 10 is no column)"),
        ({"width": 8}, "width must be 1, 2 or 4 bytes, not 8 (8, 16 or 32 data pins)"),
        ({"refreshes": 0}, "refreshes must be at least 1, not 0 (4096 or 8192 in most chips)"),
    ],
)
def test_impossible_chips(change, text):
    refused(lambda: replace(EM638325, **change), text)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rcd": 0.0}, "rcd must be above 0, not 0.0 (see the timing table of the chip's datasheet)"),
        ({"rc": 40.0}, "rc must be at least ras = 42 ns, not 40 (a row is open for ras before the next one)"),
        ({"cas": ()}, "cas must be pairs of a rising clock in MHz and a latency of 2 or 3, not () (such as (100.0, 2))"),
        ({"cas": ((5.0, 1),)}, "cas must be pairs of a rising clock in MHz and a latency of 2 or 3, not ((5.0, 1),) (such as (100.0, 2))"),
    ],
)
def test_impossible_timing(change, text):
    refused(lambda: replace(EM638325.timing, **change), text)


def test_controllers_out_of_range():
    def controller(**change):
        arguments = {"clock_mhz": 100.0, "memory_width": 8, "addr_width": 29, **change}
        return lambda: SdramController(IS42S16160G, **arguments)

    refused(
        controller(memory_width=32),
        "memory_width must be one of 1, 2, 4, 8, 16 for IS42S16160G-7, not 32 (a beat is at most a burst of 8 words)",
    )
    refused(controller(addr_width=21), "addr_width must be at least 22 for IS42S16160G-7, not 21 (or part of the chip is lost)")
    refused(controller(pin_latency=4), "pin_latency must be in 0..3, not 4 (registers at the pins, out and back)")


def test_names():
    assert named_chip("em638325") is EM638325
    refused(
        lambda: named_chip("ddr3"), "chip must be one of is42s16160g, em638325, gw2ar18, not 'ddr3' (or describe it as an SdramChip)"
    )
