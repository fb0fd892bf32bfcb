"""What a group costs: its first strips, scheduled without addresses, and the rest in proportion."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from tercel.hw.config import Config
from tercel.hw.isa import Engine, Mode, Space
from tercel.sw.compiler.flat import has_gapless, is_pointwise
from tercel.sw.compiler.fold import column_stride
from tercel.sw.compiler.group import Group, Key, Use
from tercel.sw.compiler.group_plan import Shape, chunk_groups, group_words, linear_depths, output_groups, residents
from tercel.sw.compiler.row_buffer import RowBuffer
from tercel.sw.compiler.schedule import list_schedule
from tercel.sw.compiler.steps import Steps
from tercel.sw.cycles import array_cycles, array_drain_latency, depthwise_cycles, fetch_beats
from tercel.sw.graph.integer_graph import LayerNode
from tercel.sw.layer_depthwise import MODES
from tercel.sw.layer_spec import LayerSpec
from tercel.sw.tensor_layout import ceil_div

HANDOVER = 50
"""Cycles from one engine's last write to the next one's first result, about."""

SHARE = 0.03
"""Cycles that a transfer costs even where engines hide it: the groups before and after use the same memory."""


@dataclass(frozen=True, slots=True)
class _Task:
    engine: Engine
    after: tuple[int, ...]
    behind: tuple[int, ...] = ()


def group_cycles(group: Group, sizes: Steps, buffers: dict[Key, RowBuffer], shape: Shape, config: Config, *, simulated: int) -> float:
    """Cycles of a group between groups that overlap with it at both ends. ``sizes`` has the first ``simulated`` strips.

    Loads and stores of tensors count as traffic only, because they run ahead and behind; weights that the memories cannot hold for all
    strips, and chunks of those used once, are scheduled with the rest.
    """
    simulation = _Simulation(group, buffers, config, shape)
    counts = []
    for step in sizes.steps:
        if step.kind == "layer":
            simulation.layer(group.producers[step.key[0]], step.key, step.first, step.end)
            counts.append(len(simulation.tasks))
    end = float(simulation.end())
    instructions = len(sizes.steps) + 2 * len(group.layers)
    if simulated < shape.strips:
        half = simulation.end_of(counts[len(counts) // 2 - 1])
        end += (end - half) * (shape.strips - simulated) / (simulated - simulated // 2)
        instructions = instructions * shape.strips // simulated
    traffic = simulation.weight_beats * (shape.strips if simulation.restreamed else 1) + instructions * fetch_beats(config)
    tensors = [key[0] for key in group.inputs] + list(group.stored)
    beats = [_beats(group, name, config) for name in tensors]
    stored = sum(_beats(group, name, config) for name in group.stored)
    boundary = HANDOVER + 2 * stored / shape.strips
    traffic += sum(beats)
    return max(end, traffic) + boundary + SHARE * traffic


def least_cycles(group: Group, config: Config) -> float:
    """Cycles of the engine that has most to do, if it never waits."""
    work = [0, 0]
    for layer in group.layers:
        spec, space = layer.spec, group.input_keys[layer.output][1]
        sections, groups = output_groups(spec, config)
        flat = space == 0 and is_pointwise(spec)
        work[space] += _layer_cycles(spec, config, rows=spec.output[0], groups=sections * groups, pitch=2, flat=flat)[0]
    return max(work)


def _beats(group: Group, name: str, config: Config) -> int:
    height, width, channels = group.tensors[name].shape
    return height * width * ceil_div(channels, config.lanes) * config.lanes // config.memory_width


class _Simulation:
    def __init__(self, group: Group, buffers: dict[Key, RowBuffer], config: Config, shape: Shape) -> None:
        self.group, self.buffers, self.config, self.shape = group, buffers, config, shape
        self.resident = residents(group.layers, config)
        self.tasks: list[_Task] = []
        self.costs: list[tuple[int, int]] = []
        self.made: dict[Key, list[tuple[int, list[int]]]] = {key: [] for key in group.keys}
        self.freed: dict[tuple[Key, str], list[tuple[int, list[int]]]] = {}
        self.loaded: dict[Space, int] = {}
        self.weight_beats = 0
        self.restreamed = False

    def _add(self, engine: Engine, after: set[int], cost: tuple[int, int]) -> int:
        self.tasks.append(_Task(engine, tuple(after)))
        self.costs.append(cost)
        return len(self.tasks) - 1

    def end(self) -> int:
        return list_schedule(self.tasks, self.costs).end

    def end_of(self, count: int) -> int:
        return list_schedule(self.tasks[:count], self.costs).end

    def layer(self, layer: LayerNode, key: Key, first: int, end: int) -> None:
        """The tasks of a strip: one for each chunk of its outputs while weights arrive."""
        spec, config = layer.spec, self.config
        sections, groups = output_groups(spec, config)
        total = sections * groups
        arriving = first == 0 or any(space not in self.resident for space in group_words(spec, config))
        count = chunk_groups(spec, config) if arriving or self.shape.channels else total
        inputs = self.group.input_keys[layer.output]
        on_array = inputs[1] == 0
        use = Use(layer, residual=False)
        ready = [self._ready(inputs, use.end_row(end))]
        if layer.residual is not None:
            ready.append(self._ready((layer.residual, 0), end))
        room = self._room(key, end)
        in_parts = not on_array and len(ready) == 1 and spec.kind != "linear"
        chunks: list[int] = []
        pitch = self.buffers[inputs].pitch
        touched = [inputs, key] if layer.residual is None else [inputs, key, (layer.residual, 0)]
        flat = on_array and has_gapless(spec, [self.buffers[used] for used in touched], rows=end - first, config=config)
        for start in range(0, total, count):
            size = min(count, total - start)
            # The channels that a chunk of the depthwise engine reads have been made by as large a part of the chunks before, and
            # those that its reader has done with are free.
            part = (start + size) / total
            after = {task for tasks, parts in room for task in tasks[: ceil(part * len(tasks)) if parts else None]}
            if in_parts:
                after.update(ready[0][: ceil(part * len(ready[0]))])
            else:
                after.update(task for part in ready for task in part)
            if arriving:
                after.update(self._weights(spec, size, first))
            cost = _layer_cycles(spec, config, rows=end - first, groups=size, pitch=pitch, flat=flat)
            chunks.append(self._add(Engine.ARRAY if on_array else Engine.DEPTHWISE, after, cost))
        self.made[key].append((end, chunks))
        self.freed.setdefault((inputs, layer.output), []).append((use.first_row(end), chunks))
        if layer.residual is not None:
            self.freed.setdefault(((layer.residual, 0), layer.output), []).append((end, chunks))

    def _ready(self, key: Key, end: int) -> list[int]:
        """Tasks that make the last row needed; those before on the same engine have landed then."""
        for made_end, tasks in self.made[key]:
            if made_end >= end:
                return tasks
        return self.made[key][-1][1] if self.made[key] else []

    def _room(self, key: Key, end: int) -> list[tuple[list[int], bool]]:
        """Tasks that read the rows whose places are taken, and whether each reads only its own channels."""
        buffer = self.buffers[key]
        if not buffer.ring:
            return []
        needed = end - buffer.rows
        found = []
        for use in self.group.uses[key]:
            for freed, tasks in self.freed.get((key, use.layer.output), ()):
                if freed >= needed:
                    found.append((tasks, key[1] == 1 and use.layer.spec.kind != "linear"))
                    break
        return found

    def _weights(self, spec: LayerSpec, size: int, first: int) -> list[int]:
        found = []
        for space, words in group_words(spec, self.config).items():
            if first and space in self.resident:
                continue
            self.restreamed |= space not in self.resident and self.shape.strips > 1
            beats = size * words * _word_beats(self.config)[space]
            self.weight_beats += beats if first == 0 else 0
            self.loaded[space] = self.loaded.get(space, 0) + size * words
            if self.loaded[space] > linear_depths(self.config)[space] // 2:
                found.append(self._add(Engine.LOAD, set(), (beats, HANDOVER // 2)))
        return found


@lru_cache(maxsize=64)
def _word_beats(config: Config) -> dict[Space, int]:
    """Transfers on the memory port for a word of each linear memory."""
    sizes = {
        Space.WEIGHT: config.weight_word_bytes,
        Space.PARAMETER: config.parameter_word_bytes,
        Space.RECORD: 9 * config.lanes,
        Space.DEPTHWISE_PARAMETER: config.depthwise_parameter_word_bytes,
        Space.THRESHOLD: config.threshold_word_bytes,
    }
    return {space: size // config.memory_width for space, size in sizes.items()}


@lru_cache(maxsize=1 << 14)
def _layer_cycles(spec: LayerSpec, config: Config, *, rows: int, groups: int, pitch: int, flat: bool) -> tuple[int, int]:
    """Cycles of one instruction: engine taken, and until it has landed after that."""
    width, rows = (rows * spec.output[1], 1) if flat else (spec.output[1], rows)
    values = {
        "rows": rows - 1,
        "kernel_height": spec.kernel[0] - 1,
        "kernel_width": spec.kernel[1] - 1,
        "stride": column_stride(spec) - 1,
    }
    if spec.on_array(config):
        values |= {
            "digits": spec.digits - 1,
            "groups": ceil_div(spec.input[2] // spec.groups, config.lanes) - 1,
            "tiles": ceil_div(width, config.pixels) - 1,
            "output_groups": groups - 1,
            "residual": int(spec.residual),
            "narrow": int(bool(spec.narrow)),
            "thresholds": spec.thresholds,
        }
        cost = array_cycles(values, config)
        # Between two instructions the drain empties.
        return cost.issue, cost.latency - array_drain_latency(config) + HANDOVER
    mode = MODES[spec.kind]
    values |= {
        "mode": int(mode),
        "groups": groups - 1,
        "steps": ceil_div(spec.input[2], config.lanes) - 1 if mode is Mode.MATRIX_VECTOR else 0,
        "dilation_x": spec.dilation[1],
        "dilation_y": spec.dilation[0],
        "x_start": -spec.padding[1],
        "y_start": 0,
        "in_width": spec.input[1],
        "in_height": 1 << 12,
        "out_width": spec.output[1] - 1,
        "in_ky_bank": spec.dilation[0] * pitch % config.pixels,
    }
    cost = depthwise_cycles(values, config)
    return cost.issue, cost.latency + HANDOVER // 2
