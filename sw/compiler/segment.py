"""Cuts the network into groups and chooses how each runs, by the cycle model: the cheapest way from the first node to the last."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from tercel.hw.config import Config, unit_exponent
from tercel.hw.isa import ADDR_BITS
from tercel.sw.compiler.allocate import allocate
from tercel.sw.compiler.cost import group_cycles, least_cycles
from tercel.sw.compiler.flat import is_pointwise
from tercel.sw.compiler.fold import FoldedSpec, unfold
from tercel.sw.compiler.group import Group, make_group
from tercel.sw.compiler.group_plan import GroupPlan, Shape, buffers_of, group_words, linear_depths, plan_group, requests
from tercel.sw.compiler.state import Compilation
from tercel.sw.compiler.steps import Steps, plan_steps
from tercel.sw.graph.integer_graph import IntegerGraph, LayerNode, Node
from tercel.sw.layer_spec import LayerSpec
from tercel.sw.tensor_layout import ceil_div

SIMULATED = 8
"""Strips of a group that are scheduled to see what it costs."""
MOST_LAYERS = 12
"""Layers of a group, at most."""
MOST_STRIP_LAYERS = 5
"""Layers of a group that runs in strips, at most."""
HEIGHTS = (1, 2, 3, 4, 7, 8, 14, 16, 28, 32, 56, 64)
"""Rows of a strip that are tried."""
_PACES = (
    ((1, 1), 1, False, 1),
    ((1, 1), 2, False, 1),
    ((1, 1), 2, True, 1),
    ((1, 0), 1, True, 1),
    ((1, 0), 1, False, 1),
    ((0, 0), 1, False, 1),
)
"""Slack, split, chunks of channels and slices that are tried for strips, those that take most room first."""
_SLICES = (1, 4, 8, 16)
"""Slices that are tried for whole maps."""
GOOD_ENOUGH = 1.005
"""A choice that costs at most so much more than the engines' work alone ends the search."""
ALONE = 100.0
"""How much worse than its multiply-accumulates a layer counts that has to be cut by itself."""


@dataclass(frozen=True)
class _Choice:
    cost: float
    shape: Shape


