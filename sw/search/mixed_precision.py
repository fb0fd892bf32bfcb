"""The search itself: sensitivities and costs, the way down, and the points on it, each quantized and compiled as it would be used."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor, nn

from tercel.hw.config import Config
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.importer import import_exported
from tercel.sw.quantize import Scheme, quantize
from tercel.sw.search.candidate import Candidate, Measure, SearchError, SearchResult
from tercel.sw.search.cost import LayerCost, layer_costs, network_cost, with_widths
from tercel.sw.search.front import Choice, Choices, descend, spread, total_error, useful_steps
from tercel.sw.search.sensitivity import Progress, measure_sensitivity


def _choices(
    sensitivities: Mapping[str, Mapping[int, float]], costs: Mapping[int, Mapping[str, LayerCost]], measure: Measure
) -> dict[str, dict[int, Choice]]:
    """Layers whose weights take as much room at every width, those of the depthwise engine, have the widest only."""
    found: dict[str, dict[int, Choice]] = {}
    for layer, errors in sensitivities.items():
        # Less than what rounding to 8 bits leaves is noise: never let a narrower width look better than a wider one.
        worst = 0.0
        rooms = {width: costs[width][layer].weight_bytes for width in errors if layer in costs[width]}
        for width in sorted(errors, reverse=True) if len(set(rooms.values())) > 1 else [max(errors)]:
            worst = max(worst, errors[width])
            cost = costs[width].get(layer)
            number = 0.0 if cost is None else float(cost.cycles if measure == "cycles" else cost.weight_bytes)
            found.setdefault(layer, {})[width] = Choice(error=worst, cost=number)
    return found


def _first_within(path: Sequence[Mapping[str, int]], fits: Callable[[Mapping[str, int]], bool]) -> int | None:
    """Index of the first assignment that fits, None if the last does not; costs fall along the path."""
    if not fits(path[-1]):
        return None
    low, high = 0, len(path) - 1
    while low < high:
        middle = (low + high) // 2
        if fits(path[middle]):
            high = middle
        else:
            low = middle + 1
    return high


def search_widths(
    model: nn.Module,
    *,
    calibration: Iterable[Tensor],
    config: Config,
    scheme: str | Scheme,
    widths: Sequence[int],
    max_cycles: int | None,
    max_weight_bytes: int | None,
    points: int,
    images: int,
    evaluate: Callable[[IntegerGraph], float] | None,
    progress: Progress,
) -> SearchResult:
    """:func:`tercel.sw.search.search` itself, in a module that may import torch."""
    batches = [calibration] if isinstance(calibration, Tensor) else list(calibration)
    sensitivities = measure_sensitivity(model, calibration=batches, scheme=scheme, widths=widths, images=images, progress=progress)
    progress(0, 0, "cost of each width")
    program = quantize(model, calibration=batches, scheme=scheme, bits=max(widths), bias_correction=False, rounding="nearest")
    widest = import_exported(program, config=config).graph
    costs = {width: layer_costs(widest, config, modules=sensitivities, width=width) for width in widths}
    measure: Measure = "weight_bytes" if max_weight_bytes is not None and max_cycles is None else "cycles"
    choices = _choices(sensitivities, costs, measure)
    path = descend(choices)

    def fits(assignment: Mapping[str, int]) -> bool:
        cost = network_cost(with_widths(widest, config, assignment), config)
        return (max_cycles is None or cost.cycles <= max_cycles) and (max_weight_bytes is None or cost.weight_bytes <= max_weight_bytes)

    chosen = None
    if max_cycles is not None or max_weight_bytes is not None:
        progress(0, 0, "widths within the budget")
        chosen = _first_within(path, fits)
        if chosen is None:
            least = network_cost(with_widths(widest, config, path[-1]), config)
            raise SearchError(
                f"budget must be at least {least.cycles} cycles and {least.weight_bytes} bytes of weights, not "
                f"{_budget(max_cycles, max_weight_bytes)} (that is what {min(widths)} bits take on config {config.name}; raise the budget)"
            )
    indices = sorted({*spread(useful_steps(choices, path), points=points), *([chosen] if chosen is not None else [])})
    front = []
    for number, index in enumerate(indices):
        progress(number, len(indices), "points of the front")
        front.append(_candidate(model, batches, choices, path[index], config=config, scheme=scheme, evaluate=evaluate))
    progress(len(indices), len(indices), "points of the front")
    return SearchResult(
        config=config.name,
        measure=measure,
        sensitivities=sensitivities,
        front=tuple(front),
        chosen=None if chosen is None else front[indices.index(chosen)],
    )


def _candidate(
    model: nn.Module,
    batches: Sequence[Tensor],
    choices: Choices,
    widths: Mapping[str, int],
    *,
    config: Config,
    scheme: str | Scheme,
    evaluate: Callable[[IntegerGraph], float] | None,
) -> Candidate:
    graph = import_exported(quantize(model, calibration=batches, scheme=scheme, bits=dict(widths)), config=config).graph
    cost = network_cost(graph, config)
    return Candidate(
        bits=dict(widths),
        cycles=cost.cycles,
        weight_bytes=cost.weight_bytes,
        predicted_error=total_error(choices, widths),
        accuracy=None if evaluate is None else evaluate(graph),
    )


def _budget(cycles: int | None, weight_bytes: int | None) -> str:
    parts = [f"{cycles} cycles" if cycles is not None else "", f"{weight_bytes} bytes" if weight_bytes is not None else ""]
    return " and ".join(part for part in parts if part)
