"""Share of an SDRAM chip's peak that a program's memory requests get through the controller.

``python -m benchmarks.sdram_bandwidth net.tnpu --chip is42s16160g`` runs the program on the RTL with a memory of the chip's speed, records
each request at the memory port, and gives the same requests, as fast as they are taken, to the controller with the chip's model behind it.
``--predict`` takes the requests from the cycle model instead, for a machine whose simulation takes long to build, and
``--controller litedram`` gives them to LiteDRAM's generated core.
"""

from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.errors import command
from benchmarks.litedram_controller import CONTROLLERS, named_controller
from benchmarks.memory_trace import MemoryTrace, chip_speed, predict, record
from tercel.hw.sdram.chips import CHIPS, named_chip
from tercel.hw.sdram.timing import SdramChip
from tercel.sim.cli import FAILED
from tercel.sim.progress import progress_bars
from tercel.sim.soc.sdram_simulation import REQUEST, ControllerBuild, SdramRun, run_sdram
from tercel.sw.program import Program


@dataclass(frozen=True, kw_only=True)
class Bandwidth:
    """What went through the controller.

    Attributes
    ----------
    requests
        ``RTL`` or ``cycle model``.
    bytes_moved
        Of all beats.
    busy_cycles
        In which the port had a request or waited for an answer, refreshes included.
    peak
        Bytes a cycle: the narrower of chip and port.
    turns
        Writes right after a read.
    machine_cycles
        Of the accelerator in the recording; its memory is idle for the rest of them.
    violations
        Rules of the chip that were broken.
    wrong_reads
        Beats read that are not what was written to them before.
    """

    controller: str
    requests: str
    config: str
    chip: str
    clock_mhz: float
    reads: int
    writes: int
    bytes_moved: int
    busy_cycles: int
    peak: int
    turns: int
    activates: int
    refreshes: int
    machine_cycles: int
    violations: int
    wrong_reads: int

    @property
    def share(self) -> float:
        """Of the peak."""
        return self.bytes_moved / (self.busy_cycles * self.peak)

    def describe(self) -> str:
        """One paragraph."""
        return (
            f"{self.config}, {self.controller} controller, {self.chip} at {self.clock_mhz:g} MHz: "
            f"{self.bytes_moved} bytes in {self.busy_cycles} busy cycles of {self.peak} bytes = {self.share:.1%} of the peak, "
            f"{self.bytes_moved / self.busy_cycles * self.clock_mhz:.1f} MB/s\n"
            f"{self.reads} reads, {self.writes} writes, {self.turns} turns from read to write, {self.activates} rows opened, "
            f"{self.refreshes} refreshes, {self.violations} rules broken, {self.wrong_reads} beats read wrong; "
            f"requests from the {self.requests}, {self.machine_cycles} cycles"
        )


def replay(trace: MemoryTrace, program: Program, *, requests_from: str, controller: str, chip: SdramChip, clock_mhz: float) -> Bandwidth:
    """The trace through the controller, with noise to write, at most 16 requests outstanding, as at the memory port."""
    config = program.config
    build: ControllerBuild = named_controller(controller)(chip=chip, clock_mhz=clock_mhz, memory_width=config.memory_width)
    requests = np.zeros(len(trace.addresses), REQUEST)
    requests["adr"] = trace.addresses
    requests["write"] = trace.writes
    requests["sel"] = 2**config.memory_width - 1
    requests["data"] = np.random.default_rng(1).integers(0, 256, requests["data"].shape, np.uint8)
    run = run_sdram(build, npu=requests)
    writes = int(np.count_nonzero(trace.writes))
    return Bandwidth(
        controller=controller,
        requests=requests_from,
        config=config.name,
        chip=chip.name,
        clock_mhz=clock_mhz,
        reads=len(requests) - writes,
        writes=writes,
        bytes_moved=len(requests) * config.memory_width,
        busy_cycles=run.busy,
        peak=min(chip.width, config.memory_width),
        turns=trace.turns,
        activates=run.commands["ACTIVATE"],
        refreshes=run.commands["REFRESH"],
        machine_cycles=trace.cycles,
        violations=len(run.violations),
        wrong_reads=_wrong_reads(requests, run, width=config.memory_width),
    )


def _wrong_reads(requests: npt.NDArray[np.void], run: SdramRun, *, width: int) -> int:
    written: dict[int, bytes] = {}
    wrong = 0
    for request, answer in zip(requests, run.npu, strict=True):
        address = int(request["adr"])
        if request["write"]:
            written[address] = request["data"][:width].tobytes()
        elif address in written:
            wrong += written[address] != answer["data"][:width].tobytes()
    return wrong


def main(
    program: Annotated[Path, typer.Argument(help="program (.tnpu) to run")],
    *,
    controller: Annotated[str, typer.Option(help=f"one of {', '.join(CONTROLLERS)}")] = "tercel",
    chip: Annotated[str, typer.Option(help=f"one of {', '.join(CHIPS)}")] = "is42s16160g",
    clock_mhz: Annotated[float, typer.Option(help="of accelerator, controller and chip")] = 100.0,
    predicted: Annotated[bool, typer.Option("--predict", help="requests from the cycle model, not the RTL")] = False,
    least: Annotated[float, typer.Option(min=0, max=1, help="exit code 1 below this share of the peak")] = 0.8,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Measure the share of the SDRAM's peak. Example: python -m benchmarks.sdram_bandwidth net.tnpu --chip em638325."""
    named_controller(controller)
    loaded, memory = Program.load(program), named_chip(chip)
    speed = chip_speed(memory, clock_mhz=clock_mhz, memory_width=loaded.config.memory_width)
    with progress_bars() as progress:
        if predicted:
            progress("cycle model", 0, 0)
            trace = predict(loaded, memory_latency=speed.latency, memory_rate=speed.efficiency)
        else:
            trace = record(
                loaded,
                memory_model=speed,
                report=lambda step: progress(step, 0, 0),
                progress=lambda so_far: progress("RTL, cycles", so_far, 0),
            )
        progress("controller", 0, 0)
        source = "cycle model" if predicted else "RTL"
        bandwidth = replay(trace, loaded, requests_from=source, controller=controller, chip=memory, clock_mhz=clock_mhz)
    if json:
        typer.echo(dumps({"share": bandwidth.share, **asdict(bandwidth)}, indent=2))
    else:
        typer.echo(bandwidth.describe())
    if bandwidth.share < least or bandwidth.violations or bandwidth.wrong_reads:
        raise typer.Exit(FAILED)


if __name__ == "__main__":
    raise SystemExit(command(main))
