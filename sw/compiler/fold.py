"""Strided convolutions of few input channels read several pixels of the network's input as one.

A convolution of stride 2 over an image of 3 channels uses 3 of the lanes in each of its steps. With two pixels side by side taken as one
of 6 channels it steps by one such column, its kernel is narrower by about half, and each step uses twice the lanes. The weights get zeros
where a column reaches past the kernel; rows stay as they are.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from tercel.hw.config import Config
from tercel.sw.band import Band
from tercel.sw.compiler.state import Compilation
from tercel.sw.graph.integer_graph import LayerNode, Node
from tercel.sw.graph.narrow_sums import with_narrow_sums
from tercel.sw.graph.wide_weights import on_engine_that_holds
from tercel.sw.layer_spec import Integers, LayerSpec
from tercel.sw.tensor_layout import Placement, ceil_div


@dataclass(frozen=True, kw_only=True)
class FoldedSpec(LayerSpec):
    """A convolution whose columns are folded: ``stride`` counts rows, ``column_stride`` folded columns."""

    column_stride: int = 1

    @property
    def output(self) -> tuple[int, int, int]:
        """Height, width and channels of the output."""
        top, left, bottom, right = self.padding
        height = (self.input[0] + top + bottom - (self.kernel[0] - 1) * self.dilation[0] - 1) // self.stride + 1
        width = (self.input[1] + left + right - self.kernel[1]) // self.column_stride + 1
        return height, width, self.out


def column_stride(spec: LayerSpec) -> int:
    """Input columns from output column to output column."""
    return spec.column_stride if isinstance(spec, FoldedSpec) else spec.stride


def fold(state: Compilation) -> None:
    """Fold inputs of the network where that saves steps."""
    graph = state.graph
    tensors, nodes = dict(graph.tensors), list(graph.nodes)
    for name in graph.inputs:
        users = [number for number, node in enumerate(nodes) if name in node.inputs]
        layer = nodes[users[0]] if len(users) == 1 else None
        if name in state.wanted or not isinstance(layer, LayerNode) or layer.residual == name:
            continue
        folded = _fold(layer, state.config)
        if folded is not None:
            nodes[users[0]] = folded
            tensors[name] = replace(tensors[name], shape=folded.spec.input)
            state.folds[name] = layer.spec.stride
    state.graph = replace(graph, tensors=tensors, nodes=tuple(nodes))


def unfold(state: Compilation) -> None:
    """Take :func:`fold` back."""
    given = {node.name: node for node in state.source.nodes}
    tensors = {name: state.source.tensors[name] if name in state.folds else tensor for name, tensor in state.graph.tensors.items()}
    nodes: list[Node] = []
    for node in state.graph.nodes:
        source = given[node.name]
        if isinstance(node, LayerNode) and isinstance(source, LayerNode) and isinstance(node.spec, FoldedSpec):
            layer = on_engine_that_holds(source, state.config)
            narrow = with_narrow_sums(layer, state.config) if node.spec.narrow else None
            nodes.append(narrow or replace(layer, spec=replace(layer.spec, narrow=False)))
        else:
            nodes.append(node)
    state.graph, state.folds = replace(state.graph, tensors=tensors, nodes=tuple(nodes)), {}


def _fold(layer: LayerNode, config: Config) -> LayerNode | None:
    spec = layer.spec
    height, width, channels = spec.input
    plain = spec.kind == "conv" and spec.groups == 1 and spec.dilation[1] == 1 and spec.weight_offset == 0
    if not plain or spec.stride == 1 or width % spec.stride:
        return None
    factor, left = spec.stride, ceil_div(spec.padding[1], spec.stride)
    kernel_width = (spec.kernel[1] - 1 - spec.padding[1]) // factor + left + 1
    steps = ceil_div(channels, config.lanes) * spec.kernel[1]
    if ceil_div(factor * channels, config.lanes) * kernel_width >= steps:
        return None
    out_width = spec.output[1]
    right = out_width - 1 + kernel_width - left - width // factor
    values = {field.name: getattr(spec, field.name) for field in fields(spec)}
    values |= {
        "input": (height, width // factor, factor * channels),
        "kernel": (spec.kernel[0], kernel_width),
        "padding": (spec.padding[0], left, spec.padding[2], max(0, right)),
    }
    folded = FoldedSpec(**values)
    assert folded.output == spec.output
    weights = _fold_weights(layer.weights, factor=factor, first=left * factor - spec.padding[1], columns=kernel_width)
    return replace(layer, spec=folded, weights=weights)


def _fold_weights(weights: Integers, *, factor: int, first: int, columns: int) -> Integers:
    """``[outputs, rows, columns, factor * channels]`` weights with kernel column 0 at pixel ``first`` of the columns."""
    outputs, rows, width, channels = weights.shape
    wide = np.zeros((outputs, rows, columns * factor, channels), dtype=np.int64)
    wide[:, :, first : first + width] = weights
    return wide.reshape(outputs, rows, columns, factor * channels)


def row_pieces(spec: LayerSpec, first: int, end: int) -> list[tuple[int, int]]:
    """Output rows ``first..end-1`` for instructions: folded ones take rows that see padding one by one.

    One field holds the stride of rows and columns. Without padding the rows that an instruction believes to read do not matter, because
    its pointers alone lead to them; with a single row its stride does not.
    """
    if not isinstance(spec, FoldedSpec):
        return [(first, end)]
    inside = [row for row in range(first, end) if _is_inside(spec, row)]
    if not inside:
        return [(row, row + 1) for row in range(first, end)]
    low, high = inside[0], inside[-1] + 1
    return [*((row, row + 1) for row in range(first, low)), (low, high), *((row, row + 1) for row in range(high, end))]


def _is_inside(spec: LayerSpec, row: int) -> bool:
    top = row * spec.stride - spec.padding[0]
    return top >= 0 and top + (spec.kernel[0] - 1) * spec.dilation[0] < spec.input[0]


def folded_fields(spec: FoldedSpec, band: Band, inputs: Placement) -> dict[str, int]:
    """What the fields of a folded layer's instruction are instead."""
    values = {"stride": spec.column_stride - 1, "in_tile": spec.column_stride * inputs.pixel}
    if _is_inside(spec, band.row):
        values |= {"y_start": 0, "dilation_y": 1, "in_height": band.rows + spec.kernel[0]}
    return values
