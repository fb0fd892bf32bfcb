"""A network in whole numbers: tensors of codes and the layers between them, each under the numeric contract.

Nodes stand in an order in which they can run. A layer's numbers (geometry, zero points, multiplier, shift, clamp) are its
:class:`~tercel.sw.layer_spec.LayerSpec`, so that one definition serves the reference, the compiler and single layers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tercel.sw.layer_spec import Integers, LayerSpec

_EMPTY = np.zeros(0, dtype=np.int64)


class GraphError(ValueError):
    """A graph that breaks its own rules or cannot be built. The message names the node, the limit, the value and a way out."""


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A tensor of 8-bit codes; a code ``a`` stands for ``scale * (a - zero_point)``.

    Parameters
    ----------
    name
        Unique in its graph.
    shape
        Height, width, channels; a vector is ``(1, 1, channels)``.
    """

    name: str
    shape: tuple[int, int, int]
    signed: bool
    zero_point: int
    scale: float


@dataclass(frozen=True, kw_only=True)
class LayerNode:
    """One layer of the machine: convolution, depthwise, linear or pool, with its requantization and possibly a residual.

    Parameters
    ----------
    name
        The module's path in the network (``features.3.conv.0.0``), unique in its graph.
    spec
        Geometry and numbers. ``multiplier`` is 0 where ``multipliers`` holds one a channel. ``narrow`` is None until a pass decides it.
    input, residual, output
        Names of tensors; ``residual`` is None where ``spec.residual`` is false.
    weights, bias, shift, thresholds
        As in :class:`~tercel.sw.layer_spec.LayerTensors`; ``bias`` holds everything constant, the correction of the input's zero point
        included.
    multipliers
        One a channel, or empty.
    source
        Where it comes from in the user's words: operator, file and line.
    """

    name: str
    spec: LayerSpec
    input: str
    output: str
    residual: str | None = None
    weights: Integers = field(default_factory=_EMPTY.copy)
    bias: Integers
    shift: Integers
    multipliers: Integers = field(default_factory=_EMPTY.copy)
    thresholds: Integers = field(default_factory=_EMPTY.copy)
    source: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """All tensors it reads."""
        return (self.input,) if self.residual is None else (self.input, self.residual)


@dataclass(frozen=True, kw_only=True)
class ConcatNode:
    """Channels of several tensors of the same scale, zero point, sign, height and width, one after the other."""

    name: str
    inputs: tuple[str, ...]
    output: str
    source: str = ""


Node = LayerNode | ConcatNode


@dataclass(frozen=True, kw_only=True)
class IntegerGraph:
    """A network.

    Parameters
    ----------
    tensors
        Every tensor by name.
    nodes
        In an order in which they can run.
    inputs, outputs
        Names of tensors.
    """

    tensors: dict[str, Activation]
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def producer(self, tensor: str) -> Node | None:
        """The node that makes a tensor; None for an input."""
        return next((node for node in self.nodes if node.output == tensor), None)

    def consumers(self, tensor: str) -> list[Node]:
        """The nodes that read a tensor, in order."""
        return [node for node in self.nodes if tensor in node.inputs]

    def layers(self) -> Iterator[LayerNode]:
        """The layers, in order."""
        return (node for node in self.nodes if isinstance(node, LayerNode))

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates of one image."""
        return sum(layer.spec.macs for layer in self.layers())
