"""``tercel run`` and ``tercel compare``: a compiled network on its machines."""

from json import dumps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from tercel.sim.compare import CodeComparison, FloatComparison
from tercel.sim.console import results
from tercel.sim.execution import CODE_EXECUTIONS, MachineOptions
from tercel.sim.float_execution import FLOAT_EXECUTIONS
from tercel.sim.input_files import image_format_of, read_input
from tercel.sim.network import CompiledNetwork, NetworkResult
from tercel.sim.parse import UsageError
from tercel.sim.progress import progress_bars
from tercel.sim.quantize_cli import load_model, parse_network
from tercel.sim.quantized_file import load_quantized_file
from tercel.sw.program import Program

DIFFERENT = 1
"""Exit code when two executions differ."""

_EXECUTIONS = (*FLOAT_EXECUTIONS, *CODE_EXECUTIONS)
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
    on: Annotated[str, typer.Option(help="golden, verilator, reference or a board, for example board:/dev/ttyUSB0")] = "golden",
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
    on: Annotated[str, typer.Option(help=f"two of {', '.join(_EXECUTIONS)}, with a comma")] = "golden,verilator",
    layers: Layers = None,
    quantized: Annotated[Path | None, typer.Option(help="for float and fake-quantized: the .tq file")] = None,
    network: Annotated[str | None, typer.Option(help="for float: the network, NAME or NAME,option=value,...")] = None,
    weights: Annotated[Path | None, typer.Option(help="for float: its trained parameters")] = None,
    limit: Annotated[float | None, typer.Option(help="signal-to-noise ratio in dB that every tensor must reach in floating point")] = None,
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
    compiled = open_network(program, memory_latency=memory_latency, memory_efficiency=memory_efficiency)
    x = _read(compiled, input, normalization=normalization, resize=resize)
    with progress_bars() as progress:
        exported, model = _float_sources(names, quantized, network, weights)
        found = compiled.compare(x, names[0], names[1], layers=layers, quantized=exported, model=model, progress=progress)
    if json:
        typer.echo(dumps(found.as_json(), indent=2))
    elif isinstance(found, CodeComparison):
        results().print(_code_table(found))
        typer.echo(found.describe())
    else:
        results().print(_float_table(found))
        if found.agreement is not None:
            typer.echo(f"{names[0]} and {names[1]}: equal top class in {100 * found.agreement:.2f} % of the images")
    if not (found.equal if isinstance(found, CodeComparison) else limit is None or found.reaches(limit)):
        raise typer.Exit(DIFFERENT)


def open_network(path: Path, *, memory_latency: int = 8, memory_efficiency: float = 1.0) -> CompiledNetwork:
    """A network from a file, for a memory of these properties."""
    options = MachineOptions(memory_latency=memory_latency, memory_efficiency=memory_efficiency)
    return CompiledNetwork(Program.load(path), options=options)


def _read(network: CompiledNetwork, paths: list[Path], *, normalization: str | None, resize: bool) -> Any:
    image_format = image_format_of(network.input_shape, network.program.image_format, normalization=normalization)
    return read_input(paths, image_format=image_format, resize=resize)


def _result_json(result: NetworkResult) -> dict[str, Any]:
    def output(name: str) -> dict[str, Any]:
        values, codes = result.outputs[name], result.codes.get(name)
        described: dict[str, Any] = {"shape": list(values.shape)}
        if values.ndim == 2:
            described["top"] = values.argmax(axis=1).tolist()
        if values.size <= _LISTED:
            described["values"] = values.tolist()
            if codes is not None:
                described["codes"] = (codes.reshape(values.shape) if values.ndim == 2 else codes).tolist()
        return described

    return {
        "on": result.on,
        "cycles": result.cycles,
        "seconds": result.seconds,
        "counters": result.counters,
        "outputs": {name: output(name) for name in result.outputs},
    }


def _print_result(result: NetworkResult) -> None:
    console = results()
    for name, values in result.outputs.items():
        if values.ndim == 2:
            table = Table("image", *(f"top {place}" for place in range(1, min(_TOP, values.shape[1]) + 1)), title=f"{name}: class (value)")
            for image, row in enumerate(values):
                best = np.argsort(-row, kind="stable")[:_TOP]
                table.add_row(f"{image}", *(f"{index} ({row[index]:.4g})" for index in best))
            console.print(table)
        elif values.ndim == 1:
            table = Table("image", "value", title=name)
            for image, value in enumerate(values):
                table.add_row(f"{image}", f"{value:.4g}" if np.issubdtype(values.dtype, np.floating) else f"{value}")
            console.print(table)
        else:
            typer.echo(f"{name}: {'x'.join(str(side) for side in values.shape)}, {values.min():.4g}..{values.max():.4g}")
    clocked = "" if result.cycles is None else f"{result.cycles} cycles an image, "
    typer.echo(f"{result.on}: {clocked}{result.seconds:.2f} s")


def _float_sources(names: list[str], quantized: Path | None, network: str | None, weights: Path | None) -> tuple[Any, Any]:
    """The captured graph and the trained network, as far as the executions need them."""
    if not any(name in FLOAT_EXECUTIONS for name in names):
        return None, None
    if quantized is None:
        raise UsageError(f"quantized must be given for {','.join(names)}, not left out (the .tq file that was compiled)")
    if "float" not in names:
        return load_quantized_file(quantized).program, None
    if network is None:
        raise UsageError("network must be given for float, not left out (the name and options that were quantized)")
    return load_quantized_file(quantized).program, load_model(*parse_network(network), weights)


def _code_table(found: CodeComparison) -> Table:
    first, second = found.names
    table = Table("layer", "tensor", "codes", "differ", "largest difference", title=f"{first} and {second}")
    for tensor in found.tensors:
        table.add_row(tensor.layer, tensor.tensor, f"{tensor.size}", f"{tensor.differing}", f"{tensor.largest}")
    return table


def _float_table(found: FloatComparison) -> Table:
    first, second = found.names
    table = Table("layer", "tensor", "signal to noise", "largest difference", title=f"{second} against {first}")
    for tensor in found.tensors:
        table.add_row(tensor.layer, tensor.tensor, f"{tensor.sqnr:.1f} dB", f"{tensor.largest:.4g}")
    return table
