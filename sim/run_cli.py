"""``tercel run`` and ``tercel compare``: a compiled network on its machines."""

from json import dumps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from tercel.sim.compare import CodeComparison
from tercel.sim.execution import MachineOptions
from tercel.sim.input_files import image_format_of, read_input
from tercel.sim.network import CompiledNetwork, NetworkResult
from tercel.sim.parse import UsageError
from tercel.sim.progress import progress_bars
from tercel.sw.program import Program

DIFFERENT = 1
"""Exit code when two executions differ."""

_TOP = 5
_LISTED = 4096

ProgramFile = Annotated[Path, typer.Argument(help="a .tnpu file of a network")]
Input = Annotated[list[Path], typer.Option("--input", "-i", help=".npy, .npz, photograph or folder; several times for a batch")]
Layers = Annotated[str | None, typer.Option(help="only layers whose names match, for example 'features.3*'")]
MemoryLatency = Annotated[int, typer.Option(min=1, help="cycles from a memory request to its answer")]
MemoryEfficiency = Annotated[float, typer.Option(min=0.01, max=1, help="memory transfers per cycle in the long run")]
Normalization = Annotated[str | None, typer.Option(help="of photographs: imagenet or unit; default: as the program says")]
Resize = Annotated[bool, typer.Option("--resize", help="bring photographs to the network's size")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


def run_command(
    program: ProgramFile,
    input: Input,
    *,
    on: Annotated[str, typer.Option(help="golden, verilator or reference")] = "golden",
    layers: Layers = None,
    memory_latency: MemoryLatency = 8,
    memory_efficiency: MemoryEfficiency = 1.0,
    normalization: Normalization = None,
    resize: Resize = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write values and codes (.npz)")] = None,
    json: Json = False,
) -> None:
    """Run a compiled network. Example: tercel run mnv2.tnpu --input cat.jpg --on verilator."""
    network = open_network(program, memory_latency=memory_latency, memory_efficiency=memory_efficiency)
    x = _read(network, input, normalization=normalization, resize=resize)
    with progress_bars() as progress:
        result = network.run(x, on=on, layers=layers, progress=progress)
    if output is not None:
        with output.open("wb") as file:  # as an open file, so that NumPy adds no ending to the name
            np.savez_compressed(file, **result.outputs, **{f"{name}.codes": codes for name, codes in result.codes.items()})  # type: ignore[arg-type]
    if json:
        typer.echo(dumps(_result_json(result), indent=2))
    else:
        _print_result(result)


def compare_command(
    program: ProgramFile,
    input: Input,
    *,
    on: Annotated[str, typer.Option(help="two of reference, golden, verilator, with a comma")] = "golden,verilator",
    layers: Layers = None,
    memory_latency: MemoryLatency = 8,
    memory_efficiency: MemoryEfficiency = 1.0,
    normalization: Normalization = None,
    resize: Resize = False,
    json: Json = False,
) -> None:
    """Compare two executions; exit code 1 if they differ. Example: tercel compare mnv2.tnpu --input cat.jpg --layers '*'."""
    names = on.split(",")
    if len(names) != 2 or names[0] == names[1]:
        raise UsageError(f"on must be two different executions with a comma, not {on!r} (for example golden,verilator)")
    network = open_network(program, memory_latency=memory_latency, memory_efficiency=memory_efficiency)
    x = _read(network, input, normalization=normalization, resize=resize)
    with progress_bars() as progress:
        found = network.compare(x, names[0], names[1], layers=layers, progress=progress)
    if json:
        typer.echo(dumps(found.as_json(), indent=2))
    else:
        _print_comparison(found)
    if not found.equal:
        raise typer.Exit(DIFFERENT)


def open_network(path: Path, *, memory_latency: int = 8, memory_efficiency: float = 1.0) -> CompiledNetwork:
    """A network from a file, for a memory of these properties."""
    options = MachineOptions(memory_latency=memory_latency, memory_efficiency=memory_efficiency)
    return CompiledNetwork(Program.load(path), options=options)


def _read(network: CompiledNetwork, paths: list[Path], *, normalization: str | None, resize: bool) -> Any:
    image_format = image_format_of(network.graph, network.program.image_format, normalization=normalization)
    return read_input(paths, network.graph, image_format=image_format, resize=resize)


def _result_json(result: NetworkResult) -> dict[str, Any]:
    def output(name: str) -> dict[str, Any]:
        values, codes = result.outputs[name], result.codes[name]
        described: dict[str, Any] = {"shape": list(values.shape)}
        if values.ndim == 2:
            described["top"] = values.argmax(axis=1).tolist()
        if values.size <= _LISTED:
            described |= {"values": values.tolist(), "codes": codes.reshape(values.shape).tolist() if values.ndim == 2 else codes.tolist()}
        return described

    return {
        "on": result.on,
        "cycles": result.cycles,
        "seconds": result.seconds,
        "counters": result.counters,
        "outputs": {name: output(name) for name in result.outputs},
    }


def _print_result(result: NetworkResult) -> None:
    console = Console()
    for name, values in result.outputs.items():
        if values.ndim == 2:
            table = Table("image", *(f"top {place}" for place in range(1, min(_TOP, values.shape[1]) + 1)), title=f"{name}: class (value)")
            for image, row in enumerate(values):
                best = np.argsort(-row, kind="stable")[:_TOP]
                table.add_row(f"{image}", *(f"{index} ({row[index]:.3f})" for index in best))
            console.print(table)
        else:
            typer.echo(f"{name}: {'x'.join(str(side) for side in values.shape)}, {values.min():.4g}..{values.max():.4g}")
    clocked = "" if result.cycles is None else f"{result.cycles} cycles an image, "
    typer.echo(f"{result.on}: {clocked}{result.seconds:.2f} s")


def _print_comparison(found: CodeComparison) -> None:
    first, second = found.names
    table = Table("layer", "tensor", "codes", "differ", "largest difference", title=f"{first} and {second}")
    for tensor in found.tensors:
        table.add_row(tensor.layer, tensor.tensor, f"{tensor.size}", f"{tensor.differing}", f"{tensor.largest}")
    Console().print(table)
    typer.echo(found.describe())
