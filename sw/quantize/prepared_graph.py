"""A graph with observers, as ``prepare_pt2e`` leaves it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from tercel.sw.quantize.observers import ActivationObserver, PerChannelWeightObserver
from tercel.sw.quantize.plan import constant, module_path


@dataclass(frozen=True)
class WeightedLayer:
    """A convolution or linear layer of a prepared graph, its constants and observers.

    ``input_node`` and ``rounding_node`` call the observers of its input and of its weights.
    """

    node: Node
    graph_module: GraphModule
    activation: ActivationObserver
    weight_observer: PerChannelWeightObserver
    input_node: Node
    rounding_node: Node
    weight_node: Node
    bias_node: Node

    @property
    def name(self) -> str:
        """Path of its module."""
        return module_path(self.node)

    @property
    def weight(self) -> Tensor:
        """``[outputs, ...]``."""
        return constant(self.graph_module, self.weight_node)

    @property
    def bias(self) -> Tensor:
        """``[outputs]``."""
        return constant(self.graph_module, self.bias_node)

    def replace_bias(self, value: Tensor) -> None:
        """Put another bias in its place."""
        setattr(self.graph_module, str(self.bias_node.target), value)

    def replace_weight(self, value: Tensor) -> None:
        """Put other weights in their place."""
        setattr(self.graph_module, str(self.weight_node.target), value)

    def scale_outputs(self, factors: Tensor) -> None:
        """Make each output channel ``factors[c]`` times as large (positive, float32 ``[outputs]``), its batch norm's statistics too."""
        self.replace_weight(self.weight * factors.reshape(-1, *[1] * (self.weight.dim() - 1)))
        self.replace_bias(self.bias * factors)
        if (known := norm_statistics(self.node)) is not None:
            keep_norm_statistics(self.node, *(value * factors for value in known))

    @property
    def geometry(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
        """Stride, padding and dilation of a convolution's rows and columns, and its groups."""
        defaults: tuple[Any, ...] = (None, None, None, [1, 1], [0, 0], [1, 1], 1)
        arguments: tuple[Any, ...] = (*self.node.args, *defaults[len(self.node.args) :])
        return tuple(arguments[3]), tuple(arguments[4]), tuple(arguments[5]), arguments[6]

    @property
    def group_count(self) -> int:
        """Groups of a convolution; 1 of a linear layer."""
        return 1 if self.weight.dim() == 2 else self.geometry[3]

    @property
    def bias_scales(self) -> Tensor:
        """Scale of a bias code, ``[outputs]``."""
        return self.activation.calculate_qparams()[0] * self.weight_observer.calculate_qparams()[0]


_STATISTICS = "tercel_norm_statistics"


def keep_norm_statistics(node: Node, mean: Tensor, std: Tensor) -> None:
    """Note, with a convolution or linear layer, mean and standard deviation of its output channels by its batch norm."""
    node.meta[_STATISTICS] = mean.double(), std.double()


def norm_statistics(node: Node) -> tuple[Tensor, Tensor] | None:
    """What :func:`keep_norm_statistics` noted, float64 ``[outputs]`` each, or None."""
    known: tuple[Tensor, Tensor] | None = node.meta.get(_STATISTICS)
    return known


def observer(graph_module: GraphModule, node: object) -> object:
    """The module that a node calls, None if it calls none."""
    return graph_module.get_submodule(str(node.target)) if isinstance(node, Node) and node.op == "call_module" else None


def weighted_layers(graph_module: GraphModule) -> Iterator[WeightedLayer]:
    """The layers whose weights are observed, in order."""
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or len(node.args) < 3:
            continue
        activation, weight = (observer(graph_module, argument) for argument in node.args[:2])
        if isinstance(activation, ActivationObserver) and isinstance(weight, PerChannelWeightObserver):
            data, weights, bias = node.args[:3]
            yield WeightedLayer(node, graph_module, activation, weight, data, weights, weights.args[0], bias.args[0])


def name_observers(graph_module: GraphModule) -> None:
    """Tell each activation observer whose output it watches, for messages."""
    for node in graph_module.graph.nodes:
        watched = observer(graph_module, node)
        if isinstance(watched, ActivationObserver) and watched.where == "a tensor":
            source = node.args[0]
            watched.where = "the input" if source.op == "placeholder" else f"module {module_path(source)!r} ({source.target})"
