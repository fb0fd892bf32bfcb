"""Moving channels onto the grid of powers of two.

A shift finds a channel's scale only to within a factor of two: its range fills between half and all of the codes. Where a channel may be
scaled (:mod:`~tercel.sw.quantize.links`), it is scaled such that its range becomes ``2**-n`` of the layer's and its weights fill all
codes: up by a factor of 1..2, or down by one of 1/2..1. (Cross-layer equalization with another goal.)

Moving a channel has its price. A clamp from above, or the end of the codes, then cuts the channel elsewhere; a smaller channel has fewer
codes of activations; and in a dense reader, a column that grows takes codes from all others of its rows. So, for each channel, the
factor is taken that leaves the least squared error in the reader's outputs, summed over

- the rounding of the channel's own weights, ``input variance * step**2 / 12``;
- the cut, from the histogram of the channel's values, and the rounding of activations;
- the rounding of the reader's weights, ``variance * (largest of the row)**2 / (12 * largest code**2)``,

each output counted relative to its variance. What depends on activations is known on calibration images, or from batch norms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.fx import Node

from tercel.sw.quantize.link_statistics import LinkStatistics
from tercel.sw.quantize.links import Link
from tercel.sw.quantize.scheme import MAX_SHIFT

Reals = npt.NDArray[np.float64]

MOST_BITS = 7
"""Weights of more bits gain less than the outputs lose."""

_CUT_WEIGHT = 30.0
"""The error of a cut counts this much: unlike that of rounding, it is none that other weights can be rounded to cancel."""

_STEPS = 8
"""Factors up that are tried for a channel, from 1 to the one that fills the codes."""

_FULL, _DOWN = _STEPS, _STEPS + 1
_ROTATIONS = 16
"""Ranges of the layer that are tried, from its own to just below twice."""

_PASSES = 4
_QUIET = 1e-3
"""Variance of a channel, as a share of their mean, below which its errors count no more than at this one."""

_LOGS: Reals = np.arange(-16, 17) / 16
_SHADE = 1 - 2.0**-18
"""A channel stays a shade below its power of two, so that no rounding puts it above."""


@dataclass(frozen=True)
class _Options:
    """What may become of each channel: factors, their cost at the channel's output, what is allowed; ``[options, channels]`` each."""

    factors: Reals
    costs: Reals
    allowed: npt.NDArray[np.bool_]

    def cheapest(self) -> npt.NDArray[np.int64]:
        """The choice for each channel that costs least at its own output."""
        return np.asarray(np.where(self.allowed, self.costs, np.inf).argmin(axis=0))

    def pick(self, values: Reals, chosen: npt.NDArray[np.int64]) -> Reals:
        """``values`` ``[options, channels]`` of the chosen options, ``[channels]``."""
        return np.asarray(values[chosen, np.arange(len(chosen))])


def aligning_links(links: Sequence[Link]) -> list[Link]:
    """The links whose layer has up to ``MOST_BITS`` bits and a scheme that gains from it."""
    return [link for link in links if link.layer.weight_observer.bits <= MOST_BITS and link.layer.weight_observer.scheme.aligns]


def _cut_costs(link: Link, known: LinkStatistics) -> Reals:
    """Squared error of clamp and codes at a channel's output if it is scaled by ``2**_LOGS``: ``[channels, factors]``."""
    low, high = link.code_range
    shares, centres = known.shares.numpy(), known.centres.numpy()
    truth = np.clip(centres, 0.0 if low == 0 else -np.inf, link.limit)
    costs = []
    for factor in np.exp2(_LOGS):
        cut = shares @ np.square(np.clip(centres, low / factor, high / factor) - truth)
        costs.append(_CUT_WEIGHT * cut + ((high - low) / 255 / factor) ** 2 / 12)
    return np.stack(costs, axis=1)


def _options(ranges: Reals, own: Reals, cuts: Reals, *, top: float, upwards: bool) -> _Options:
    """For a layer whose range becomes ``top``, at least its largest.

    ``own`` is a channel's rounding error if its weights fill all codes.
    """
    exponent = np.log2(top / np.where(ranges > 0, ranges, top))
    missing = exponent - np.floor(exponent)
    logs = np.stack([*(missing * step / _STEPS for step in range(_STEPS + 1)), missing - 1])
    empty = np.concatenate([missing - logs[:-1], np.zeros((1, len(ranges)))])
    place = (logs + 1) * 16
    lower = np.minimum(place.astype(int), len(_LOGS) - 2)
    channels = np.arange(len(ranges))
    costs = own * np.exp2(2 * empty) + cuts[channels, lower] * (lower + 1 - place) + cuts[channels, lower + 1] * (place - lower)
    allowed = np.ones(costs.shape, dtype=bool)
    if not upwards:
        allowed[1:_DOWN, missing > 0] = False
    allowed[1:, (ranges == 0) | (exponent >= MAX_SHIFT)] = False
    largest = int(ranges.argmax())
    allowed[:, largest] = np.arange(len(logs)) == _FULL  # it makes the layer's range
    factors = np.exp2(logs)
    factors[1:, exponent >= 1] *= _SHADE
    return _Options(factors, costs, allowed)


