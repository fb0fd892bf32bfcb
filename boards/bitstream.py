"""A board's bitstream: elaborate, synthesize, check what fits, place and route, pack. And into the board with it."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from amaranth.hdl import Elaboratable
from rich.table import Table

from tercel.boards.area import check_fit, parse_cells, parse_report, place_step, yosys_step
from tercel.boards.board import Board
from tercel.boards.board_top import BoardTop
from tercel.boards.routing_rounds import RoutingRounds
from tercel.sim.parse import UsageError
from tercel.sim.toolchain import ToolError, find_tool, run_tool

ROUTING_MARGIN = 1.01
"""What routing is asked for is so much faster than the clock: router2 counts without the ways of the clock itself to the flip-flops, and
has been seen to end, no path late, at 99.6 of 100 MHz."""

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Bitstream:
    """What was built.

    Attributes
    ----------
    board, config
        For which board and accelerator.
    path, sha256
        The file; None where the clock was not reached.
    clock_mhz, fmax
        The core's clock, and the fastest one after routing.
    critical_path
        From and to which cell the slowest path leads, and its nanoseconds.
    used, available
        Resources after place and route, and of the part.
    tools
        Versions.
    seconds
        Wall time of each step.
    """

    board: str
    config: str
    path: str | None
    sha256: str | None
    clock_mhz: float
    fmax: float
    critical_path: dict[str, str | float]
    used: dict[str, int]
    available: dict[str, int]
    tools: dict[str, str]
    seconds: dict[str, float]

    @property
    def ok(self) -> bool:
        """Whether there is a bitstream."""
        return self.path is not None

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {**asdict(self), "ok": self.ok}


def build_bitstream(
    board: Board, *, folder: Path, seed: int | None = None, top: Elaboratable | None = None, report: Report | None = None
) -> Bitstream:
    """Build the bitstream of ``board``. The same seed and tools give the same bytes.

    Parameters
    ----------
    board
        Where it is to run.
    folder
        Takes netlists, logs and the bitstream ``BOARD.suffix``.
    seed
        Of place and route; the board's own if there is none.
    top
        Something else than the board's system to put on it.
    report
        Called with a line of text whenever there is news.

    Raises
    ------
    ToolError
        A tool is missing or failed; the part has fewer resources than synthesis needs (found before the long step); or routing does not
        come to an end, since the clock is not reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tell = report or (lambda line: None)
    seconds: dict[str, float] = {}
    routed_mhz = board.clock_hz / 1e6 * ROUTING_MARGIN
    device, packer = board.device, board.packer
    bitstream = folder / f"{board.name}{packer.suffix}"
    bitstream.unlink(missing_ok=True)  # so that none of an earlier build is left when this one fails
    yosys, placer, pack = (find_tool(name) for name in ("yosys", device.place_tool, packer.tool))

    def timed(step: str, work: Callable[[], None]) -> None:
        tell(step)
        started = time.monotonic()
        work()
        seconds[step] = round(time.monotonic() - started, 1)

    def elaborate() -> None:
        plan = board.platform().prepare(top or BoardTop(board), "top", emit_src=False)
        for name, content in plan.files.items():
            if name.startswith("top.") and not name.endswith(".ys"):
                (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        if packer.constraint:
            constrained, line = packer.constraint
            with (folder / constrained).open("a") as file:
                file.write("\n" + line.format(mhz=f"{routed_mhz:g}") + "\n")

    timed("elaborate", elaborate)
    script = f"read_rtlil top.il; {device.synthesis_script}; tee -q -o cells.json stat -json"
    timed("synthesis", lambda: _run(yosys, ["-p", script], folder, "yosys.log", yosys_step(tell)))
    check_fit(device.count(parse_cells((folder / "cells.json").read_text())), device=device)

    device.prepare_netlist(folder / "top.json", machine=None if top else board.config.name)
    arguments = [argument.format(netlist="top.json") for argument in (*board_place_arguments(board), *packer.place_arguments)]
    arguments += ["--freq", f"{board.clock_hz / 1e6:g}", "--report", "report.json", "--timing-allow-fail"]
    arguments += ["--seed", str(board.seed if seed is None else seed)]
    rounds = RoutingRounds(clock_mhz=routed_mhz, then=place_step(tell))
    timed("place and route", lambda: _run(placer, arguments, folder, "place.log", rounds))
    used, fmax, path = parse_report((folder / "report.json").read_text(), device=device)
    if fmax is None:
        raise ToolError(f"{placer.name} reports no clock (the design of {board.name} has none)")
    reached = fmax * 1e6 >= board.clock_hz
    if reached:
        packing = [argument.format(bitstream=bitstream.name) for argument in packer.arguments]
        timed("pack", lambda: _run(pack, packing, folder, "pack.log", None))
    return Bitstream(
        board=board.name,
        config=board.config.name,
        path=str(bitstream) if reached else None,
        sha256=hashlib.sha256(bitstream.read_bytes()).hexdigest() if reached else None,
        clock_mhz=board.clock_hz / 1e6,
        fmax=fmax,
        critical_path=path,
        used=used,
        available=dict(device.available),
        tools={tool.name: tool.version for tool in (yosys, placer, pack)},
        seconds=seconds,
    )


def board_place_arguments(board: Board) -> tuple[str, ...]:
    """The device's arguments without leave to place pins anywhere, and the board's."""
    device = (argument for argument in board.device.place_arguments if not argument.endswith("-allow-unconstrained"))
    return (*device, *board.place_arguments)


def _run(tool, arguments: list[str], folder: Path, log: str, report: Report | None) -> None:
    run_tool(tool, arguments, folder=folder, log=folder / log, report=report)


def program_board(board: Board, path: Path) -> None:
    """Load a bitstream into the FPGA of a connected board, until it loses power.

    Raises
    ------
    UsageError
        There is no such file.
    ToolError
        openFPGALoader is missing or failed.
    """
    if not path.is_file():
        raise UsageError(f"bitstream must be a file, not {str(path)!r} (tercel bitstream {board.name} makes one)")
    loader = find_tool("openFPGALoader")
    log = path.with_suffix(".program.log")
    run_tool(loader, ["-b", board.loader, str(path.resolve())], folder=path.resolve().parent, log=log.resolve())


def bitstream_table(built: Bitstream) -> Table:
    """The figures for a terminal."""
    table = Table("figure", "value", "limit", "", title=f"{built.config} on {built.board}")
    for resource, number in built.used.items():
        limit = built.available[resource]
        table.add_row(resource, f"{number}", f"<= {limit}", "[green]ok[/]" if number <= limit else "[red]over[/]")
    state = "[green]ok[/]" if built.ok else "[red]under[/]"
    table.add_row("fmax MHz", f"{built.fmax:.1f}", f">= {built.clock_mhz:g}", state)
    return table
