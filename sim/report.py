"""One self-contained HTML page about a compiled network, with the timeline for Perfetto beside it."""

from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercel.sim import plots
from tercel.sim.lane_cycles import CAUSES, LaneCycles, account
from tercel.sim.network import CompiledNetwork, NetworkResult
from tercel.sim.operator_table import shown, why
from tercel.sim.profile import LayerProfile, Profile
from tercel.sim.trace import trace_events

if TYPE_CHECKING:
    from tercel.sw.importer import OperatorReport

_STALLS_SHOWN = 3


def write_report(
    network: CompiledNetwork,
    path: Path | str,
    *,
    title: str = "network",
    clock_mhz: float | None = None,
    measured: NetworkResult | None = None,
    operators: "Sequence[OperatorReport]" = (),
) -> tuple[Path, Path]:
    """Write the page and, beside it with the ending ``.trace.json``, the estimated timeline for ui.perfetto.dev.

    Parameters
    ----------
    network
        The subject.
    path
        Of the page.
    title
        Its heading.
    clock_mhz
        States frames a second at this clock; without it there is no such figure.
    measured
        A run in the RTL simulation: its cycles and counters stand beside the estimate, and the account of lane-cycles is of them.
    operators
        What became of each operator, from :func:`~tercel.sw.importer.explain`.

    Returns both paths.
    """
    page, trace = Path(path), Path(path).with_suffix(".trace.json")
    page.write_text(render_report(network, title=title, clock_mhz=clock_mhz, measured=measured, operators=operators))
    trace.write_text(dumps(trace_events(network.program, network.profile.predicted)))
    return page, trace


def render_report(
    network: CompiledNetwork,
    *,
    title: str,
    clock_mhz: float | None = None,
    measured: NetworkResult | None = None,
    operators: "Sequence[OperatorReport]" = (),
) -> str:
    """The page's text; parameters as for :func:`write_report`."""
    from jinja2 import Environment, PackageLoader

    profile = network.profile
    counted = measured is not None and measured.cycles is not None
    accounts = measured_lane_cycles(profile, measured) if measured is not None and counted else profile.lane_cycles
    source = "RTL" if counted else "cycle model"
    figures = (
        plots.timeline(network.program, profile),
        plots.layer_cycles(profile),
        plots.roofline(profile),
        plots.lost_lane_cycles(accounts, source=source),
    )
    environment = Environment(loader=PackageLoader("tercel.sim", "."), autoescape=True)
    return environment.get_template("report.html.j2").render(
        title=title,
        summary=_summary(network, clock_mhz=clock_mhz, measured=measured),
        rows=[_row(number, layer, network) for number, layer in enumerate(profile.layers, start=1)],
        total=_total(profile),
        pictures=[plots.svg(figure) for figure in figures],
        accounts=[_account(name, lanes, source=source) for name, lanes in accounts.items()],
        counters=[(name, f"{count:,}") for name, count in measured.counters.items()] if measured is not None else [],
        operators=[(operator, why(operator)) for operator in shown(operators)],
    )


def measured_lane_cycles(profile: Profile, measured: NetworkResult) -> dict[str, LaneCycles]:
    """The engines' lane-cycles from the counters of a clocked run."""
    assert measured.cycles is not None
    cycles = measured.cycles
    return {
        name: account(
            name,
            lanes=lanes.total // profile.cycles,
            cycles=cycles,
            useful=lanes.useful,
            events=measured.counters,
        )
        for name, lanes in profile.lane_cycles.items()
    }


