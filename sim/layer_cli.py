"""``tercel layer``: run one layer on the golden model and the RTL, compare them and account for the cycles."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tercel.sim.backend import Backend, GoldenBackend, VerilatorBackend
from tercel.sim.layer_command import LayerReport, report_table, run_layer
from tercel.sim.parse import UsageError, parse_config, parse_padding, parse_pair, parse_shape
from tercel.sim.trace import trace_events
from tercel.sim.verilator.model import MemoryModel
from tercel.sw.layer_spec import LayerSpec

DIFFERENT = 1
"""Exit code when a backend's output is not the reference's."""

app = typer.Typer(help="Run one layer with random tensors on the golden model and the RTL, compare them, account for the cycles.")

Input = Annotated[str, typer.Option("--input", help="height x width x channels, for example 56x56x24; linear: channels")]
Out = Annotated[int, typer.Option(help="output channels")]
Kernel = Annotated[str, typer.Option(help="kernel size, N or HxW")]
Stride = Annotated[int, typer.Option(help="stride, 1..4")]
Padding = Annotated[str, typer.Option(help="N, top,left,bottom,right, or same")]
Dilation = Annotated[str, typer.Option(help="dilation, N or HxW")]
Groups = Annotated[int, typer.Option(help="convolution groups")]
WeightBits = Annotated[int, typer.Option(help="weight bits, 2..8")]
Thresholds = Annotated[int, typer.Option(help="thresholds per channel in place of the clamp, 0..15")]
Signed = Annotated[bool, typer.Option("--signed", help="signed input and output codes")]
Average = Annotated[bool, typer.Option("--average", help="average instead of maximum")]
Array = Annotated[bool, typer.Option("--array", help="use the array where the depthwise engine would do")]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options that all kinds of layers have."""

    config: Annotated[str, typer.Option(help="named config: tiny, nano, small, base, large")] = "base"
    memory_bytes: Annotated[int | None, typer.Option(help="memory port width in bytes, in place of the config's")] = None
    memory_latency: Annotated[int, typer.Option(min=1, help="cycles from a memory request to its answer")] = 8
    memory_efficiency: Annotated[float, typer.Option(min=0.01, max=1, help="memory transfers per cycle in the long run")] = 1.0
    seed: Annotated[int, typer.Option(min=0, help="seed of the tensors")] = 0
    on: Annotated[str, typer.Option(help="backends to compare")] = "golden,verilator"
    wave: Annotated[Path | None, typer.Option(help="write a VCD waveform of the RTL")] = None
    trace: Annotated[Path | None, typer.Option(help="write the estimated timeline for Perfetto (JSON)")] = None
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write the program (.tnpu)")] = None
    json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False


def _layer_command(describe: Callable[..., LayerSpec]) -> Callable[..., LayerSpec]:
    """Add a command whose options are those of ``describe``, which makes the layer of them, and those of :class:`RunOptions`."""
    common = {
        field.name: inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(RunOptions)
    }

    def command(**options: Any) -> None:
        own = {name: value for name, value in options.items() if name not in common}
        _run(describe(**own), RunOptions(**{name: options[name] for name in common}))

    parameters = [*inspect.signature(describe).parameters.values(), *common.values()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name=describe.__name__, help=describe.__doc__)(command)
    return describe


def _conv(
    *, input: str, out: int, kernel: str, stride: int, padding: str, dilation: str, weight_bits: int, signed: bool, **more: Any
) -> LayerSpec:
    sides, steps = parse_pair("kernel", kernel), parse_pair("dilation", dilation)
    thresholds = more.get("thresholds", 0)
    return LayerSpec(
        kind="conv",
        input=parse_shape(input),
        out=out,
        kernel=sides,
        stride=stride,
        padding=parse_padding(padding, kernel=sides, dilation=steps),
        dilation=steps,
        weight_bits=weight_bits,
        in_signed=signed,
        out_signed=signed and not thresholds,
        z_out=0 if signed or thresholds else 128,
        **more,
    )


@_layer_command
def conv(
    *,
    input: Input,
    out: Out,
    kernel: Kernel = "1",
    stride: Stride = 1,
    padding: Padding = "0",
    dilation: Dilation = "1",
    groups: Groups = 1,
    weight_bits: WeightBits = 8,
    thresholds: Thresholds = 0,
    signed: Signed = False,
) -> LayerSpec:
    """Run a convolution on the array. Example: tercel layer conv --input 56x56x24 --out 144 --weight-bits 2."""
    return _conv(
        input=input,
        out=out,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        weight_bits=weight_bits,
        signed=signed,
        groups=groups,
        thresholds=thresholds,
    )


