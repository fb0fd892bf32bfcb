"""``tercel compile`` and ``tercel explain``: a quantized network for a machine."""

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from tercel.sim.console import results
from tercel.sim.execution import MachineOptions
from tercel.sim.network import CompiledNetwork
from tercel.sim.operator_table import operator_table, shown
from tercel.sim.parse import parse_config
from tercel.sim.progress import progress_bars
from tercel.sim.quantized_file import load_quantized_file

UNSUPPORTED = 3
"""Exit code when the machine lacks an operator."""

QuantizedFile = Annotated[Path, typer.Argument(help="a .tq file, or a .pt2 file with quantize and dequantize ops")]
ConfigName = Annotated[str, typer.Option(help="named config: tiny, nano, small, base, large")]
MemoryBytes = Annotated[int | None, typer.Option(help="memory port width in bytes, in place of the config's")]
AllowHost = Annotated[
    list[str] | None, typer.Option(help="operator that the host may run at either end, for example softmax; several times for more")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


def compile_command(
    network: QuantizedFile,
    *,
    config: ConfigName = "base",
    memory_bytes: MemoryBytes = None,
    memory_latency: Annotated[int, typer.Option(min=1, help="cycles from a memory request to its answer")] = 8,
    keep: Annotated[list[str] | None, typer.Option(help="store the outputs of matching layers too; several times for more")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="refuse what differs from the numeric contract in the last bit")] = False,
    allow_host: AllowHost = None,
    dump: Annotated[Path | None, typer.Option(help="folder for a text file after each pass of the compiler")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="the program to write (.tnpu)")],
    json: Json = False,
) -> None:
    """Compile a quantized network. Example: tercel compile mnv2.tq --config base -o mnv2.tnpu."""
    from tercel.sim.api import compile_network

    machine = parse_config(config, memory_bytes)
    with progress_bars() as progress:
        progress("read the network", 0, 0)
        loaded = load_quantized_file(network)
        compiled = compile_network(
            loaded.program,
            config=machine,
            keep=keep or (),
            strict=strict,
            allow_host=allow_host or (),
            image_format=loaded.image_format,
            options=MachineOptions(memory_latency=memory_latency),
            dump=dump,
            progress=progress,
        )
        progress("estimate the cycles", 0, 0)
        compiled.save(output)
        facts = _facts(compiled)
    for line in _notes(compiled):
        typer.echo(f"tercel: {line}", err=True)
    if json:
        typer.echo(dumps(facts, indent=2))
    else:
        typer.echo(
            f"{output}: {facts['layers']} layers, {facts['instructions']} instructions, {facts['macs'] / 1e6:.2f} M MACs, "
            f"{facts['cycles']} cycles by the cycle model on {machine.name}, {100 * facts['utilization']:.1f} % of its lane-cycles used"
        )


def explain_command(
    network: QuantizedFile,
    *,
    config: ConfigName = "base",
    memory_bytes: MemoryBytes = None,
    allow_host: AllowHost = None,
    everything: Annotated[bool, typer.Option("--all", help="list quantize and dequantize ops too")] = False,
    json: Json = False,
) -> None:
    """Show what becomes of each operator; exit code 3 if one is rejected. Example: tercel explain mnv2.tq --config base."""
    machine = parse_config(config, memory_bytes)
    with progress_bars() as progress:
        progress("read the network", 0, 0)
        from tercel.sw.importer import explain

        operators = explain(load_quantized_file(network).program, config=machine, allow_host=allow_host or ())
    if json:
        typer.echo(dumps([asdict(operator) for operator in operators], indent=2, default=str))
    else:
        results().print(operator_table(operators, title=f"{network.name} on {machine.name}", everything=everything))
    if any(operator.verdict == "rejected" for operator in operators):
        raise typer.Exit(UNSUPPORTED)


def _notes(network: CompiledNetwork) -> list[str]:
    """What a user must know about the compiled network besides its size."""
    if network.imported is None:
        return []
    host = [f"{made.name} {made.reason}" for made in shown(network.imported.operators) if made.verdict == "host"]
    return [*(f"warning: {warning}" for warning in network.imported.warnings), *host]


def _facts(network: CompiledNetwork) -> dict[str, int | float]:
    return {
        "layers": len(list(network.graph.layers())),
        "instructions": len(network.program.words),
        "macs": network.profile.macs,
        "cycles": network.profile.cycles,
        "utilization": network.profile.utilization,
        "bytes": network.program.memory_bytes,
    }
