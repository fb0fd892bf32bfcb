"""How a group runs: its strips, its buffers in the scratchpads, its chunks of weights."""

from dataclasses import dataclass
from functools import lru_cache

from tercel.hw.config import Config
from tercel.hw.isa import ADDR_BITS, Space
from tercel.sw.compiler.allocate import Request, allocate
from tercel.sw.compiler.group import Group, Key
from tercel.sw.compiler.row_buffer import RowBuffer
from tercel.sw.compiler.steps import Step, Steps, plan_steps
from tercel.sw.graph.integer_graph import LayerNode
from tercel.sw.layer_array import CHANNEL_THRESHOLDS
from tercel.sw.layer_spec import LayerSpec
from tercel.sw.tensor_layout import ceil_div, window_pitch

_CHUNKS = 4
"""A linear memory holds at least so many chunks of a layer that does not fit as a whole, so that three load while one is used."""


@dataclass(frozen=True)
class Shape:
    """What can be chosen for a group besides its layers.

    Attributes
    ----------
    strips
        Strips in which the last layers are made; 1: whole maps.
    slack
        Pieces that a buffer in the array and in the window scratchpad holds besides those in use, so that its writer runs ahead of its
        readers.
    split
        Pieces in which a layer makes the rows that the next layer's strip needs.
    slices
        Slices of channels in which whole maps go from the array to the depthwise engine, two of them being on chip at a time.
    channels
        Strips are made in chunks of channels even when all weights are there, so that the next rows follow chunk by chunk.
    spread
        Columns that rows of the window scratchpad have at most beyond their width, so that the depthwise engine finds three rows in
        different banks. Fewer take fewer words, but it waits for banks.
    """

    strips: int
    slack: tuple[int, int]
    split: int
    channels: bool
    spread: int
    slices: int = 1


@dataclass(frozen=True)
class GroupPlan:
    """A group and how it runs.

    Attributes
    ----------
    shape
        What was chosen.
    steps
        Loads, layers' strips and stores in order.
    buffers, bases
        Every tensor's place.
    resident
        Linear memories that hold what they need for all strips; the others are filled anew for each.
    chunks
        By a layer's output, groups of output channels in one instruction while weights arrive.
    """

    group: Group
    shape: Shape
    steps: tuple[Step, ...]
    buffers: dict[Key, RowBuffer]
    bases: dict[Key, int]
    resident: frozenset[Space]
    chunks: dict[str, int]


