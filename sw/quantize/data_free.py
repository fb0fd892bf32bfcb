"""Quantization without images: ranges of activations and corrections of biases from what batch norms tell of the channels.

See :mod:`~tercel.sw.quantize.channel_statistics` for what is assumed.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from tercel.sw.quantize.channel_statistics import distributions, kernel_sums, read_norms
from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.quantize.evidence import Evidence, Report
from tercel.sw.quantize.link_statistics import LinkStatistics, expect_links
from tercel.sw.quantize.links import Link
from tercel.sw.quantize.observers import ActivationObserver
from tercel.sw.quantize.prepared_graph import WeightedLayer, observer, weighted_layers
from tercel.sw.quantize.weight_scales import BIAS_LIMIT, round_by_scheme

REACH = 3.0
"""Standard deviations from the mean where a channel counts as ending, when it is asked whether it stays below a clamp. As a range of codes
this would be narrow; here, a wide one would let hardly a channel move, and what is lost is a value in a thousand."""


class NormEvidence(Evidence):
    """Batch norms.

    Parameters
    ----------
    example
        An input of the network's shape; its values do not count.
    input_range
        Smallest and largest value of an input, zero between them.
    """

    def __init__(self, example: Tensor, *, input_range: tuple[float, float]) -> None:
        low, high = input_range
        if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high and low < high):
            raise QuantizeError(f"input_range must be finite and hold zero, not {low}..{high} (black and white when normalised)")
        self.example, self.input_range = example, (float(low), float(high))

    def read(self, captured: GraphModule) -> None:
        """Mean and deviation of the channels behind each batch norm."""
        read_norms(captured)

    def maxima(self, prepared: GraphModule, links: Sequence[Link]) -> Mapping[Node, Tensor]:
        """What few values exceed."""
        found = distributions(prepared, input_range=self.input_range)
        return {link.layer.node: (found[link.layer.node].mean + REACH * found[link.layer.node].std).float() for link in links}

    def statistics(self, prepared: GraphModule, links: Sequence[Link]) -> Mapping[Node, LinkStatistics]:
        """What is expected."""
        return expect_links(distributions(prepared, input_range=self.input_range), links)

    def observe(self, prepared: GraphModule, *, report: Report) -> None:
        """Ranges that hold what is expected of every channel, and all of the input's."""
        found = distributions(prepared, input_range=self.input_range)
        for node in prepared.graph.nodes:
            watched = observer(prepared, node)
            if isinstance(watched, ActivationObserver):
                lowest, highest = found[node.args[0]].ends()
                watched.expect(float(lowest.min()), float(highest.max()))
        report("calibrate")(1, 1)

    @torch.no_grad()
    def round_weights(self, prepared: GraphModule, *, bias_correction: bool, report: Report) -> None:
        """Round each weight by itself, as the layer's scheme does, and correct biases for the mean of the outputs' errors.

        The mean error of an output is that of its weights times the expected inputs (Nagel et al., arXiv 1906.04721). A correction that
        would take a bias out of range is left out.
        """
        found = distributions(prepared, input_range=self.input_range)
        layers = list(weighted_layers(prepared))
        for done, layer in enumerate(layers, start=1):
            rounded = round_by_scheme(layer)
            if bias_correction:
                _correct(layer, rounded - layer.weight, found[layer.input_node].moments()[0])
            layer.replace_weight(rounded)
            report("round weights")(done, len(layers))


def _correct(layer: WeightedLayer, error: Tensor, mean: Tensor) -> None:
    shift = (kernel_sums(layer, error.double()) @ mean.reshape(layer.group_count, -1, 1)).flatten().float()
    wanted = layer.bias - shift
    layer.replace_bias(torch.where((wanted / layer.bias_scales).abs() < BIAS_LIMIT, wanted, layer.bias))
