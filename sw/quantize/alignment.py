"""Moving channels onto the grid of powers of two.

A shift finds a channel's scale only to within a factor of two: its range fills between half and all of the codes. Where a channel may be
scaled (:mod:`~tercel.sw.quantize.links`), it is made smaller by a factor of 1/2..1, so chosen that its range becomes ``2**-n`` of the
layer's and its weights fill all codes. (Cross-layer equalization with another goal.)
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from tercel.sw.quantize.links import Link

MOST_BITS = 7
"""Weights of more bits gain less than the smaller channels lose in the codes of activations."""


def aligning_links(links: Sequence[Link]) -> list[Link]:
    """The links whose layer has up to ``MOST_BITS`` bits and a scheme that gains from it."""
    return [link for link in links if link.layer.weight_observer.bits <= MOST_BITS and link.layer.weight_observer.scheme.aligns]


@torch.no_grad()
def align_channels(links: Sequence[Link], maxima: Mapping[Node, Tensor]) -> None:
    """Move channels of a calibrated graph; its weights and biases are replaced.

    Parameters
    ----------
    links
        The links to align, see :func:`aligning_links`.
    maxima
        For links with a clamp from above, the largest value of each channel before it, by layer.
    """
    for link in links:
        factors = torch.from_numpy(link.layer.weight_observer.scheme.alignment(link.output_ranges().numpy().astype("float64")))
        factors = factors.to(torch.float32)
        if link.is_clamped:
            factors = torch.where(maxima[link.layer.node] < link.limit, factors, 1.0)
        link.scale(factors)
