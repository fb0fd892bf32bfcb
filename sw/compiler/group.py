"""Nodes that pass tensors to each other on chip."""

from collections.abc import Iterable
from dataclasses import dataclass

from tercel.hw.config import Config
from tercel.sw.graph.integer_graph import Activation, LayerNode

Key = tuple[str, int]
"""A tensor and the scratchpad (0 array, 1 window) that holds it."""


@dataclass(frozen=True)
class Use:
    """A layer that reads a tensor, as its residual or as its input."""

    layer: LayerNode
    residual: bool

    def first_row(self, row: int) -> int:
        """First row of the tensor that output row ``row`` needs; may be negative."""
        return row if self.residual else row * self.layer.spec.stride - self.layer.spec.padding[0]

    def end_row(self, end: int) -> int:
        """End of the rows inside the image that output rows before ``end`` need."""
        spec = self.layer.spec
        if self.residual:
            return end
        return max(0, min(spec.input[0], (end - 1) * spec.stride - spec.padding[0] + (spec.kernel[0] - 1) * spec.dilation[0] + 1))


@dataclass(frozen=True)
class Group:
    """Layers in order, what they read from external memory, and what they write there.

    Attributes
    ----------
    layers
        At least one.
    tensors
        All tensors of the network.
    producers
        The layer of each tensor that the group makes.
    keys
        Every tensor with every scratchpad that holds it: the inputs' first, then in the order of the layers.
    uses
        Who reads each.
    input_keys
        By a layer's output, where its input lies.
    stored
        Tensors that go to external memory, in the order of the layers.
    """

    layers: tuple[LayerNode, ...]
    tensors: dict[str, Activation]
    producers: dict[str, LayerNode]
    keys: tuple[Key, ...]
    uses: dict[Key, tuple[Use, ...]]
    input_keys: dict[str, Key]
    stored: tuple[str, ...]

    @property
    def inputs(self) -> list[Key]:
        """What is loaded."""
        return [key for key in self.keys if key[0] not in self.producers]

    def output_key(self, layer: LayerNode) -> Key:
        """Where a layer's output lies."""
        return next(key for key in self.keys if key[0] == layer.output)


def make_group(layers: tuple[LayerNode, ...], tensors: dict[str, Activation], stored: Iterable[str], config: Config) -> Group | None:
    """The group of ``layers``, those of ``stored`` that it makes being stored.

    None if both engines want one of its tensors, which one write cannot put into two scratchpads.
    """
    producers = {layer.output: layer for layer in layers}
    uses: dict[Key, list[Use]] = {}
    input_keys: dict[str, Key] = {}
    for layer in layers:
        input_keys[layer.output] = (layer.input, 0 if layer.spec.on_array(config) else 1)
        uses.setdefault(input_keys[layer.output], []).append(Use(layer, residual=False))
        if layer.residual is not None:
            uses.setdefault((layer.residual, 0), []).append(Use(layer, residual=True))
    if any((name, 0) in uses and (name, 1) in uses for name in producers):
        return None
    keys = [key for key in uses if key[0] not in producers]
    for name in producers:
        keys.append((name, 1) if (name, 1) in uses else (name, 0))
    wanted = set(stored)
    return Group(
        layers=layers,
        tensors=tensors,
        producers=producers,
        keys=tuple(keys),
        uses={key: tuple(uses.get(key, ())) for key in keys},
        input_keys=input_keys,
        stored=tuple(name for name in producers if name in wanted),
    )
