"""Cross-layer equalization: channels scaled so that the weights that make one and those that read it have the same range.

With ``r1`` the range of a channel's weights in one layer and ``r2`` that of the weights of the next layer that read it, the channel becomes
``sqrt(r2 / r1)`` times as large: both ranges become ``sqrt(r1 * r2)``, and one scale fits all channels of a layer better (Nagel et al.,
arXiv 1906.04721). Pairs take turns until no channel moves any more. Two things differ: networks keep their clamps from above (ReLU6), and a
channel moves only as far as it stays below; and no channel becomes larger than the largest of its layer was, which keeps the range of the
activations' codes.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from tercel.sw.quantize.links import Link

_SWEEPS = 40
_SETTLED = 1e-3
"""A sweep that changes no channel by more than this share is the last."""

_BELOW = 1 - 2.0**-10
"""Share of the clamp that a channel may reach."""

_SMALLEST = 1e-30


@torch.no_grad()
def equalize_channels(links: Sequence[Link], maxima: Mapping[Node, Tensor]) -> None:
    """Equalize the weights of a graph; its weights and biases are replaced, what it computes stays.

    Parameters
    ----------
    links
        Pairs of layers.
    maxima
        The largest value of each channel before it is clamped, float32 ``[channels]`` by layer.
    """
    highest = dict(maxima)
    ceilings = {link.layer.node: min(float(maxima[link.layer.node].max()), link.limit * _BELOW) for link in links}
    for _ in range(_SWEEPS):
        moved = 0.0
        for link in links:
            factors = _factors(link)
            reached = highest[link.layer.node]
            room = ceilings[link.layer.node] / reached.clamp(min=_SMALLEST)
            factors = torch.where(reached < link.limit, torch.minimum(factors, room.clamp(min=1.0)), 1.0)
            highest[link.layer.node] = reached * factors
            link.scale(factors)
            moved = max(moved, float((factors - 1).abs().max()))
        if moved < _SETTLED:
            break


def _factors(link: Link) -> Tensor:
    """``sqrt(r2 / r1)`` for each channel; 1 for those that are all zeros on either side."""
    made, read = link.output_ranges(), link.input_ranges()
    alive = (made > 0) & (read > 0)
    return torch.where(alive, (read / torch.where(alive, made, 1.0)).sqrt(), 1.0)
