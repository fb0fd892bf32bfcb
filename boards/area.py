"""Area and clock frequency of a component on an FPGA: synthesis, then place and route with nothing but five pins around it."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.lib.wiring import Component
from rich.table import Table

from tercel.boards import ecp5, gowin, ice40
from tercel.boards.breakdown import parse_blocks
from tercel.boards.device import Device
from tercel.boards.pin_wrapper import PinWrapper
from tercel.hw.config import Config
from tercel.sim.toolchain import ToolError, find_tool, run_tool

DEVICES: dict[str, Device] = {device.name: device for device in (*ecp5.DEVICES, *ice40.DEVICES, *gowin.DEVICES)}

TARGET_MHZ = 100.0
LUT_PER_LANE_LIMIT = 60.0

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A figure and what it may be. ``kind`` is ``most`` or ``least``."""

    name: str
    value: float
    limit: float
    kind: str

    @property
    def ok(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit if self.kind == "most" else self.value >= self.limit


@dataclass(frozen=True, kw_only=True)
class Area:
    """The figures of one component on one device, without the pin wrapper where not said otherwise.

    Attributes
    ----------
    synthesized
        Resources after synthesis.
    routed
        Resources after place and route as its tool counts them, the wrapper included; empty when it was not run.
    fmax
        MHz after routing; None when it was not run.
    critical_path
        From and to which cell the slowest path leads, its nanoseconds of logic and of routing; empty when not run.
    lanes
        Multiply-accumulate lanes, 0 when not known.
    blocks
        Resources of each block after synthesis, largest first.
    seconds
        Wall time of each step.
    """

    component: str
    device: str
    lanes: int
    synthesized: dict[str, int]
    routed: dict[str, int]
    fmax: float | None
    critical_path: dict[str, str | float]
    blocks: dict[str, dict[str, int]]
    tools: dict[str, str]
    seconds: dict[str, float]
    notes: tuple[str, ...]

    @property
    def limits(self) -> list[Limit]:
        """What the device has, and the project's own limits."""
        available = DEVICES[self.device].available
        rows = [
            Limit(name=name, value=max(self.synthesized.get(name, 0), self.routed.get(name, 0)), limit=number, kind="most")
            for name, number in available.items()
        ]
        if self.lanes:
            rows.append(Limit(name="LUT4 per lane", value=self.synthesized["LUT4"] / self.lanes, limit=LUT_PER_LANE_LIMIT, kind="most"))
        if self.fmax is not None:
            rows.append(Limit(name="fmax MHz", value=self.fmax, limit=TARGET_MHZ, kind="least"))
        return rows

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {**asdict(self), "limits": [{**asdict(limit), "ok": limit.ok} for limit in self.limits]}


def measure_machine(config: Config, *, device: Device, folder: Path, route: bool = True, report: Report | None = None) -> Area:
    """The area of the whole accelerator; see :func:`measure`."""
    from tercel.hw.npu import Npu

    lanes = config.array_lanes + config.depthwise_lanes
    name = config.name
    return measure(Npu(config), name=name, machine=name, lanes=lanes, device=device, folder=folder, route=route, report=report)


def measure(
    component: Component,
    *,
    name: str,
    device: Device,
    folder: Path,
    lanes: int = 0,
    machine: str | None = None,
    verilog: str = "",
    route: bool = True,
    report: Report | None = None,
) -> Area:
    """Synthesize ``component`` and, with ``route``, place and route it for :data:`TARGET_MHZ`.

    ``machine`` is the name of the config of a whole machine, for which the device may have a floorplan. ``verilog`` has the modules
    that ``component`` takes from elsewhere.
    ``folder`` receives the netlists, the reports and the logs. ``report`` is called with a line of text whenever there is news.

    Raises
    ------
    ToolError
        A tool is missing or failed; or the part has fewer resources than synthesis needs (found before the long step).
    """
    folder.mkdir(parents=True, exist_ok=True)
    tell = report or (lambda line: None)
    seconds: dict[str, float] = {}

    tell("elaborate")
    started = time.monotonic()
    wrapper = PinWrapper(component)
    (folder / "top.il").write_text(rtlil.convert(wrapper, name="top", platform=device.platform, emit_src=False))
    seconds["elaborate"] = time.monotonic() - started

    yosys = find_tool("yosys")
    tools = {"yosys": yosys.version}
    started = time.monotonic()
    (folder / "instances.v").write_text(verilog)
    read = "read_rtlil top.il; read_verilog instances.v" if verilog else "read_rtlil top.il"
    script = f"{read}; {device.synthesis_script}; tee -q -o cells.json stat -json"
    run_tool(yosys, ["-p", script], folder=folder, log=folder / "yosys.log", report=yosys_step(tell))
    seconds["synthesis"] = time.monotonic() - started
    total = device.count(parse_cells((folder / "cells.json").read_text()))
    synthesized = {resource: max(0, number - wrapper.own.get(resource, 0)) for resource, number in total.items()}

    blocks = parse_blocks((folder / "top.json").read_text(), device=device)

    routed: dict[str, int] = {}
    fmax, path = None, {}
    if route:
        check_fit(total, device=device)
        placer = find_tool(device.place_tool)
        tools[placer.name] = placer.version
        started = time.monotonic()
        device.prepare_netlist(folder / "top.json", machine=machine)
        (folder / "top.cst").write_text(device.constraints)
        arguments = [argument.format(netlist="top.json") for argument in device.place_arguments]
        extra = ["--freq", f"{TARGET_MHZ:g}", "--report", "report.json", "--timing-allow-fail", "--seed", "1"]
        run_tool(placer, [*arguments, *extra], folder=folder, log=folder / "place.log", report=place_step(tell))
        seconds["place and route"] = time.monotonic() - started
        routed, fmax, path = parse_report((folder / "report.json").read_text(), device=device)
    return Area(
        component=name,
        device=device.name,
        lanes=lanes,
        synthesized=synthesized,
        routed=routed,
        fmax=fmax,
        critical_path=path,
        blocks=blocks,
        tools=tools,
        seconds={step: round(value, 1) for step, value in seconds.items()},
        notes=device.notes,
    )


def parse_cells(text: str) -> dict[str, int]:
    """Cells by type from yosys' ``stat -json``, over all modules (``synth_*`` leaves one)."""
    try:
        design = json.loads(text[text.index("{") :])["design"]
        return {kind.lstrip("\\"): int(number) for kind, number in design["num_cells_by_type"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolError(f"yosys' statistics cannot be read: {error!r} (this release knows yosys 0.40 to 0.70)") from error


def check_fit(needed: Mapping[str, int], *, device: Device) -> None:
    """:class:`ToolError` if ``device`` has less of something than ``needed``. LUTs are left to place and route, which packs them."""
    over = [
        f"{number} of {device.available[resource]} {resource}"
        for resource, number in needed.items()
        if resource not in ("LUT4", "FF") and number > device.available[resource]
    ]
    if over:
        raise ToolError(
            f"{device.name} is too small: the design needs {', '.join(over)} (take a smaller config, or leave out place and route)"
        )


def parse_report(text: str, *, device: Device) -> tuple[dict[str, int], float | None, dict[str, str | float]]:
    """Resources, the lowest fmax of all clocks and the slowest path from nextpnr's ``--report``."""
    try:
        report = json.loads(text)
        used = {name: int(numbers["used"]) for name, numbers in report["utilization"].items()}
        clocks = {name: float(numbers["achieved"]) for name, numbers in report["fmax"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolError(f"nextpnr's report cannot be read: {error!r} (this release knows nextpnr 0.7 to 0.11)") from error
    routed = {resource: sum(used.get(name, 0) for name in names) for resource, names in device.placed.items()}
    slowest = min(clocks, key=lambda name: clocks[name], default=None)
    if slowest is None:
        return routed, None, {}
    return routed, round(clocks[slowest], 2), _critical_path(report.get("critical_paths", []), clock=slowest)


def _critical_path(paths: list[dict], *, clock: str) -> dict[str, str | float]:
    for path in paths:
        steps = path.get("path", [])
        if steps and path.get("from", "").endswith(clock) and path.get("to", "").endswith(clock):
            routing = sum(step["delay"] for step in steps if step["type"] == "routing")
            total = sum(step["delay"] for step in steps)
            return {
                "from": steps[0]["from"]["cell"],
                "to": steps[-1]["to"]["cell"],
                "logic_ns": round(total - routing, 2),
                "routing_ns": round(routing, 2),
            }
    return {}


def yosys_step(tell: Report) -> Report:
    """Takes yosys' lines and tells the steps."""

    def line(text: str) -> None:
        number, _, rest = text.partition(" ")
        if rest.startswith("Executing ") and number.rstrip(".").replace(".", "").isdigit() and number.count(".") <= 2:
            tell(f"yosys {number} {rest.removeprefix('Executing ').rstrip('.')}")

    return line


def place_step(tell: Report) -> Report:
    """Takes nextpnr's lines and tells those that are news."""

    def line(text: str) -> None:
        text = text.removeprefix("Info:").strip()
        if text and text[0].isalpha() and "at iteration" not in text:
            tell(f"nextpnr {text[:100]}")

    return line


def area_table(area: Area) -> Table:
    """The figures for a terminal."""
    table = Table("figure", "value", "limit", "", title=f"{area.component} on {area.device}")
    for limit in area.limits:
        digits = 0 if float(limit.value).is_integer() and limit.limit >= 1 and limit.kind == "most" else 1
        state = "[green]ok[/]" if limit.ok else "[red]over[/]" if limit.kind == "most" else "[red]under[/]"
        sign = "<=" if limit.kind == "most" else ">="
        table.add_row(limit.name, f"{limit.value:.{digits}f}", f"{sign} {limit.limit:g}", state)
    return table


def blocks_table(area: Area, *, rows: int = 16) -> Table:
    """The largest blocks for a terminal."""
    resources = list(DEVICES[area.device].available)
    table = Table("block", *resources)
    for block, counts in list(area.blocks.items())[:rows]:
        table.add_row(block, *(str(counts.get(resource, 0)) for resource in resources))
    return table
