"""Whole networks with real weights: integer graph, golden model and RTL compared tensor by tensor, with all times and cycles.

``python -m benchmarks.network mobilenet_v2 --data DIR --on golden,verilator`` quantizes the network (or reads what an earlier run left in
``--quantized``), compiles it twice (plainly, and with every layer's output stored), runs it on photographs and compares every code.
"""

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.checkpoints import CHECKPOINTS, read_set
from benchmarks.errors import command
from benchmarks.proof import Proof, prove
from benchmarks.quantized_networks import quantized_network
from tercel.sim.cli import FAILED
from tercel.sim.execution import MACHINES, MachineOptions
from tercel.sim.parse import UsageError, parse_config
from tercel.sim.progress import progress_bars
from tercel.sw.images import normalize
from tercel.sw.importer import import_exported


def main(
    network: Annotated[str, typer.Argument(help=f"one of {', '.join(CHECKPOINTS)}")],
    *,
    data: Annotated[Path | None, typer.Option(envvar="TERCEL_DATA", help="folder with weights/ and imagenet_sample/")] = None,
    config: Annotated[str, typer.Option(help="named config")] = "base",
    on: Annotated[str, typer.Option(help=f"machines to hold against the reference: {', '.join(MACHINES)}")] = "golden",
    images: Annotated[int, typer.Option(min=1, help="images to run")] = 3,
    quantized: Annotated[Path | None, typer.Option(help="quantized network (.tq): read if it is there, else written")] = None,
    scheme: Annotated[str | None, typer.Option(help="weight scale scheme; default: shift8")] = None,
    bits: Annotated[int | None, typer.Option(min=2, max=8, help="weight bits; default: the scheme's")] = None,
    calibration: Annotated[int, typer.Option(min=1, help="images for calibration")] = 32,
    memory_latency: Annotated[int, typer.Option(min=1, help="cycles from a memory request to its answer")] = 8,
    batch: Annotated[int, typer.Option(min=1, help="batch of the throughput of reference and float network")] = 8,
    threads: Annotated[int, typer.Option(min=1, help="threads of the throughput")] = 1,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Compare a whole network on all machines; exit code 1 if a code differs. Example: python -m benchmarks.network digits."""
    if network not in CHECKPOINTS:
        raise UsageError(f"network must be one of {', '.join(CHECKPOINTS)}, not {network!r} (the trained ones)")
    machines = on.split(",")
    for name in machines:
        if name not in MACHINES:
            raise UsageError(f"on must be among {', '.join(MACHINES)}, not {name!r} (the reference always runs)")
    checkpoint = CHECKPOINTS[network]
    if quantized is not None and quantized.is_file() and (scheme is not None or bits is not None):
        raise UsageError(f"scheme and bits must be left out with {quantized}, which is quantized already (or delete it)")
    machine = parse_config(config, None)
    model = checkpoint.build(data)
    samples = read_set(checkpoint, data, role="eval", count=images)
    with progress_bars() as progress:
        program = quantized_network(
            checkpoint, data, model, file=quantized, calibration=calibration, progress=progress, scheme=scheme or "shift8", bits=bits
        )
        proof = prove(
            import_exported(program, config=machine).graph,
            model,
            normalize(samples.images, image_format=model.image_format),
            config=machine,
            machines=machines,
            options=MachineOptions(memory_latency=memory_latency),
            batch=batch,
            threads=threads,
            progress=progress,
        )
    if json:
        typer.echo(dumps({"network": network, "equal": proof.equal, **asdict(proof)}, indent=2))
    else:
        _print(network, proof)
    if not proof.equal:
        raise typer.Exit(FAILED)


def _print(network: str, proof: Proof) -> None:
    table = Table("program", "machine", "images", "tensors", "codes", "equal", "s/image", "cycles", "estimate", "estimate - cycles")
    for program in proof.programs:
        for run in program.runs:
            table.add_row(
                "every tensor stored" if program.kept else "plain",
                run.on,
                str(run.images),
                str(run.tensors),
                str(run.codes),
                "no" if run.difference else "yes",
                f"{run.image_seconds:.2f}",
                "" if run.cycles is None else str(run.cycles),
                str(program.estimated_cycles),
                "" if run.percent is None else f"{run.percent:+.2f} %",
            )
    console = Console()
    console.width = max(console.width, 140)
    console.print(table)
    typer.echo(f"{network} on {proof.config}: {proof.layers} layers, {proof.macs} MACs")
    for program in proof.programs:
        name = "every tensor stored" if program.kept else "plain"
        typer.echo(
            f"{name}: compiled in {program.compile_seconds:.2f} s to {program.instructions} instructions, "
            f"estimated in {program.estimate_seconds:.2f} s"
        )
    rate = proof.throughput
    typer.echo(
        f"batch {rate.batch}, {rate.threads} threads: reference {rate.reference:.2f} images/s, float network in torch "
        f"{rate.float_torch:.2f} images/s, ratio {rate.reference / rate.float_torch:.2f}"
    )
    for difference in proof.differences:
        typer.echo(f"different: {difference}")
    if proof.equal:
        typer.echo("equal: every code of every tensor on every machine")


if __name__ == "__main__":
    raise SystemExit(command(main))
