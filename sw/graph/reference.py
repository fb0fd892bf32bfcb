"""A whole integer graph on batches of images, exactly: what the accelerator must give, without tiles, addresses or instructions."""

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tercel.sw.graph.integer_graph import Activation, ConcatNode, GraphError, IntegerGraph
from tercel.sw.graph.reference_numpy import Codes, run_layer
from tercel.sw.graph.verify import verify

Engine = Literal["torch", "numpy"]
_WORTH_TORCH = 2_000_000_000
"""Multiply-accumulates for which the import of PyTorch pays."""
_AT_ONCE = 1 << 21
"""Elements of the largest tensor that are computed at a time: a few images, so that tensors stay near the cores."""


def run_reference(
    graph: IntegerGraph, inputs: Mapping[str, npt.NDArray[np.integer[Any]]], *, keep: bool = False, engine: Engine | None = None
) -> dict[str, Codes]:
    """Output codes of a batch of images.

    Parameters
    ----------
    graph
        It is verified first, so that no sum can leave 32 bits.
    inputs
        ``[batch, height, width, channels]`` codes of each input, of any integer type.
    keep
        Return every tensor instead of the outputs alone.
    engine
        ``torch`` or ``numpy``; both give the same codes. None takes PyTorch where it is loaded or worth loading.

    Returns
    -------
    Tensors by name, ``[batch, height, width, channels]``, uint8 or int8 by their sign: convert them before any arithmetic.
    :class:`GraphError` for an input that is missing, unknown, of another shape or out of range.
    """
    verify(graph)
    stored = dict(_checked_inputs(graph, inputs))
    batch = len(stored[graph.inputs[0]])
    if engine is None:
        worth = graph.macs * batch > _WORTH_TORCH and find_spec("torch") is not None
        engine = "torch" if worth or "torch" in sys.modules else "numpy"
    run = _torch_runner(graph, keep) if engine == "torch" else _numpy_runner(graph, keep)
    size = max(1, _AT_ONCE // max(prod(tensor.shape) for tensor in graph.tensors.values()))
    names = list(graph.tensors) if keep else list(dict.fromkeys(graph.outputs))
    results = {name: _empty(graph.tensors[name], batch) for name in names}
    for start in range(0, batch, size):
        part = run({name: codes[start : start + size] for name, codes in stored.items()})
        for name in names:
            results[name][start : start + size] = part[name]
    return results


Runner = Callable[[dict[str, Codes]], dict[str, Codes]]


def _empty(tensor: Activation, batch: int) -> Codes:
    return np.empty((batch, *tensor.shape), dtype=np.int8) if tensor.signed else np.empty((batch, *tensor.shape), dtype=np.uint8)


def _numpy_runner(graph: IntegerGraph, keep: bool) -> Runner:
    def run(codes: dict[str, Codes]) -> dict[str, Codes]:
        tensors = dict(codes)
        for node, unneeded in _schedule(graph, keep):
            if isinstance(node, ConcatNode):
                tensors[node.output] = np.concatenate([tensors[name] for name in node.inputs], axis=3)
            else:
                residual = None if node.residual is None else tensors[node.residual]
                tensors[node.output] = run_layer(node, tensors[node.input], residual)
            for name in unneeded:
                del tensors[name]
        return tensors

    return run


def _torch_runner(graph: IntegerGraph, keep: bool) -> Runner:
    import torch

    from tercel.sw.graph.reference_torch import TorchLayer, exact_kernels, from_stored, to_stored

    layers = {layer.name: TorchLayer(layer) for layer in graph.layers()}

    def run(codes: dict[str, Codes]) -> dict[str, Codes]:
        with exact_kernels():
            tensors = {name: from_stored(values, graph.tensors[name].zero_point) for name, values in codes.items()}
            for node, unneeded in _schedule(graph, keep):
                if isinstance(node, ConcatNode):
                    tensors[node.output] = torch.cat([tensors[name] for name in node.inputs], dim=3)
                else:
                    residual = None if node.residual is None else tensors[node.residual]
                    tensors[node.output] = layers[node.name].run(tensors[node.input], residual)
                for name in unneeded:
                    del tensors[name]
            activations = graph.tensors
            return {name: to_stored(x, activations[name].zero_point, signed=activations[name].signed) for name, x in tensors.items()}

    return run


def _schedule(graph: IntegerGraph, keep: bool) -> Iterator[tuple[Any, list[str]]]:
    """Each node with the tensors that nothing needs after it."""
    last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    for index, node in enumerate(graph.nodes):
        done = (name for name in dict.fromkeys(node.inputs) if last_use[name] == index and name not in graph.outputs)
        yield node, [] if keep else list(done)


def _checked_inputs(graph: IntegerGraph, inputs: Mapping[str, npt.NDArray[np.integer[Any]]]) -> Iterator[tuple[str, Codes]]:
    if set(inputs) != set(graph.inputs):
        raise GraphError(f"inputs must be {', '.join(graph.inputs)}, not {', '.join(inputs) or 'none'} (name each tensor once)")
    batch = len(next(iter(inputs.values())))
    for name, codes in inputs.items():
        tensor = graph.tensors[name]
        if codes.shape != (batch, *tensor.shape):
            raise GraphError(f"{name} must have shape {(batch, *tensor.shape)}, not {codes.shape} (batch, height, width, channels)")
        yield name, stored_codes(tensor, codes)


def stored_codes(tensor: Activation, codes: npt.NDArray[np.integer[Any]]) -> Codes:
    """Codes as uint8 or int8; :class:`GraphError` for a code out of the tensor's range."""
    low, high = (-128, 127) if tensor.signed else (0, 255)
    if codes.size and (codes.min() < low or codes.max() > high):
        raise GraphError(f"{tensor.name} must hold codes in {low}..{high}, not {codes.min()}..{codes.max()} (quantize it first)")
    return codes.astype(np.int8) if tensor.signed else codes.astype(np.uint8)
