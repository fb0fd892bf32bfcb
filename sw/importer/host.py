"""Operators at either end of a network that run in PyTorch on the host."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import Graph, GraphModule, Node

from tercel.sw.graph.codes import from_codes, to_codes
from tercel.sw.graph.integer_graph import Activation
from tercel.sw.layer_spec import Integers


def host_module(outputs: Sequence[Node], entries: Sequence[Node], constants: Mapping[Node, torch.Tensor]) -> GraphModule:
    """The part of a captured graph between ``entries`` and ``outputs`` as a module that takes the one and returns the other."""
    graph, attributes = Graph(), torch.nn.Module()
    copies: dict[Node, Node] = {entry: graph.placeholder(f"entry{index}") for index, entry in enumerate(entries)}

    def copy(node: Node) -> Node:
        if node not in copies:
            if node in constants:
                name = f"constant{len(copies)}"
                attributes.register_buffer(name, constants[node])
                copies[node] = graph.get_attr(name)
            else:
                copies[node] = graph.node_copy(node, copy)
        return copies[node]

    graph.output(tuple(copy(node) for node in outputs))
    return GraphModule(attributes, graph)


@dataclass(frozen=True)
class HostHead:
    """From the network's float inputs to the codes of the graph's inputs, through operators on the host."""

    module: Callable[..., tuple[torch.Tensor, ...]]
    tensors: tuple[Activation, ...]

    def __call__(self, *images: torch.Tensor) -> dict[str, Integers]:
        """``images`` as the network takes them, ``[batch, channels, height, width]``; codes ``[batch, height, width, channels]``."""
        with torch.no_grad():
            values = self.module(*images)
        return {tensor.name: to_codes(tensor, channels_last(value)) for tensor, value in zip(self.tensors, values, strict=True)}


@dataclass(frozen=True)
class HostTail:
    """From the codes of the graph's outputs to what the network returns, through operators on the host."""

    module: Callable[..., tuple[torch.Tensor, ...]]
    tensors: tuple[Activation, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __call__(self, outputs: Mapping[str, npt.NDArray[np.integer[Any]]]) -> tuple[torch.Tensor, ...]:
        """``outputs`` are codes ``[batch, height, width, channels]`` by tensor; the result is what the captured network returns."""
        values = [
            torch.from_numpy(np.ascontiguousarray(from_codes(tensor, outputs[tensor.name]).transpose(0, 3, 1, 2))).float().flatten(1)
            for tensor in self.tensors
        ]
        with torch.no_grad():
            return self.module(*(value.reshape(len(value), *shape) for value, shape in zip(values, self.shapes, strict=True)))


def channels_last(value: torch.Tensor) -> npt.NDArray[np.floating[Any]]:
    """``[batch, channels, height, width]`` or ``[batch, features]`` as ``[batch, height, width, channels]``."""
    array = value.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array[:, None, None, :]
