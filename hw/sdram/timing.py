"""What the controller knows of an SDRAM chip: its geometry and its timing, in nanoseconds and in cycles of a clock."""

import math
from dataclasses import dataclass, fields

from amaranth.utils import exact_log2

REFRESH_ROOM = 192
"""Cycles that a refresh may come late because data is on its way; the refresh period must be longer than that."""


class SdramError(ValueError):
    """A chip, clock or width that the controller cannot serve. The message names the parameter, the limit, the value and the way out."""


@dataclass(frozen=True, kw_only=True)
class SdramTiming:
    """Least times between commands, in nanoseconds where not said otherwise.

    Parameters
    ----------
    rcd
        From ACTIVATE to READ or WRITE of the bank.
    rp
        From PRECHARGE to ACTIVATE, REFRESH or MODE.
    ras, rc
        From ACTIVATE to PRECHARGE of the bank, and to the next ACTIVATE of it.
    rrd
        From ACTIVATE to ACTIVATE of another bank.
    rfc
        From REFRESH to any command.
    wr
        From the last word written to PRECHARGE of the bank.
    mrd_cycles
        From MODE to any command, in cycles.
    ras_max
        From ACTIVATE to PRECHARGE at most.
    retention
        In which every row must be refreshed.
    power_up
        Of stable power and clock before the first command.
    cas
        Pairs (clock in MHz up to which it holds, CAS latency in cycles), from slow to fast.
    """

    rcd: float
    rp: float
    ras: float
    rc: float
    rrd: float
    rfc: float
    wr: float
    mrd_cycles: int = 2
    ras_max: float = 100_000.0
    retention: float = 64e6
    power_up: float = 200_000.0
    cas: tuple[tuple[float, int], ...]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "cas" and not value > 0:
                raise SdramError(f"{field.name} must be above 0, not {value!r} (see the timing table of the chip's datasheet)")
        if self.rc < self.ras:
            raise SdramError(f"rc must be at least ras = {self.ras:g} ns, not {self.rc:g} (a row is open for ras before the next one)")
        clocks, latencies = [clock for clock, _ in self.cas], [latency for _, latency in self.cas]
        if not self.cas or clocks != sorted(set(clocks)) or any(latency not in (2, 3) for latency in latencies):
            raise SdramError(f"cas must be pairs of a rising clock in MHz and a latency of 2 or 3, not {self.cas!r} (such as (100.0, 2))")


@dataclass(frozen=True, kw_only=True)
class SdramCycles:
    """:class:`SdramTiming` in whole cycles of a clock. ``refresh`` is the period of the refreshes, ``power_up`` counts such periods.

    ``ras`` is long enough that ``ras + rp`` is at least rc.
    """

    rcd: int
    rp: int
    ras: int
    rrd: int
    rfc: int
    wr: int
    mrd: int
    cas: int
    refresh: int
    power_up: int


@dataclass(frozen=True, kw_only=True)
class SdramChip:
    """A chip, or the one inside an FPGA's package.

    Parameters
    ----------
    name
        For messages and reports.
    banks
        2 or 4.
    rows, columns
        Of a bank; powers of two, rows up to 8192, columns 8..1024 (address bit 10 has a meaning of its own).
    width
        Bytes of a word: 1, 2 or 4.
    refreshes
        That refresh every row once.
    timing
        In ns.
    """

    name: str
    banks: int
    rows: int
    columns: int
    width: int
    refreshes: int
    timing: SdramTiming

    def __post_init__(self) -> None:
        def check(condition: bool, argument: str, limit: str, way_out: str) -> None:
            if not condition:
                raise SdramError(f"{argument} must be {limit}, not {getattr(self, argument)!r} ({way_out})")

        check(self.banks in (2, 4), "banks", "2 or 4", "one or two bank address pins")
        check(_power_of_two(self.rows) and 2048 <= self.rows <= 8192, "rows", "2048, 4096 or 8192", "11 to 13 address pins")
        check(_power_of_two(self.columns) and 8 <= self.columns <= 1024, "columns", "a power of two in 8..1024", "pin 10 is no column")
        check(self.width in (1, 2, 4), "width", "1, 2 or 4 bytes", "8, 16 or 32 data pins")
        check(self.refreshes >= 1, "refreshes", "at least 1", "4096 or 8192 in most chips")

    @property
    def bytes(self) -> int:
        """Of the whole chip."""
        return self.banks * self.rows * self.columns * self.width

    @property
    def addr_pins(self) -> int:
        """Row address pins."""
        return exact_log2(self.rows)

    def cycles(self, *, clock_mhz: float) -> SdramCycles:
        """The timing at ``clock_mhz``, which must be one that the chip keeps up with and at which refreshes leave time for data."""
        timing = self.timing
        fastest = timing.cas[-1][0]
        if not 0 < clock_mhz <= fastest:
            raise SdramError(f"clock_mhz must be above 0 and at most {fastest:g} for {self.name}, not {clock_mhz:g} (take a slower clock)")
        rp = cycles_of(timing.rp, clock_mhz=clock_mhz)
        # One cycle less, so that refreshes which come late by up to REFRESH_ROOM still reach every row in time.
        refresh = math.floor((timing.retention * clock_mhz / 1000 - REFRESH_ROOM) / self.refreshes)
        if refresh <= REFRESH_ROOM:
            least = math.ceil((REFRESH_ROOM + 2) * self.refreshes / timing.retention * 1000)
            raise SdramError(f"clock_mhz must be at least {least} for {self.name}, not {clock_mhz:g} (refreshes would take all time)")
        return SdramCycles(
            rcd=cycles_of(timing.rcd, clock_mhz=clock_mhz),
            rp=rp,
            ras=max(cycles_of(timing.ras, clock_mhz=clock_mhz), cycles_of(timing.rc, clock_mhz=clock_mhz) - rp),
            rrd=cycles_of(timing.rrd, clock_mhz=clock_mhz),
            rfc=cycles_of(timing.rfc, clock_mhz=clock_mhz),
            wr=cycles_of(timing.wr, clock_mhz=clock_mhz),
            mrd=timing.mrd_cycles,
            cas=next(latency for limit, latency in timing.cas if clock_mhz <= limit),
            refresh=refresh,
            power_up=math.ceil(timing.power_up * clock_mhz / 1000 / refresh) + 1,
        )


def cycles_of(nanoseconds: float, *, clock_mhz: float) -> int:
    """Whole cycles of at least ``nanoseconds``; a thousandth of a cycle is forgiven, for clocks such as 66.667 MHz."""
    return max(1, math.ceil(nanoseconds * clock_mhz / 1000 - 1e-3))


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0
