"""From what the network takes to codes, and from codes to what it returns, through the operators on the host."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from tercel.sw.graph.codes import from_codes, to_codes
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.host.host_graph import HostGraph
from tercel.sw.host.operators import HostError, Values
from tercel.sw.layer_spec import Integers


def check_ends(graph: IntegerGraph, head: HostGraph | None, tail: HostGraph | None) -> None:
    """:class:`~tercel.sw.host.operators.HostError` unless ``head`` gives all inputs of ``graph``, and ``tail`` reads its outputs."""
    if head is not None:
        if head.outputs != graph.inputs:
            raise HostError(_text("outputs of the host's part before the layers", graph.inputs, head.outputs))
        for name in head.outputs:
            _check_size(graph, name, head.types[name].shape)
            if head.types[name].whole:
                raise HostError(f"{name} must be real numbers, not whole ones (the host's part before the layers gives it)")
    if tail is not None:
        names = tuple(entry.name for entry in tail.inputs)
        if not set(names) <= set(graph.outputs):
            raise HostError(_text("inputs of the host's part after the layers", graph.outputs, names))
        for entry in tail.inputs:
            _check_size(graph, entry.name, entry.shape)


def _check_size(graph: IntegerGraph, name: str, shape: tuple[int, ...]) -> None:
    height, width, channels = graph.tensors[name].shape
    if prod(shape) != height * width * channels:
        raise HostError(f"{name} must have {height * width * channels} elements on the host, not {prod(shape)} (as in the layers)")


def _text(what: str, wanted: tuple[str, ...], found: tuple[str, ...]) -> str:
    return f"{what} must be {', '.join(wanted)}, not {', '.join(found) or 'none'} (tensors of the layers)"


def enter(head: HostGraph, graph: IntegerGraph, values: Mapping[str, Values]) -> dict[str, Integers]:
    """Codes ``[batch, height, width, channels]`` of the graph's inputs.

    ``values`` are the network's inputs by name, ``[batch, *shape]``. :class:`~tercel.sw.host.operators.HostError` if the operators make
    something of them that is not finite.
    """
    codes = {}
    for name, made in head.run(values).items():
        if not np.isfinite(made).all():
            raise HostError(f"{name} must be finite, not {made[~np.isfinite(made)][0]} (what the operators on the host make of the input)")
        height, width, channels = graph.tensors[name].shape
        codes[name] = to_codes(graph.tensors[name], np.moveaxis(made.reshape(len(made), channels, height, width), 1, -1))
    return codes


def leave(tail: HostGraph, graph: IntegerGraph, codes: Mapping[str, npt.NDArray[np.integer[Any]]]) -> dict[str, Values]:
    """What the network returns, by name, from the codes ``[batch, height, width, channels]`` of the graph's outputs."""
    values = {}
    for entry in tail.inputs:
        real = np.moveaxis(from_codes(graph.tensors[entry.name], codes[entry.name]), -1, 1)
        values[entry.name] = real.reshape(len(real), *entry.shape)
    return tail.run(values)
