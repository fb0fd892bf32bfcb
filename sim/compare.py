"""Where two executions of a network part: the first layer, tile, pixel and channel, and how far apart floats are."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.layer_spec import Integers

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A code that differs. ``pixel`` counts row by row; ``tile`` is ``pixel // P``, as the array takes a pointwise layer's pixels."""

    layer: str
    tensor: str
    image: int
    tile: int
    pixel: int
    row: int
    column: int
    channel: int
    first: int
    second: int


@dataclass(frozen=True, kw_only=True)
class TensorDifference:
    """One tensor in both executions: how many of its ``size`` codes differ, and by how much at most."""

    layer: str
    tensor: str
    size: int
    differing: int
    largest: int


@dataclass(frozen=True, kw_only=True)
class CodeComparison:
    """Two executions of a network in codes.

    Attributes
    ----------
    names
        Of the executions.
    tensors
        All that both have, in the graph's order.
    mismatch
        The first code that differs in the first tensor that does; None if all are equal.
    """

    names: tuple[str, str]
    tensors: tuple[TensorDifference, ...]
    mismatch: Mismatch | None

    @property
    def equal(self) -> bool:
        """Whether no code differs."""
        return self.mismatch is None

    def as_json(self) -> dict[str, Any]:
        """The comparison for a script."""
        return {"kind": "codes", "equal": self.equal, **asdict(self)}

    def describe(self) -> str:
        """One line that says all about the first difference, or that there is none."""
        first, second = self.names
        codes = sum(tensor.size for tensor in self.tensors)
        if self.mismatch is None:
            return f"{first} and {second} are equal: {codes} codes in {len(self.tensors)} tensors"
        place = self.mismatch
        differing = next(tensor for tensor in self.tensors if tensor.tensor == place.tensor)
        return (
            f"{first} and {second} differ first in layer {place.layer}, tile {place.tile}, pixel {place.pixel} (row {place.row}, column "
            f"{place.column}), channel {place.channel}, image {place.image}: {place.first} on {first}, {place.second} on {second}; "
            f"{differing.differing} of {differing.size} codes of the layer differ"
        )


@dataclass(frozen=True, kw_only=True)
class TensorNoise:
    """One tensor in floating point: signal-to-noise ratio in dB (infinite if equal), and the largest difference."""

    layer: str
    tensor: str
    sqnr: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class FloatComparison:
    """Two executions of a network in floating point; the first is the signal.

    Attributes
    ----------
    names
        Of the executions.
    tensors
        All that both have, in the graph's order.
    agreement
        Share of the images, 0..1, whose largest output is the same; None where the network's output is not compared.
    """

    names: tuple[str, str]
    tensors: tuple[TensorNoise, ...]
    agreement: float | None

    def reaches(self, limit: float) -> bool:
        """Whether every tensor's ratio is at least ``limit`` dB."""
        return all(tensor.sqnr >= limit for tensor in self.tensors)

    def as_json(self) -> dict[str, Any]:
        """The comparison for a script; an infinite ratio is null."""
        values = asdict(self)
        for tensor in values["tensors"]:
            tensor["sqnr"] = tensor["sqnr"] if np.isfinite(tensor["sqnr"]) else None
        return {"kind": "floats", **values}


def compare_codes(
    graph: IntegerGraph, first: Mapping[str, Integers], second: Mapping[str, Integers], *, names: tuple[str, str], pixels: int
) -> CodeComparison:
    """Compare the tensors that both executions have.

    Parameters
    ----------
    graph
        Gives the order, and the layer that makes each tensor. Inputs are compared too, as layer ``input``.
    first, second
        Codes by tensor name, ``[height, width, channels]`` or ``[batch, height, width, channels]``.
    names
        Of the two executions, for messages.
    pixels
        P of the machine: pixels in a tile.

    :class:`ValueError` if they share no tensor or one has another shape.
    """
    differences: list[TensorDifference] = []
    mismatch: Mismatch | None = None
    for layer, tensor in _shared(graph, first, second):
        one, other = _batched(first[tensor]), _batched(second[tensor])
        if one.shape != other.shape:
            raise ValueError(f"{tensor} must have one shape, not {list(one.shape)} on {names[0]} and {list(other.shape)} on {names[1]}")
        places = np.argwhere(one != other)
        largest = int(np.abs(one - other).max(initial=0))
        differences.append(TensorDifference(layer=layer, tensor=tensor, size=one.size, differing=len(places), largest=largest))
        if len(places) and mismatch is None:
            image, row, column, channel = (int(number) for number in places[0])
            pixel = row * one.shape[2] + column
            mismatch = Mismatch(
                layer=layer,
                tensor=tensor,
                image=image,
                tile=pixel // pixels,
                pixel=pixel,
                row=row,
                column=column,
                channel=channel,
                first=int(one[image, row, column, channel]),
                second=int(other[image, row, column, channel]),
            )
    return CodeComparison(names=names, tensors=tuple(differences), mismatch=mismatch)


def compare_floats(
    graph: IntegerGraph, first: Mapping[str, Floats], second: Mapping[str, Floats], *, names: tuple[str, str]
) -> FloatComparison:
    """Compare the tensors that both executions have; shapes as for :func:`compare_codes`, values in the network's own units."""
    tensors = []
    for layer, tensor in _shared(graph, first, second):
        signal, other = np.asarray(first[tensor], dtype=np.float64), np.asarray(second[tensor], dtype=np.float64)
        largest = float(np.abs(other - signal).max(initial=0.0))
        tensors.append(TensorNoise(layer=layer, tensor=tensor, sqnr=sqnr(signal, other), largest=largest))
    classes = [_classes(values[graph.outputs[0]]) for values in (first, second) if graph.outputs[0] in values]
    agreement = float(np.mean(classes[0] == classes[1])) if len(classes) == 2 else None
    return FloatComparison(names=names, tensors=tuple(tensors), agreement=agreement)


def sqnr(signal: Floats, other: Floats) -> float:
    """10 log10 of the signal's power over that of the difference, in dB."""
    noise = float(np.square(other - signal).sum())
    power = float(np.square(signal).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(power / noise)) if power else float("-inf")


def _classes(values: Floats) -> npt.NDArray[np.intp]:
    batched = _batched(np.asarray(values))
    return np.asarray(batched.reshape(len(batched), -1).argmax(axis=1))


def _shared(graph: IntegerGraph, first: Mapping[str, Any], second: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Layer and tensor, in graph order, of the tensors in both."""
    order = [("input", name) for name in graph.inputs] + [(node.name, node.output) for node in graph.nodes]
    shared = [(layer, tensor) for layer, tensor in order if tensor in first and tensor in second]
    if not shared:
        raise ValueError(f"the executions must share a tensor, not {', '.join(first) or 'none'} and {', '.join(second) or 'none'}")
    return shared


def _batched(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values[None] if values.ndim == 3 else values