def _summary(network: CompiledNetwork, *, clock_mhz: float | None, measured: NetworkResult | None) -> list[tuple[str, str]]:
    profile, config = network.profile, network.config
    cycles = profile.cycles
    rows = [
        ("config", f"{config.name}: {config.array_lanes} array lanes, {config.depthwise_lanes} depthwise lanes, hash {config.hash:08x}"),
        ("memory", f"{config.memory_width} bytes a cycle, latency {network.options.memory_latency} cycles"),
        ("layers", f"{len(list(network.graph.layers()))} in {len({layer.group for layer in profile.layers})} groups"),
        ("MACs", f"{profile.macs:,}"),
        ("instructions", f"{len(network.program.words):,}"),
        ("cycles", f"{cycles:,} (cycle model)"),
    ]
    ends = (("before", network.program.host_head), ("after", network.program.host_tail))
    for place, host in ends:
        if host is not None:
            rows.append((f"host, {place} the layers", ", ".join(operator.kind for operator in host.operators)))
    if network.options.memory_efficiency != 1:
        rows[1] = ("memory", f"{rows[1][1]}, {network.options.memory_efficiency:g} transfers a cycle")
    if measured is not None and measured.cycles is not None:
        error = 100 * (cycles - measured.cycles) / measured.cycles
        rows.append(("cycles, RTL", f"{measured.cycles:,} (the cycle model is {error:+.2f} % off)"))
        cycles = measured.cycles
    if clock_mhz is not None:
        rows.append(("frames a second", f"{clock_mhz * 1e6 / cycles:.1f} at a clock of {clock_mhz:g} MHz"))
    rows.append(("utilization", f"{100 * profile.utilization:.1f} % of the lane-cycles of both engines (cycle model)"))
    bounds = {bound: sum(layer.share for layer in profile.layers if layer.bound == bound) for bound in ("array", "depthwise", "memory")}
    rows.append(("bound by", ", ".join(f"{bound} {100 * share:.1f} %" for bound, share in bounds.items() if share) + " of the cycles"))
    loaded, stored = sum(layer.loaded for layer in profile.layers), sum(layer.stored for layer in profile.layers)
    rows.append(("memory traffic", f"{loaded:,} bytes loaded, {stored:,} bytes stored"))
    return rows


def _row(number: int, layer: LayerProfile, network: CompiledNetwork) -> tuple[str, ...]:
    node = next((node for node in network.graph.nodes if node.name == layer.name), None)
    shape = network.graph.tensors[node.output].shape if node is not None else ()
    stalls = list(layer.stalls().items())
    shown = ", ".join(f"{name} {count:,.0f}" for name, count in stalls[:_STALLS_SHOWN])
    return (
        f"{number}",
        layer.name,
        layer.kind,
        "x".join(str(side) for side in shape),
        f"{layer.weight_bits or ''}",
        f"{layer.macs:,}",
        f"{layer.cycles:,.0f}",
        f"{100 * layer.share:.1f} %",
        f"{layer.busy:,}" if layer.macs else "",
        f"{100 * layer.steady:.1f} %" if layer.macs else "",
        f"{layer.loaded:,}",
        f"{layer.stored:,}",
        layer.bound,
        shown,
    )


def _total(profile: Profile) -> tuple[str, ...]:
    layers = profile.layers
    return (
        *("", "total", "", "", ""),
        f"{profile.macs:,}",
        f"{sum(layer.cycles for layer in layers):,.0f}",
        f"{100 * sum(layer.share for layer in layers):.1f} %",
        *("", ""),
        f"{sum(layer.loaded for layer in layers):,}",
        f"{sum(layer.stored for layer in layers):,}",
        *("", ""),
    )


def _account(name: str, lanes: LaneCycles, *, source: str) -> Mapping[str, Any]:
    lost = sorted(lanes.lost.items(), key=lambda item: -item[1])
    rows = [("useful", lanes.useful, "MACs times digit planes"), *((cause, count, CAUSES.get(cause, "")) for cause, count in lost)]
    return {
        "title": f"{name} ({source})",
        "rows": [(cause, f"{count:,}", f"{100 * count / lanes.total:.2f} %", meaning) for cause, count, meaning in rows],
        "total": f"{lanes.total:,}",
    }