@_layer_command
def residual(
    *,
    input: Input,
    out: Out,
    kernel: Kernel = "1",
    stride: Stride = 1,
    padding: Padding = "0",
    dilation: Dilation = "1",
    weight_bits: WeightBits = 8,
    signed: Signed = False,
) -> LayerSpec:
    """Run a convolution with a residual add. Example: tercel layer residual --input 14x14x384 --out 64."""
    return _conv(
        input=input,
        out=out,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        weight_bits=weight_bits,
        signed=signed,
        residual=True,
        res_signed=signed,
    )


@_layer_command
def depthwise(
    *,
    input: Input,
    kernel: Kernel = "3",
    stride: Stride = 1,
    padding: Padding = "same",
    dilation: Dilation = "1",
    weight_bits: WeightBits = 8,
    signed: Signed = False,
) -> LayerSpec:
    """Run a depthwise convolution. Example: tercel layer depthwise --input 28x28x96 --stride 2."""
    sides, steps = parse_pair("kernel", kernel), parse_pair("dilation", dilation)
    return LayerSpec(
        kind="depthwise",
        input=parse_shape(input),
        kernel=sides,
        stride=stride,
        padding=parse_padding(padding, kernel=sides, dilation=steps),
        dilation=steps,
        weight_bits=weight_bits,
        in_signed=signed,
        out_signed=signed,
        z_out=0 if signed else 128,
    )


@_layer_command
def pool(
    *,
    input: Input,
    kernel: Kernel = "2",
    stride: Stride = 2,
    padding: Padding = "0",
    average: Average = False,
    signed: Signed = False,
) -> LayerSpec:
    """Run a maximum or average pool. Example: tercel layer pool --input 7x7x1280 --kernel 7 --average."""
    sides = parse_pair("kernel", kernel)
    return LayerSpec(
        kind="average_pool" if average else "max_pool",
        input=parse_shape(input),
        kernel=sides,
        stride=stride,
        padding=parse_padding(padding, kernel=sides, dilation=(1, 1)),
        in_signed=signed,
        out_signed=signed,
    )


@_layer_command
def linear(*, input: Input, out: Out, array: Array = False, weight_bits: WeightBits = 8, signed: Signed = False) -> LayerSpec:
    """Run a fully connected layer. Example: tercel layer linear --input 1280 --out 1000."""
    return LayerSpec(
        kind="linear",
        input=parse_shape(input),
        out=out,
        array=array,
        weight_bits=weight_bits,
        in_signed=signed,
        out_signed=signed,
        z_out=0 if signed else 128,
    )


def _run(spec: LayerSpec, options: RunOptions) -> None:
    config = parse_config(options.config, options.memory_bytes)
    with Console(stderr=True).status("simulating") as status:
        backends = _backends(options, report=status.update)
        try:
            report = run_layer(
                spec,
                config,
                backends,
                seed=options.seed,
                memory_latency=options.memory_latency,
                memory_rate=options.memory_efficiency,
            )
        finally:
            for backend in backends:
                if isinstance(backend, VerilatorBackend):
                    backend.close()
    if options.output is not None:
        report.program.save(options.output)
    if options.trace is not None:
        options.trace.write_text(dumps(trace_events(report.program, report.predicted)))
    if options.json:
        typer.echo(dumps(report.as_json(), indent=2))
    else:
        _print(report, backends)
    if not report.equal:
        raise typer.Exit(DIFFERENT)


def _print(report: LayerReport, backends: list[Backend]) -> None:
    Console().print(report_table(report))
    if report.equal:
        typer.echo(f"equal: {', '.join(backend.name for backend in backends)}, reference")
    for name, difference in report.differences.items():
        typer.echo(f"different: {name}: {difference}")


def _backends(options: RunOptions, *, report: Callable[[str], None]) -> list[Backend]:
    backends: list[Backend] = []
    for name in options.on.split(","):
        if name == "golden":
            backends.append(GoldenBackend())
        elif name == "verilator":
            memory_model = MemoryModel(latency=options.memory_latency, efficiency=options.memory_efficiency)
            backends.append(VerilatorBackend(memory_model=memory_model, trace=options.wave, report=report))
        else:
            raise UsageError(f"on must be golden, verilator or both with a comma, not {options.on!r} (the backends)")
    if options.wave is not None and not any(backend.name == "verilator" for backend in backends):
        raise UsageError(f"on must contain verilator for wave, not {options.on!r} (only the RTL has a waveform)")
    return backends
