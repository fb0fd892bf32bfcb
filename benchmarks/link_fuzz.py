"""A bad line to the simulated system: frames are damaged, cut off, sent twice or late, in both directions.

``python -m benchmarks.link_fuzz`` goes on until 10,000 frames were spoiled; exit code 1 if anything wrong was accepted.
"""

from json import dumps
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.errors import command
from tercel.sim.soc.link_fuzz import fuzz_build, fuzz_link
from tercel.sim.soc.simulation import SocSimulation

DIFFERENT = 1


def main(
    *,
    frames: Annotated[int, typer.Option(min=1, help="frames to spoil")] = 10_000,
    seed: Annotated[int, typer.Option(help="of accesses and damage")] = 1,
) -> None:
    """Spoil frames of the link and print what came of it, as JSON."""
    with Console(stderr=True).status("build") as status:
        simulation = SocSimulation(fuzz_build(), report=status.update)
        try:
            result = fuzz_link(simulation, frames=frames, seed=seed, progress=lambda done: status.update(f"{done} of {frames} frames"))
        finally:
            simulation.close()
    typer.echo(dumps(result.as_json(), indent=2))
    raise typer.Exit(0 if result.ok else DIFFERENT)


if __name__ == "__main__":
    raise SystemExit(command(main))