@lru_cache(maxsize=4096)
def group_words(spec: LayerSpec, config: Config) -> dict[Space, int]:
    """Words that each group of output channels needs in the linear memories."""
    if spec.on_array(config):
        taps = spec.kernel[0] * spec.kernel[1] * ceil_div(spec.input[2] // spec.groups, config.lanes)
        words = {Space.WEIGHT: spec.digits * taps, Space.PARAMETER: config.drain_groups}
        if spec.thresholds and not spec.threshold_shared:
            words[Space.THRESHOLD] = CHANNEL_THRESHOLDS * config.outputs
        return words
    if spec.kind == "linear":
        return {Space.RECORD: ceil_div(spec.input[2], config.lanes) * max(1, config.lanes // 8), Space.DEPTHWISE_PARAMETER: 1}
    if spec.kind == "depthwise":
        return {Space.RECORD: ceil_div(spec.kernel[0], 3) * ceil_div(spec.kernel[1], 3), Space.DEPTHWISE_PARAMETER: 1}
    return {}


def common_words(spec: LayerSpec, config: Config) -> dict[Space, int]:
    """Words that all groups of output channels share."""
    if spec.kind == "average_pool":
        return {Space.DEPTHWISE_PARAMETER: 1}
    return {Space.THRESHOLD: spec.thresholds} if spec.thresholds and spec.threshold_shared and spec.on_array(config) else {}


@lru_cache(maxsize=4096)
def output_groups(spec: LayerSpec, config: Config) -> tuple[int, int]:
    """Sections (convolution groups) and groups of output channels in each."""
    if spec.on_array(config):
        return spec.groups, ceil_div(spec.output[2] // spec.groups, config.outputs)
    return 1, ceil_div(spec.output[2], config.lanes)


def output_words(spec: LayerSpec, config: Config) -> int:
    """Channel groups that a pixel of the output takes; the last tile of a section may reach past its channels."""
    if not spec.on_array(config):
        return ceil_div(spec.output[2], config.lanes)
    sections, groups = output_groups(spec, config)
    return (sections - 1) * (spec.out // sections // config.lanes) + groups * config.words_per_tile


@lru_cache(maxsize=64)
def linear_depths(config: Config) -> dict[Space, int]:
    """Words of the linear memories."""
    return {
        Space.WEIGHT: config.weight_depth,
        Space.PARAMETER: config.parameter_depth,
        Space.RECORD: config.record_depth,
        Space.DEPTHWISE_PARAMETER: config.record_depth,
        Space.THRESHOLD: config.threshold_depth,
    }


def residents(layers: tuple[LayerNode, ...], config: Config) -> frozenset[Space]:
    """Linear memories that hold what all layers together need."""
    total: dict[Space, int] = {}
    for layer in layers:
        sections, groups = output_groups(layer.spec, config)
        for space, words in group_words(layer.spec, config).items():
            total[space] = total.get(space, 0) + sections * groups * words
        for space, words in common_words(layer.spec, config).items():
            total[space] = total.get(space, 0) + words
    return frozenset(space for space, words in total.items() if words <= linear_depths(config)[space])


def chunk_groups(spec: LayerSpec, config: Config) -> int:
    """Groups of output channels in one instruction while weights arrive: a quarter of the layer, or what fits."""
    _, groups = output_groups(spec, config)
    count = ceil_div(groups, _CHUNKS)
    for space, words in group_words(spec, config).items():
        count = min(count, max(1, linear_depths(config)[space] // _CHUNKS // words))
    return count


@lru_cache(maxsize=4096)
def _window_pitch(width: int, banks: int, stride: int, dilation: tuple[int, int]) -> int:
    return window_pitch(width=width, banks=banks, stride=stride, dilation=dilation)


def slice_words(group: Group, key: Key, shape: Shape, config: Config) -> int:
    """Channel groups of a slice of a tensor; 0 for a tensor that is not sliced.

    The depthwise engine alone must read it, and nothing store it.
    """
    name, space = key
    producer, uses = group.producers.get(name), group.uses[key]
    if shape.slices == 1 or space == 0 or producer is None or not producer.spec.on_array(config) or name in group.stored:
        return 0
    sections, groups = output_groups(producer.spec, config)
    if sections > 1 or len(uses) != 1 or uses[0].layer.spec.kind == "linear" or groups < shape.slices:
        return 0
    return ceil_div(groups, shape.slices) * config.words_per_tile


def buffers_of(group: Group, sizes: Steps, shape: Shape, config: Config) -> dict[Key, RowBuffer]:
    """A buffer for each tensor."""
    found = {}
    for key in group.keys:
        name, space = key
        height, width, channels = group.tensors[name].shape
        uses = group.uses[key]
        rows = sizes.rows[key] + shape.slack[space] * sizes.pieces[key]
        ring = rows < height
        pitch = width
        windows = [use.layer.spec for use in uses if space == 1 and use.layer.spec.kind != "linear"]
        if windows:
            best = _window_pitch(width, config.pixels, windows[0].stride, windows[0].dilation)
            pitch = min(best, width + shape.spread)
        producer = group.producers.get(name)
        # A residual is read by whole tiles of its reader, like the output is written.
        pixel = max((output_words(use.layer.spec, config) for use in uses if use.residual), default=0)
        pixel = max(pixel, ceil_div(channels, config.lanes) if producer is None else output_words(producer.spec, config))
        sliced = slice_words(group, key, shape, config)
        found[key] = RowBuffer(
            banks=config.pixels,
            space=space,
            pitch=max(pitch, config.pixels) if ring else pitch,
            pixel=sliced or pixel,
            width=width,
            rows=rows if ring else height,
            ring=ring,
            margin=max((use.layer.spec.padding[1] for use in uses if not use.residual), default=0),
            copies=2 if sliced else 1,
        )
    return found


def requests(steps: Steps, group: Group, buffers: dict[Key, RowBuffer]) -> list[Request]:
    """When and how much of the scratchpads each buffer needs."""
    first: dict[Key, int] = {}
    last: dict[Key, int] = {}
    for number, step in enumerate(steps.steps):
        touched = [step.key]
        if step.kind == "layer":
            layer = group.producers[step.key[0]]
            touched.append(group.input_keys[layer.output])
            if layer.residual is not None:
                touched.append((layer.residual, 0))
        # The slices of a tensor are made while the next step reads them.
        end = number + (buffers[step.key].copies > 1)
        for key in touched:
            first.setdefault(key, number)
            last[key] = max(end, last.get(key, 0))
    return [Request(key, first[key], last[key], buffers[key].words, buffers[key].first_base) for key in group.keys if key in first]


def plan_group(group: Group, shape: Shape, config: Config, *, from_top: bool = False) -> GroupPlan | None:
    """The plan of a group; None if its buffers do not fit."""
    steps = plan_steps(group, strips=shape.strips, split=shape.split)
    buffers = buffers_of(group, steps, shape, config)
    wanted = requests(steps, group, buffers)
    bases: dict[Key, int] = {}
    for space, words in enumerate((config.array_depth, config.window_depth)):
        # The field for the end of a ring cannot hold the number of all words of the largest scratchpad.
        usable = min(words, (1 << ADDR_BITS) - 1)
        found = allocate([request for request in wanted if request.key[1] == space], depth=usable, from_top=from_top)
        if found is None:
            return None
        bases |= found
    return GroupPlan(
        group=group,
        shape=shape,
        steps=tuple(steps.steps),
        buffers=buffers,
        bases=bases,
        resident=residents(group.layers, config),
        chunks={layer.output: chunk_groups(layer.spec, config) for layer in group.layers},
    )
