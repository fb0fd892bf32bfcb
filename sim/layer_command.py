"""One layer on the golden model and on the RTL, compared, and an account of its cycles."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from tercel.hw.config import Config
from tercel.hw.isa import Fault
from tercel.sim.backend import Backend, Result
from tercel.sim.lane_cycles import CAUSES, LaneCycles, account
from tercel.sw.estimate import Estimate, estimate
from tercel.sw.layer import build_layer
from tercel.sw.layer_reference import layer_reference
from tercel.sw.layer_spec import LayerSpec
from tercel.sw.layer_tensors import random_tensors
from tercel.sw.program import Program

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """What a layer's run showed.

    Attributes
    ----------
    differences
        By backend, why its output is not that of the reference; empty if all agree.
    measured
        Cycles by backend, where it has a clock.
    predicted
        The cycle model's run.
    lane_cycles
        From the machine's counters if a backend has them, else from the cycle model.
    """

    spec: LayerSpec
    config: Config
    program: Program
    differences: Mapping[str, str]
    measured: Mapping[str, int]
    predicted: Estimate
    lane_cycles: LaneCycles
    seconds: Mapping[str, float]

    @property
    def equal(self) -> bool:
        """Whether every backend gave the reference's codes."""
        return not self.differences

    def as_json(self) -> dict[str, Any]:
        """The report for a script."""
        return {
            "layer": asdict(self.spec),
            "output": list(self.spec.output),
            "config": self.config.name,
            "instructions": len(self.program.words),
            "macs": self.spec.macs,
            "equal": self.equal,
            "differences": dict(self.differences),
            "cycles": dict(self.measured),
            "estimated_cycles": self.predicted.cycles,
            "utilization": self.lane_cycles.utilization,
            "steady_utilization": self.lane_cycles.steady,
            "lane_cycles": {
                "total": self.lane_cycles.total,
                "useful": self.lane_cycles.useful,
                "lost": dict(self.lane_cycles.lost),
            },
            "seconds": dict(self.seconds),
        }


def run_layer(
    spec: LayerSpec, config: Config, backends: Sequence[Backend], *, seed: int = 0, memory_latency: int = 8, memory_rate: float = 1.0
) -> LayerReport:
    """Run a layer with random tensors on every backend and compare each with the reference.

    Parameters
    ----------
    spec, config
        The layer and the machine.
    backends
        At least one.
    seed
        Of the tensors.
    memory_latency, memory_rate
        The simulated memory, for the estimate; see :func:`~tercel.sw.estimate.estimate`.

    Raises
    ------
    LayerError
        The machine cannot run the layer.
    ToolError, SimulationError
        From the RTL simulation.
    """
    spec, tensors = random_tensors(spec, config, seed=seed)
    program = build_layer(spec, tensors, config)
    expected = layer_reference(spec, tensors, config)
    predicted = estimate(program, memory_latency=memory_latency, memory_rate=memory_rate)
    results = {backend.name: backend.run(program) for backend in backends}
    differences = {name: text for name, result in results.items() if (text := describe_difference(result, expected))}
    measured = {name: result.cycles for name, result in results.items() if result.cycles is not None}
    counted = next((result for result in results.values() if result.counters), None)
    on_array = spec.on_array(config)
    lane_cycles = account(
        "array" if on_array else "depthwise",
        lanes=config.array_lanes if on_array else config.depthwise_lanes,
        cycles=predicted.cycles if counted is None or counted.cycles is None else counted.cycles,
        useful=spec.macs * (spec.digits if on_array else 1),
        events=predicted.events if counted is None else counted.counters,
    )
    return LayerReport(
        spec=spec,
        config=config,
        program=program,
        differences=differences,
        measured=measured,
        predicted=predicted,
        lane_cycles=lane_cycles,
        seconds={name: result.seconds for name, result in results.items()},
    )


def describe_difference(result: Result, expected: Integers) -> str:
    """Why a result is not the expected output, down to the first pixel and channel that differ; empty if it is."""
    if result.fault is not Fault.NONE:
        return f"{result.fault.name} at instruction {result.fault_index}"
    if result.stray_writes:
        return f"byte {result.stray_writes[0]:#x} outside the output was written"
    found = result.outputs["output"]
    places = np.argwhere(found != expected)
    if not len(places):
        return ""
    row, column, channel = (int(number) for number in places[0])
    return (
        f"{len(places)} of {expected.size} codes differ, first at row {row}, column {column}, channel {channel}: "
        f"{found[row, column, channel]} instead of {expected[row, column, channel]}"
    )


def report_table(report: LayerReport) -> Table:
    """The report for a terminal."""
    spec, lanes = report.spec, report.lane_cycles
    table = Table(title=f"{spec.kind} {_shape(spec.input)} -> {_shape(spec.output)} on {report.config.name}", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(justify="left")
    table.add_row("multiply-accumulates", f"{spec.macs}", f"{spec.weight_bits}-bit weights")
    table.add_row("instructions", f"{len(report.program.words)}", "")
    for name, cycles in report.measured.items():
        error = 100 * (report.predicted.cycles - cycles) / cycles
        table.add_row(f"cycles, {name}", f"{cycles}", f"{report.seconds[name]:.2f} s; the estimate is {error:+.2f} % off")
    table.add_row("cycles, estimate", f"{report.predicted.cycles}", "")
    table.add_row("utilization", f"{100 * lanes.utilization:.1f} %", "of all lane-cycles of its engine")
    table.add_row("steady utilization", f"{100 * lanes.steady:.1f} %", "while an instruction is under way")
    table.add_section()
    table.add_row("useful", f"{lanes.useful}", "lane-cycles")
    for name, count in sorted(lanes.lost.items(), key=lambda item: -item[1]):
        table.add_row(f"lost: {name}", f"{count}", CAUSES.get(name, ""))
    table.add_row("total", f"{lanes.total}", "")
    return table


def _shape(shape: tuple[int, int, int]) -> str:
    return "x".join(str(side) for side in shape)
