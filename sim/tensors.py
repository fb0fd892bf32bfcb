"""Tensors between the user and the machine: NCHW values in, codes inside, values out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tercel.sw.graph.codes import from_codes, to_codes
from tercel.sw.graph.integer_graph import Activation, IntegerGraph
from tercel.sw.host import HostGraph, HostInput
from tercel.sw.layer_spec import Integers

Floats = npt.NDArray[np.float64]


class InputError(ValueError):
    """A tensor that does not fit the network's input. The message names the input, the shape or range, and what was given."""


def input_codes(graph: IntegerGraph, x: Any) -> dict[str, Integers]:
    """Codes ``[batch, height, width, channels]`` by input name.

    Parameters
    ----------
    graph
        The network.
    x
        An array or tensor for its only input, or a mapping from input names to such. Floating point is NCHW or CHW and in the network's
        own units (normalised as in training); whole numbers are codes, NHWC or HWC. Where operators run on the host before the layers,
        floats are what those take, by the names of the network's inputs; codes are the machine's still, by the names of the graph's.
    """
    given = _by_name(x, graph.inputs)
    return _one_batch({name: _codes(graph.tensors[name], _array(value)) for name, value in given.items()})


def network_values(head: HostGraph, x: Any) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Floats ``[batch, *shape]`` by the names of the inputs of ``head``; ``x`` as for :func:`input_codes`, in floating point."""
    given = _by_name(x, tuple(entry.name for entry in head.inputs))
    return _one_batch({entry.name: _values(entry, _array(given[entry.name])) for entry in head.inputs})


def are_codes(x: Any) -> bool:
    """Whether ``x`` holds whole numbers, in all of its tensors."""
    return all(np.issubdtype(_array(value).dtype, np.integer) for value in (x.values() if isinstance(x, Mapping) else (x,)))


def input_values(graph: IntegerGraph, x: Any, *, head: HostGraph | None = None) -> npt.NDArray[np.floating[Any]]:
    """The only input in floating point, NCHW: floats as they are, codes as what they stand for; ``head`` is before the layers."""
    if head is not None:
        if are_codes(x) or len(head.inputs) != 1:
            raise InputError("x must be one tensor of floats, not codes or several (operators run on the host before the layers)")
        return next(iter(network_values(head, x).values()))
    if len(graph.inputs) != 1:
        raise InputError(f"x must be one tensor for floating point, not {len(graph.inputs)} (compare in codes)")
    given = _array(x[graph.inputs[0]] if isinstance(x, Mapping) else x)
    if np.issubdtype(given.dtype, np.integer):
        return np.moveaxis(from_codes(graph.tensors[graph.inputs[0]], input_codes(graph, x)[graph.inputs[0]]), -1, 1)
    return given[None] if given.ndim == 3 else given


def output_values(graph: IntegerGraph, codes: Mapping[str, Integers]) -> dict[str, Floats]:
    """What batched codes stand for, in PyTorch's layout: NCHW, or ``[batch, channels]`` for a vector."""
    return {name: values_of(graph.tensors[name], tensor) for name, tensor in codes.items()}


def values_of(activation: Activation, codes: Integers) -> Floats:
    """As :func:`output_values`, for one tensor."""
    values = np.moveaxis(from_codes(activation, codes), -1, 1)
    return values.reshape(values.shape[:2]) if activation.shape[:2] == (1, 1) else values


def _array(value: Any) -> npt.NDArray[Any]:
    detach = getattr(value, "detach", None)
    return np.asarray(value if detach is None else detach().cpu().numpy())


def _by_name(x: Any, names: tuple[str, ...]) -> dict[str, Any]:
    values = dict(x) if isinstance(x, Mapping) else {names[0]: x}
    if set(values) != set(names):
        raise InputError(f"x must hold {', '.join(names)}, not {', '.join(values) or 'nothing'} (a mapping by the inputs' names)")
    return values


def _one_batch(tensors: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    sizes = {name: len(value) for name, value in tensors.items()}
    if len(set(sizes.values())) != 1:
        raise InputError(f"x must have one batch size, not {sizes} (give every input as many images)")
    return tensors


def _values(entry: HostInput, values: npt.NDArray[Any]) -> npt.NDArray[np.floating[Any]]:
    given = list(values.shape)
    if values.ndim == len(entry.shape):
        values = values[None]
    if values.shape[1:] != entry.shape or not len(values):
        raise InputError(f"{entry.name} must have shape {list(entry.shape)} (of values) with or without a batch, not {given}")
    _finite(entry.name, values)
    return values.astype(np.float32)


def _finite(name: str, values: npt.NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"{name} must be finite, not {values[~np.isfinite(values)][0]} (look for divisions by 0 before)")


def _codes(activation: Activation, values: npt.NDArray[Any]) -> Integers:
    height, width, channels = activation.shape
    whole = np.issubdtype(values.dtype, np.integer)
    shape = (height, width, channels) if whole else (channels, height, width)
    layout = "height, width, channels of codes" if whole else "channels, height, width of values"
    given = list(values.shape)
    if not whole and (height, width) == (1, 1) and values.ndim <= 2 and values.shape[-1:] == (channels,):
        values = values.reshape(-1, channels, 1, 1)
    if values.ndim == 3:
        values = values[None]
    if values.ndim != 4 or values.shape[1:] != shape or not len(values):
        raise InputError(f"{activation.name} must have shape {list(shape)} ({layout}) with or without a batch, not {given}")
    if not whole:
        _finite(activation.name, values)
        return to_codes(activation, np.moveaxis(values, 1, -1))
    low, high = (-128, 127) if activation.signed else (0, 255)
    if values.min() < low or values.max() > high:
        raise InputError(f"{activation.name} must hold codes in {low}..{high}, not {values.min()}..{values.max()} (or give floats)")
    return values.astype(np.int64)
