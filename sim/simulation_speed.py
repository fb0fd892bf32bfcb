"""``tercel speed``: how fast the RTL simulation of a config runs, and how long it takes to build."""

import os
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from json import dumps
from typing import Annotated

import typer
from rich.console import Console

from tercel.hw.config import Config, named_config
from tercel.sim.backend import VerilatorBackend
from tercel.sim.toolchain import CACHE_VARIABLE
from tercel.sw.layer import LayerSpec, build_layer
from tercel.sw.layer_tensors import random_tensors

FAILED = 1
"""Exit code when the simulation is slower than the limit."""
CYCLES_PER_SECOND_LIMIT = 100_000
BUILD_SECONDS_LIMIT = 180
_WORK = LayerSpec(kind="conv", input=(56, 56, 24), out=144, weight_bits=8)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was timed.

    Attributes
    ----------
    cycles
        Simulated in all runs.
    wall_seconds, cpu_seconds
        Of the simulation process, start and memory transfer included.
    build_seconds
        Wall time of a build from nothing; None where a cached one was used.
    load
        Other work on the machine: the load average of the last minute when the runs began.
    """

    config: str
    cycles: int
    wall_seconds: float
    cpu_seconds: float
    build_seconds: float | None
    load: float

    @property
    def cycles_per_second(self) -> float:
        """Cycles per second of wall time."""
        return self.cycles / self.wall_seconds

    @property
    def ok(self) -> bool:
        """Whether both limits are kept."""
        return self.cycles_per_second >= CYCLES_PER_SECOND_LIMIT and (self.build_seconds or 0) <= BUILD_SECONDS_LIMIT


def measure_speed(config: Config, *, runs: int, build: bool) -> Speed:
    """Simulate a pointwise layer ``runs`` times; with ``build``, build the simulation in an empty cache first."""
    spec, tensors = random_tensors(_WORK, config, seed=0)
    program = build_layer(spec, tensors, config)
    build_seconds = None
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get(CACHE_VARIABLE)
        if build:
            os.environ[CACHE_VARIABLE] = folder
        try:
            with VerilatorBackend(config=config) as rtl:
                started = time.monotonic()
                rtl.prepare(config)
                build_seconds = time.monotonic() - started if build else None
                used = _children_seconds()
                load = os.getloadavg()[0]
                started = time.monotonic()
                cycles = sum(rtl.run(program).counters["machine.cycles"] for _ in range(runs))
                wall = time.monotonic() - started
            cpu = _children_seconds() - used
        finally:
            if before is None:
                os.environ.pop(CACHE_VARIABLE, None)
            else:
                os.environ[CACHE_VARIABLE] = before
    return Speed(config=config.name, cycles=cycles, wall_seconds=wall, cpu_seconds=cpu, build_seconds=build_seconds, load=load)


def _children_seconds() -> float:
    """CPU time of child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def speed_command(
    config: Annotated[str, typer.Argument(help="named config")] = "base",
    *,
    runs: Annotated[int, typer.Option(min=1, help="times the layer is run")] = 5,
    build: Annotated[bool, typer.Option("--build", help="build from nothing first, in a cache of its own, and time it")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Time the RTL simulation. Example: tercel speed base --build."""
    machine = named_config(config)
    with Console(stderr=True).status("simulate"):
        speed = measure_speed(machine, runs=runs, build=build)
    if json:
        typer.echo(dumps(asdict(speed) | {"cycles_per_second": speed.cycles_per_second, "ok": speed.ok}))
    else:
        typer.echo(
            f"{config}: {speed.cycles} cycles in {speed.wall_seconds:.1f} s = {speed.cycles_per_second:,.0f} a second "
            f"({speed.cpu_seconds:.1f} s of CPU time = {speed.cycles / speed.cpu_seconds:,.0f}; load average {speed.load:.1f}; "
            f"limit {CYCLES_PER_SECOND_LIMIT:,})"
        )
        if speed.build_seconds is not None:
            typer.echo(f"build {speed.build_seconds:.0f} s (limit {BUILD_SECONDS_LIMIT})")
    raise typer.Exit(0 if speed.ok else FAILED)
