"""``tercel report``: a page about a compiled network."""

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from tercel.sim.progress import progress_bars
from tercel.sim.run_cli import MemoryEfficiency, MemoryLatency, ProgramFile, open_network

if TYPE_CHECKING:
    from tercel.sw.importer import OperatorReport

Json = Annotated[bool, typer.Option("--json", help="print the report's figures as JSON")]


def report_command(
    program: ProgramFile,
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="the page to write (.html)")] = None,
    picture: Annotated[Path | None, typer.Option(help="write the timeline of the engines (.png)")] = None,
    run: Annotated[bool, typer.Option("--run", help="run the RTL and show its cycles and counters")] = False,
    clock_mhz: Annotated[float | None, typer.Option(min=0.001, help="state frames a second at this clock")] = None,
    quantized: Annotated[Path | None, typer.Option(help="the .tq file, to list what became of each operator")] = None,
    memory_latency: MemoryLatency = 8,
    memory_efficiency: MemoryEfficiency = 1.0,
    json: Json = False,
) -> None:
    """Write a page with tables and plots of a compiled network. Example: tercel report mnv2.tnpu -o report.html --run."""
    from tercel.sim.report import write_report

    network = open_network(program, memory_latency=memory_latency, memory_efficiency=memory_efficiency)
    measured = None
    with progress_bars() as progress:
        if run:
            # The cycles do not depend on the data.
            shapes = {name: network.graph.tensors[name] for name in network.graph.inputs}
            x = {name: np.full((1, *tensor.shape), tensor.zero_point, dtype=np.int64) for name, tensor in shapes.items()}
            measured = network.run(x, on="verilator", progress=progress)
        operators: tuple[OperatorReport, ...] = ()
        if quantized is not None:
            progress("read the network", 0, 0)
            from tercel.sim.quantized_file import load_quantized_file
            from tercel.sw.importer import explain
            from tercel.sw.importer.host import allowed_by

            allowed = allowed_by(network.program.host_head, network.program.host_tail)
            operators = explain(load_quantized_file(quantized).program, config=network.config, allow_host=allowed)
        written: tuple[Path, ...] = ()
        if output is not None:
            progress("draw", 0, 0)
            written = write_report(network, output, title=program.stem, clock_mhz=clock_mhz, measured=measured, operators=operators)
        if picture is not None:
            from tercel.sim import plots

            picture.write_bytes(plots.png(plots.timeline(network.program, network.profile)))
            written = (*written, picture)
    if json:
        figures = network.profile.as_json()
        if measured is not None:
            figures |= {"rtl_cycles": measured.cycles, "counters": measured.counters}
        if clock_mhz is not None:
            figures["frames_per_second"] = clock_mhz * 1e6 / ((measured and measured.cycles) or network.profile.cycles)
        typer.echo(dumps(figures, indent=2))
    for path in () if json else written:
        typer.echo(f"{path}")
