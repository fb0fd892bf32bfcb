"""A whole integer graph on batches of images, exactly: what the accelerator must give, without tiles, addresses or instructions."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tercel.sw.graph.integer_graph import Activation, ConcatNode, GraphError, IntegerGraph
from tercel.sw.graph.reference_numpy import Codes, run_layer
from tercel.sw.graph.verify import verify


def run_reference(graph: IntegerGraph, inputs: Mapping[str, npt.NDArray[np.integer[Any]]], *, keep: bool = False) -> dict[str, Codes]:
    """Output codes of a batch of images.

    Parameters
    ----------
    graph
        It is verified first, so that no sum can leave 32 bits.
    inputs
        ``[batch, height, width, channels]`` codes of each input, of any integer type.
    keep
        Return every tensor instead of the outputs alone.

    Returns
    -------
    Tensors by name, ``[batch, height, width, channels]``, uint8 or int8 by their sign. :class:`GraphError` for an input that is
    missing, unknown, of another shape or out of range.
    """
    verify(graph)
    tensors = dict(_checked_inputs(graph, inputs))
    last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    for index, node in enumerate(graph.nodes):
        if isinstance(node, ConcatNode):
            tensors[node.output] = np.concatenate([tensors[name] for name in node.inputs], axis=3)
        else:
            tensors[node.output] = run_layer(node, tensors[node.input], None if node.residual is None else tensors[node.residual])
        for name in set(node.inputs):
            if not keep and last_use[name] == index and name not in graph.outputs:
                del tensors[name]
    return tensors if keep else {name: tensors[name] for name in graph.outputs}


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