def _variances(link: Link, known: LinkStatistics) -> Reals:
    """Of the layer's channels behind the clamp."""
    shares, centres = known.shares.numpy(), known.centres.numpy()
    values = np.clip(centres, 0.0 if link.code_range[0] == 0 else -np.inf, link.limit)
    variance = shares @ np.square(values) - np.square(shares @ values)
    return np.asarray(np.maximum(variance, _QUIET * max(variance.mean(), 1e-30)))


def _settle(options: _Options, chosen: npt.NDArray[np.int64], columns: Reals, variances: Reals, *, largest_code: int) -> float:
    """Improve the choices one channel after the other, for a dense reader of magnitudes ``columns`` ``[channels, outputs]``.

    Returns the error that is left.
    """
    passed = np.square(columns)
    outputs = variances @ passed
    importance = 1 / np.maximum(outputs, _QUIET * max(outputs.mean(), 1e-30))
    through = passed @ importance
    factors = options.pick(options.factors, chosen)
    scaled = columns / factors[:, None]
    error = np.inf
    for _ in range(_PASSES):
        power = float(variances @ np.square(factors))
        before, error = error, 0.0
        for channel in range(len(columns)):
            scaled[channel] = 0.0
            tried = options.factors[:, channel]
            rest = power - variances[channel] * factors[channel] ** 2
            tops = np.square(np.maximum(scaled.max(axis=0), columns[channel] / tried[:, None])) @ importance
            read = tops * (rest + variances[channel] * np.square(tried)) / (12 * largest_code**2)
            costs = through[channel] * options.costs[:, channel] + read
            best = int(np.where(options.allowed[:, channel], costs, np.inf).argmin())
            chosen[channel], factors[channel] = best, tried[best]
            scaled[channel] = columns[channel] / tried[best]
            power = rest + variances[channel] * tried[best] ** 2
            error += through[channel] * options.costs[best, channel]
        error += read[best]
        if error > before * 0.999:
            break
    return error


def _factors(link: Link, known: LinkStatistics, input_factors: Tensor | None) -> Reals:
    layer, weight = link.layer, link.layer.weight
    variance = known.input_variance if input_factors is None else known.input_variance * input_factors.to(torch.float64).square()
    taps = weight[0, 0].numel() if weight.dim() > 2 else 1
    energy = (variance if layer.group_count == len(weight) else variance.sum().expand(len(weight))).numpy() * taps
    ranges = link.output_ranges().numpy().astype(np.float64)
    cuts, variances = _cut_costs(link, known), _variances(link, known)
    own = energy * np.square(ranges / layer.weight_observer.quant_max) / 12
    columns = None if link.reads_depthwise else link.reader.weight.reshape(*link.reader.weight.shape[:2], -1).abs().amax(dim=2)
    importance = 1 / variances if columns is None else columns.double().square().sum(dim=0).numpy()
    tried = [
        _options(ranges, own, cuts, top=float(ranges.max()) * 2.0 ** (turn / _ROTATIONS), upwards=link.keeps_codes)
        for turn in range(_ROTATIONS)
    ]
    options = min(tried, key=lambda candidate: float(candidate.pick(candidate.costs, candidate.cheapest()) @ importance))
    chosen = options.cheapest()
    if columns is not None:
        magnitudes = np.ascontiguousarray(columns.double().numpy().T)
        nothing = np.where(options.allowed[0], 0, chosen)
        starts = chosen, nothing
        errors = [
            _settle(options, start, magnitudes, variances, largest_code=link.reader.weight_observer.quant_max) for start in starts
        ]
        chosen = starts[int(np.argmin(errors))]
    return options.pick(options.factors, chosen)


@torch.no_grad()
def align_channels(links: Sequence[Link], statistics: Mapping[Node, LinkStatistics]) -> None:
    """Move channels of a calibrated graph; its weights and biases are replaced.

    Parameters
    ----------
    links
        The links to align in the graph's order, see :func:`aligning_links`.
    statistics
        Of each link, by layer, before any is moved.
    """
    moved: dict[Node, Tensor] = {}
    for link in links:
        if not link.layer.weight.any():
            continue
        factors = torch.from_numpy(_factors(link, statistics[link.layer.node], moved.get(link.layer.node))).to(torch.float32)
        link.scale(factors)
        moved[link.reader.node] = factors
