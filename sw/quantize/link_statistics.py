"""What flows between two linked layers, channel by channel: on calibration images, or as batch norms let expect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from tercel.sw.quantize.links import Link
from tercel.sw.quantize.normal import ClippedNormal

BINS = 256


@dataclass(frozen=True)
class LinkStatistics:
    """Of one link's first layer.

    Parameters
    ----------
    shares
        How often a channel's output, before it is clamped, falls into each of ``BINS`` bins of equal width from ``-end`` to ``end``; what
        lies outside counts in the outermost. Rows of ``[channels, BINS]`` add up to 1.
    end
        Twice the largest magnitude that the output's codes hold.
    input_variance
        Of the layer's input channels, ``[inputs]``.
    """

    shares: Tensor
    end: float
    input_variance: Tensor

    @property
    def centres(self) -> Tensor:
        """Of the bins, ``[BINS]``."""
        return (torch.arange(BINS, dtype=torch.float64) + 0.5) * (2 * self.end / BINS) - self.end


def _end(link: Link) -> float:
    low, high = link.code_range
    return 2 * max(high, -low)


class _Counting(Interpreter):
    """Runs a prepared graph without its observers; histograms of outputs, and count, sum and sum of squares of inputs."""

    def __init__(self, graph_module: GraphModule, links: Sequence[Link]) -> None:
        super().__init__(graph_module)
        self.ends = {link.layer.node: _end(link) for link in links}
        self.counts = {link.layer.node: torch.zeros(len(link.layer.weight), BINS, dtype=torch.float64) for link in links}
        self.inputs = {link.layer.input_node: torch.zeros(3, 1, dtype=torch.float64) for link in links}

    def run_node(self, n: Node) -> Any:
        value = self.env[n.all_input_nodes[0]] if n.op == "call_module" else super().run_node(n)
        if n in self.ends:
            counts, end = self.counts[n], self.ends[n]
            bins = ((value[0].flatten(1) + end) * (BINS / (2 * end))).clamp(0, BINS - 1).to(torch.int64)
            bins += torch.arange(len(counts))[:, None] * BINS
            counts += torch.bincount(bins.flatten(), minlength=counts.numel()).reshape(counts.shape)
        if n in self.inputs:
            wide = value[0].flatten(1).to(torch.float64) if value.dim() > 2 else value.T.to(torch.float64)
            sums = wide.sum(dim=1), wide.square().sum(dim=1)
            self.inputs[n] = self.inputs[n] + torch.stack([torch.full_like(sums[0], wide.shape[1]), *sums])
        return value


@torch.no_grad()
def measure_links(graph_module: GraphModule, links: Sequence[Link], images: Sequence[Tensor]) -> Mapping[Node, LinkStatistics]:
    """By layer, on ``images``: inputs of the calibrated graph, each of batch size 1."""
    counting = _Counting(graph_module, links)
    for image in images if links else ():
        counting.run(image)
    found = {}
    for link in links:
        node = link.layer.node
        count, total, squares = counting.inputs[link.layer.input_node]
        shares = counting.counts[node] / counting.counts[node].sum(dim=1, keepdim=True)
        found[node] = LinkStatistics(shares, counting.ends[node], (squares / count - (total / count).square()).clamp(min=0))
    return found


def expect_links(found: Mapping[Node, ClippedNormal], links: Sequence[Link]) -> Mapping[Node, LinkStatistics]:
    """By layer, where the distribution of every tensor is known."""
    expected = {}
    for link in links:
        node, end = link.layer.node, _end(link)
        edges = torch.linspace(-end, end, BINS + 1, dtype=torch.float64)
        below = found[node].share_below(edges)
        below[:, 0], below[:, -1] = 0.0, 1.0
        expected[node] = LinkStatistics(below.diff(dim=1), end, found[link.layer.input_node].moments()[1].square())
    return expected
