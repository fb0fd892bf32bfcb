"""The order of a group's work, strip of rows by strip of rows, each layer only as far as the next needs it."""

from dataclasses import dataclass
from typing import Literal

from tercel.sw.compiler.group import Group, Key, Use
from tercel.sw.graph.integer_graph import LayerNode


@dataclass(frozen=True, slots=True)
class Step:
    """Rows ``first`` to ``end - 1`` of a tensor are loaded, made or stored."""

    kind: Literal["load", "layer", "store"]
    key: Key
    first: int
    end: int


@dataclass(frozen=True)
class Steps:
    """Steps in order; for each tensor the rows that it must hold at least, and the most rows of one step that makes or loads it."""

    steps: list[Step]
    rows: dict[Key, int]
    pieces: dict[Key, int]


def plan_steps(group: Group, *, strips: int, split: int = 1, limit: int | None = None) -> Steps:
    """Steps that make each last layer's rows in ``strips`` strips, and what those need in ``split`` pieces each.

    With ``limit`` only the first strips, enough for the sizes.
    """
    return _Planner(group, split).run(strips, limit)


class _Planner:
    def __init__(self, group: Group, split: int) -> None:
        self.group, self.split = group, split
        self.steps: list[Step] = []
        self.made: dict[str, int] = {layer.output: 0 for layer in group.layers}
        self.held: dict[Key, int] = dict.fromkeys(group.keys, 0)
        self.rows: dict[Key, int] = dict.fromkeys(group.keys, 1)
        self.pieces: dict[Key, int] = dict.fromkeys(group.keys, 1)
        self.heights = {key: group.tensors[key[0]].shape[0] for key in group.keys}
        self.output_keys = {layer.output: group.output_key(layer) for layer in group.layers}
        self.stored = set(group.stored)

    def run(self, strips: int, limit: int | None) -> Steps:
        used = {key[0] for key, uses in self.group.uses.items() if uses}
        last = [layer for layer in self.group.layers if layer.output not in used]
        for strip in range(strips if limit is None else min(strips, limit)):
            for layer in last:
                height = layer.spec.output[0]
                self._make(layer, -(-height * (strip + 1) // strips))
        if limit is None:
            for layer in self.group.layers:
                if layer.output in self.stored:
                    self._make(layer, layer.spec.output[0])
        return Steps(self.steps, self.rows, self.pieces)

    def _make(self, layer: LayerNode, end: int) -> None:
        first = self.made[layer.output]
        if first >= end:
            return
        spec = layer.spec
        inputs = self.group.input_keys[layer.output]
        self._hold(inputs, Use(layer, residual=False).end_row(end))
        if layer.residual is not None:
            self._hold((layer.residual, 0), end)
        visited = (end - 1 - first) * spec.stride + (spec.kernel[0] - 1) * spec.dilation[0] + 1
        self.rows[inputs] = max(self.rows[inputs], visited)
        key = self.output_keys[layer.output]
        self.steps.append(Step("layer", key, first, end))
        self.made[layer.output] = end
        self._arrived(key, end)
        if layer.output in self.stored:
            self.steps.append(Step("store", key, first, end))

    def _hold(self, key: Key, end: int) -> None:
        producer = self.group.producers.get(key[0])
        if producer is not None:
            first = self.made[key[0]]
            for piece in range(1, self.split + 1):
                self._make(producer, first + (end - first) * piece // self.split)
        elif self.held[key] < end:
            self.steps.append(Step("load", key, self.held[key], end))
            self._arrived(key, end)

    def _arrived(self, key: Key, end: int) -> None:
        first = self.held[key]
        self.held[key] = end
        oldest = first
        for use in self.group.uses[key]:
            if self.made[use.layer.output] < use.layer.spec.output[0]:
                oldest = min(oldest, max(0, use.first_row(self.made[use.layer.output])))
        self.rows[key] = max(self.rows[key], end - oldest)
        self.pieces[key] = max(self.pieces[key], end - first)
