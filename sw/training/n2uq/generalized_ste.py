"""Steps of learned width in the forward pass, their expectation's slope in the backward pass (arXiv 2111.14826, section 3.2)."""

from typing import Any

import torch
from torch import Tensor


def boundaries(start: Tensor, lengths: Tensor) -> Tensor:
    """Ends ``d_0 .. d_N`` of the segments that begin at ``start`` ``[1]`` and are ``lengths`` ``[N]`` wide."""
    return torch.cat([start, start + lengths.cumsum(0)])


def thresholds(start: Tensor, lengths: Tensor) -> Tensor:
    """``T_i = d_(i-1) + a_i / 2``: the middles of the segments, ``[N]``, ascending."""
    return boundaries(start, lengths)[:-1] + lengths / 2


def expected_levels(values: Tensor, start: Tensor, lengths: Tensor) -> Tensor:
    """``g(z)``: 0 up to ``d_0``, rising by 1 over each segment, N from ``d_N`` on.

    The mean level of a quantizer whose thresholds are spread evenly over their segments; what gradients are taken of.
    """
    ends = boundaries(start, lengths)
    index = torch.bucketize(values, ends).clamp(1, len(lengths)) - 1
    return (index + (values - ends[index]) / lengths[index]).clamp(0, len(lengths))


class GeneralizedSTE(torch.autograd.Function):
    """``levels(z, start, lengths)``: the number of thresholds below ``z``, as a float; backward, the gradient of :func:`expected_levels`.

    For z in segment i: ``dg/dz = 1 / a_i``, ``dg/ds = -1 / a_i``, ``dg/da_i = -(z - d_(i-1)) / a_i**2``, ``dg/da_j = -1 / a_i`` for j < i;
    0 for z outside ``(d_0, d_N]``.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, start: Tensor, lengths: Tensor) -> Tensor:
        """``values`` of any shape, ``start`` ``[1]``, positive ``lengths`` ``[N]``."""
        ctx.save_for_backward(values, start, lengths)
        return torch.bucketize(values, thresholds(start, lengths)).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        values, start, lengths = ctx.saved_tensors
        ends = boundaries(start, lengths)
        segment = torch.bucketize(values, ends) - 1
        inside = (segment >= 0) & (segment < len(lengths))
        segment = segment.clamp(0, len(lengths) - 1)
        length = lengths[segment]
        to_values = torch.where(inside, gradients[0] / length, 0)
        place = (values - ends[segment]) / length
        flat = segment.flatten()
        # Sums over the values of each segment: of dg/dz, and of it times the place inside the segment.
        whole = torch.zeros_like(lengths).index_add_(0, flat, to_values.flatten())
        partial = torch.zeros_like(lengths).index_add_(0, flat, (to_values * place).flatten())
        later = whole.flip(0).cumsum(0).flip(0) - whole
        return to_values, -whole.sum().reshape(1), -(partial + later)


def levels(values: Tensor, start: Tensor, lengths: Tensor) -> Tensor:
    """See :class:`GeneralizedSTE`."""
    result = GeneralizedSTE.apply(values, start, lengths)  # type: ignore[no-untyped-call]
    assert isinstance(result, Tensor)
    return result
