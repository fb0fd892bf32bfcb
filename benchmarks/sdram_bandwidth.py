"""Share of an SDRAM chip's peak that a program's memory requests get through the controller.

``python -m benchmarks.sdram_bandwidth net.tnpu --chip is42s16160g`` runs the program on the RTL with a memory of the chip's speed, records
each request at the memory port, and gives the same requests, as fast as they are taken, to the controller with the chip's model behind it.
``--predict`` takes the requests from the cycle model instead, for a machine whose simulation takes long to build.
"""

from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.errors import command
from benchmarks.memory_trace import MemoryTrace, chip_speed, predict, record
from tercel.hw.sdram.chips import CHIPS, named_chip
from tercel.hw.sdram.timing import SdramChip
from tercel.sim.cli import FAILED
from tercel.sim.progress import progress_bars
from tercel.sim.soc.sdram_simulation import REQUEST, SdramBuild, run_sdram
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
    """

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

    @property
    def share(self) -> float:
        """Of the peak."""
        return self.bytes_moved / (self.busy_cycles * self.peak)

    def describe(self) -> str:
        """One paragraph."""
        return (
            f"{self.config} with {self.chip} at {self.clock_mhz:g} MHz: {self.bytes_moved} bytes in {self.busy_cycles} busy cycles of "
            f"{self.peak} bytes = {self.share:.1%} of the peak, {self.bytes_moved / self.busy_cycles * self.clock_mhz:.1f} MB/s\n"
            f"{self.reads} reads, {self.writes} writes, {self.turns} turns from read to write, {self.activates} rows opened, "
            f"{self.refreshes} refreshes, {self.violations} rules broken; requests from the {self.requests}, {self.machine_cycles} cycles"
        )


def replay(trace: MemoryTrace, program: Program, *, requests_from: str, chip: SdramChip, clock_mhz: float) -> Bandwidth:
    """The trace through the controller, at most 16 requests outstanding, as at the memory port."""
    config = program.config
    build = SdramBuild(chip=chip, clock_mhz=clock_mhz, memory_width=config.memory_width)
    requests = np.zeros(len(trace.addresses), REQUEST)
    requests["adr"] = trace.addresses
    requests["write"] = trace.writes
    requests["sel"] = 2**config.memory_width - 1
    run = run_sdram(build, npu=requests)
    writes = int(np.count_nonzero(trace.writes))
    return Bandwidth(
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
    )


def main(
    program: Annotated[Path, typer.Argument(help="program (.tnpu) to run")],
    *,
    chip: Annotated[str, typer.Option(help=f"one of {', '.join(CHIPS)}")] = "is42s16160g",
    clock_mhz: Annotated[float, typer.Option(help="of accelerator, controller and chip")] = 100.0,
    predicted: Annotated[bool, typer.Option("--predict", help="requests from the cycle model, not the RTL")] = False,
    least: Annotated[float, typer.Option(min=0, max=1, help="exit code 1 below this share of the peak")] = 0.8,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Measure the share of the SDRAM's peak. Example: python -m benchmarks.sdram_bandwidth net.tnpu --chip em638325."""
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
        bandwidth = replay(trace, loaded, requests_from=source, chip=memory, clock_mhz=clock_mhz)
    if json:
        typer.echo(dumps({"share": bandwidth.share, **asdict(bandwidth)}, indent=2))
    else:
        typer.echo(bandwidth.describe())
    if bandwidth.share < least or bandwidth.violations:
        raise typer.Exit(FAILED)


if __name__ == "__main__":
    raise SystemExit(command(main))