@dataclass
class _Segmenter:
    graph: IntegerGraph
    config: Config
    wanted: Collection[str]
    last_use: dict[str, int] = field(default_factory=dict)
    canonical: dict[str, LayerSpec] = field(default_factory=dict)
    known: dict[tuple[object, ...], _Choice | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, node in enumerate(self.graph.nodes):
            for name in node.inputs:
                self.last_use[name] = number
        for layer in self.graph.layers():
            unit = unit_exponent(self.config.multiplier_bits)
            # Equal shapes cost the same whatever their scales are.
            spec = replace(layer.spec, multiplier=1, shift=unit, z_in=0, z_out=0, lo=0, hi=1)
            self.canonical[layer.name] = replace(spec, z_res=0, res_multiplier=0, res_shift=0)

    def group(self, first: int, end: int) -> Group | None:
        layers = self.graph.nodes[first:end]
        assert all(isinstance(layer, LayerNode) for layer in layers)
        made = [layer.output for layer in layers]
        stored = [name for name in made if name in self.wanted or self.last_use.get(name, -1) >= end]
        return make_group(tuple(layer for layer in layers if isinstance(layer, LayerNode)), self.graph.tensors, stored, self.config)

    def best(self, first: int, end: int) -> _Choice | None:
        """How nodes ``first`` to ``end - 1`` run best as a group; None if they cannot."""
        group = self.group(first, end)
        if group is None or not all(self._weights_fit(layer.spec) for layer in group.layers):
            return None
        key = self.signature(group)
        if key not in self.known:
            self.known[key] = self._best_choice(group)
        return self.known[key]

    def signature(self, group: Group) -> tuple[object, ...]:
        """What a group's cost depends on."""
        names: dict[str, int] = {}
        found: list[object] = []
        for layer in group.layers:
            links = [names.setdefault(name, len(names)) for name in (*layer.inputs, layer.output)]
            found += [self.canonical[layer.name], *links, layer.output in group.stored]
        return tuple(found)

    def _best_choice(self, group: Group) -> _Choice | None:
        """The cheapest, or the first that is about as cheap as any can be."""
        best = None
        floor = least_cycles(group, self.config)
        for choice in self._choices(group):
            if best is None or choice.cost < best.cost:
                best = choice
                if best.cost < GOOD_ENOUGH * floor:
                    break
        return best

    def _weights_fit(self, spec: LayerSpec) -> bool:
        """Whether the linear memories hold what one group of output channels needs."""
        return all(words <= linear_depths(self.config)[space] for space, words in group_words(spec, self.config).items())

    def _choices(self, group: Group) -> Iterator[_Choice]:
        """For each height of the strips the widest spread that fits, with slack and, where that costs spread, without."""
        height = group.layers[-1].spec.output[0]
        has_flat = any(is_pointwise(layer.spec) and layer.spec.output[1] % self.config.pixels for layer in group.layers)
        whole_only = len(group.layers) > MOST_STRIP_LAYERS
        for rows in [height] if whole_only else [*(h for h in HEIGHTS if h < height), height]:
            strips = ceil_div(height, rows)
            simulated = min(strips, SIMULATED)
            limit = None if simulated == strips else simulated
            steps = {split: plan_steps(group, strips=strips, split=split, limit=limit) for split in (1, 2)}
            paces = _PACES if strips > 1 else tuple(((0, 0), 1, False, slices) for slices in _SLICES)
            for slack, split, channels, slices in paces:
                spreads = (self.config.pixels, 1, 0)
                shapes = (Shape(strips, slack, split, channels, spread, slices) for spread in spreads)
                found = (self._evaluate(group, shape, steps[split], simulated=simulated) for shape in shapes)
                choice = next((choice for choice in found if choice is not None), None)
                if choice is not None:
                    yield choice
                    if (
                        has_flat
                        and choice.shape.spread
                        and (narrow := self._evaluate(group, replace(choice.shape, spread=0), steps[split], simulated=simulated))
                    ):
                        yield narrow
                    if choice.shape.spread == spreads[0] and (slack, split, channels, slices) == paces[0]:
                        break

    def _evaluate(self, group: Group, shape: Shape, sizes: Steps, *, simulated: int) -> _Choice | None:
        buffers = buffers_of(group, sizes, shape, self.config)
        depths = (self.config.array_depth, self.config.window_depth)
        if any(buffer.words > depths[key[1]] for key, buffer in buffers.items()):
            return None
        wanted = requests(sizes, group, buffers)
        for space, words in enumerate(depths):
            usable = min(words, (1 << ADDR_BITS) - 1)
            if allocate([request for request in wanted if request.key[1] == space], depth=usable, from_top=False) is None:
                return None
        return _Choice(group_cycles(group, sizes, buffers, shape, self.config, simulated=simulated), shape)


def segment(state: Compilation) -> None:
    """Fill in ``groups``. A folded layer that no group holds is unfolded again."""
    state.groups = _segment(state.graph, state.config, state.wanted)
    if any(isinstance(plan, LayerNode) and isinstance(plan.spec, FoldedSpec) for plan in state.groups):
        unfold(state)
        state.groups = _segment(state.graph, state.config, state.wanted)


def _segment(graph: IntegerGraph, config: Config, wanted: Collection[str]) -> list[GroupPlan | Node]:
    segmenter = _Segmenter(graph, config, wanted)
    while True:
        plans = _plans(segmenter, _cheapest_cuts(segmenter))
        if plans is not None:
            return plans


def _cheapest_cuts(segmenter: _Segmenter) -> list[tuple[int, int, Shape | None]]:
    """First node, end and shape of each group, in order; no shape for a node alone."""
    nodes, count = segmenter.graph.nodes, len(segmenter.graph.nodes)
    cheapest: list[tuple[float, int, Shape | None]] = [(0.0, 0, None)]
    cheapest += [(float("inf"), 0, None) for _ in range(count)]
    for first, node in enumerate(nodes):
        before = cheapest[first][0]
        macs = node.spec.macs if isinstance(node, LayerNode) else 0
        alone = before + 1000 + ALONE * macs / segmenter.config.array_lanes
        if alone < cheapest[first + 1][0]:
            cheapest[first + 1] = (alone, first, None)
        for end in range(first + 1, min(count, first + MOST_LAYERS) + 1):
            if not isinstance(nodes[end - 1], LayerNode):
                break
            choice = segmenter.best(first, end)
            if choice is not None and before + choice.cost < cheapest[end][0]:
                cheapest[end] = (before + choice.cost, first, choice.shape)
    cuts: list[tuple[int, int, Shape | None]] = []
    end = count
    while end:
        _, first, shape = cheapest[end]
        cuts.append((first, end, shape))
        end = first
    return cuts[::-1]


def _plans(segmenter: _Segmenter, cuts: list[tuple[int, int, Shape | None]]) -> list[GroupPlan | Node] | None:
    """Plans of all groups, from the low and the high end of the scratchpads by turns, so that neighbours overlap less.

    None, and the group is not tried again, if one does not fit after all because its last strips need more than its first.
    """
    plans: list[GroupPlan | Node] = []
    for number, (first, end, shape) in enumerate(cuts):
        group = None if shape is None else segmenter.group(first, end)
        if group is None or shape is None:
            plans.append(segmenter.graph.nodes[first])
            continue
        config = segmenter.config
        plan = plan_group(group, shape, config, from_top=number % 2 == 1) or plan_group(group, shape, config)
        if plan is None:
            segmenter.known[segmenter.signature(group)] = None
            return None
        plans.append(plan)
    return plans
