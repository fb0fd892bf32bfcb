"""Activations by learned thresholds onto evenly spaced levels."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

import tercel.sw.multi_threshold  # noqa: F401  (registers the operator)
from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.training.activation_quantizer import ActivationQuantizer
from tercel.sw.training.n2uq.generalized_ste import levels, thresholds
from tercel.sw.training.uniform_activations import first_scale

SHORTEST = 1e-3
"""Least width of a segment, in units of ``input_scale`` times the input."""
WIDTHS = (2, 3, 4)
"""Bits that activations and weights may have."""


class LearnedThresholds(ActivationQuantizer):
    """``output_scale * 2/N * (#{i : input_scale * x > T_i} - z)`` with N = 2**bits - 1 learned thresholds.

    The thresholds are the middles of N segments: the first begins at ``start`` (s), their widths are ``lengths`` (a_i, at least 0.001),
    both in units of ``input_scale`` (beta1) times the input; ``output_scale`` is beta2. Gradients are those of
    :class:`~tercel.sw.training.n2uq.generalized_ste.GeneralizedSTE`. All four learn, at a tenth of the other parameters' rate.

    z, the code of 0.0, is 0 in the method. Here it is fixed at the start to what suits the values: behind a ReLU that is 0, but a sum of
    codes that convolutions read as it is has values below zero too.

    Parameters
    ----------
    values
        Values of the tensor, to start from: the thresholds are first those of rounding to even steps over the range that loses the least
        squared error.
    bits
        2, 3 or 4.
    """

    counts_thresholds = True
    rates: ClassVar[Mapping[str, float]] = dict.fromkeys(("start", "lengths", "input_scale", "output_scale"), 0.1)

    def __init__(self, values: Tensor, *, bits: int) -> None:
        if bits not in WIDTHS:
            raise QuantizeError(f"bits must be 2, 3 or 4, not {bits} (learned thresholds: the machine compares with 15 at most)")
        super().__init__(bits=bits)
        scale, zero_point = first_scale(values, bits=bits)
        self.register_buffer("offset", torch.tensor([float(zero_point)]))
        self.start = nn.Parameter(torch.tensor([-zero_point * self.step]))
        self.lengths = nn.Parameter(torch.full((self.largest_code,), self.step))
        self.input_scale = nn.Parameter(torch.tensor([self.step / scale]))
        self.output_scale = nn.Parameter(torch.tensor([scale / self.step]))

    @property
    def step(self) -> float:
        """Distance of two levels before ``output_scale``."""
        return 2 / self.largest_code

    @property
    def scale(self) -> float:
        """``output_scale * 2/N``."""
        self._check("output_scale", self.output_scale)
        return float(self.output_scale.detach() * self.step)

    @property
    def zero_point(self) -> int:
        """The code of 0.0."""
        assert isinstance(self.offset, Tensor)
        return int(self.offset)

    def get_lengths(self) -> Tensor:
        """The widths of the segments, none below 0.001."""
        return torch.where(self.lengths > SHORTEST, self.lengths, SHORTEST)

    @torch.no_grad()
    def input_thresholds(self) -> Tensor:
        """``[N]`` thresholds on the input itself, ascending. ``QuantizeError`` unless ``input_scale`` is positive."""
        self._check("input_scale", self.input_scale)
        return thresholds(self.start, self.get_lengths()) / self.input_scale

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        assert isinstance(self.offset, Tensor)
        codes = levels(self.input_scale * values, self.start, self.get_lengths())
        return (codes - self.offset) * self.step * self.output_scale

    def insert_codes(self, graph_module: GraphModule, value: Node) -> Node:
        """A ``tercel::multi_threshold``; see the base class."""
        names = (f"thresholds_{index}" for index in range(len(list(graph_module.buffers())) + 1))
        name = next(name for name in names if not hasattr(graph_module, name))
        graph_module.register_buffer(name, self.input_thresholds())
        table = graph_module.graph.get_attr(name)
        node: Node = graph_module.graph.call_function(torch.ops.tercel.multi_threshold.default, (value, table))
        node.meta.update({key: value.meta[key] for key in ("nn_module_stack", "stack_trace") if key in value.meta})
        return node

    def _check(self, name: str, value: Tensor) -> None:
        if not float(value.detach()) > 0:
            raise QuantizeError(f"{name} must be positive, not {float(value.detach()):.4g} (train at a lower rate; see parameter_groups)")
