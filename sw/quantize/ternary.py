"""Ternary weights by comparison with a threshold: naive rounding, TQuant and MQuant.

A weight becomes 0 where its magnitude is no more than a threshold, else its sign, and stands for code times scale. With ``lam`` the
largest magnitude of a group of weights (a layer, or an output channel) and ``sigma`` the root of its mean square (Yvinec, Dapogny and
Bailly, arXiv 2306.17442; TQuant's figures follow from what it is to be best at, MQuant's from codes of equal share)::

    operator            threshold         scale             what it is
    naive               lam / 2           lam               rounding to the nearest of -lam, 0, lam
    tquant              lam / 3           2 * lam / 3       three bins of one width: the largest error, lam / 3, is the least possible
    mquant, gauss       0.4307 * sigma    0.8615 * sigma    three bins of one share of normally distributed weights around zero
    mquant, empirical   both tertiles     their distance    three bins of one share of the very weights, skewed ones too

The scale above is twice the threshold (``magnitude="round"``); ``"least_squares"`` is the one of least squared error for the same codes.
MQuant is not the operator of least squared error.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tercel.sw.quantize.errors import QuantizeError

Reals = npt.NDArray[np.float64]
Operator = Literal["naive", "tquant", "mquant"]
Mode = Literal["gauss", "empirical"]
Magnitude = Literal["round", "least_squares"]

GAUSS_THRESHOLD = 0.4307272992954576
"""``Phi**-1(2/3)``: a third of a standard normal distribution lies between it and its negative."""


@dataclass(frozen=True)
class Ternary:
    """Codes -1, 0, 1 (int8, of the weights' shape) and what each output channel's 1 stands for (float64 ``[channels]``).

    A channel whose weights are all zero has scale 0, and a layer whose channels share a group has equal scales.
    """

    codes: npt.NDArray[np.int8]
    scales: Reals

    @property
    def weights(self) -> Reals:
        """Codes times scales, of the weights' shape."""
        return np.asarray(self.codes * self.scales.reshape(-1, *[1] * (self.codes.ndim - 1)))


def ternarize(
    weights: npt.ArrayLike,
    *,
    operator: Operator,
    mode: Mode = "gauss",
    per_channel: bool = True,
    magnitude: Magnitude = "round",
    layer: str = "the layer",
) -> Ternary:
    """Ternary codes and scales of a layer's weights.

    Parameters
    ----------
    weights
        ``[output channels, ...]``, at least one, finite.
    operator
        As above.
    mode
        Of ``mquant``: from the weights' mean square, or from their tertiles. Where so many weights are equal that the three bins cannot
        be told apart, the group takes the thresholds of ``gauss``.
    per_channel
        Whether each output channel is a group of its own, or the whole layer is one.
    magnitude
        The scale, as above.
    layer
        Name for messages.

    Raises
    ------
    QuantizeError
        For weights that are not finite or none, and for choices that do not exist.
    """
    _check_choices(operator=operator, mode=mode, magnitude=magnitude)
    values = np.asarray(weights, dtype=np.float64)
    if values.ndim == 0 or values.size == 0:
        raise QuantizeError(f"weights of {layer} must have the shape [output channels, ...] and at least one value, not {values.shape}")
    wrong = int((~np.isfinite(values)).sum())
    if wrong:
        raise QuantizeError(f"weights of {layer} must be finite, but {wrong} of {values.size} are NaN or infinite (load other weights)")
    groups = values.reshape(len(values) if per_channel else 1, -1)
    low, high = thresholds(groups, operator=operator, mode=mode)
    codes = (groups > high[:, None]).astype(np.int8) - (groups < low[:, None]).astype(np.int8)
    fitted = (groups * codes).sum(axis=1) / np.maximum(np.abs(codes).sum(axis=1), 1)
    scales = high - low if magnitude == "round" else fitted
    return Ternary(codes.reshape(values.shape), np.broadcast_to(scales, len(values)).copy())


def thresholds(groups: Reals, *, operator: Operator, mode: Mode = "gauss") -> tuple[Reals, Reals]:
    """The ends of each group's zero bin, ``[groups]`` each; weights beyond them are -1 and 1. ``groups`` is ``[groups, weights]``."""
    if operator == "mquant":
        high = GAUSS_THRESHOLD * np.sqrt(np.square(groups).mean(axis=1))
        if mode == "empirical":
            lower, upper = np.quantile(groups, [1 / 3, 2 / 3], axis=1)
            told_apart = (groups.min(axis=1) < lower) & (lower < upper) & (upper < groups.max(axis=1))
            return np.where(told_apart, lower, -high), np.where(told_apart, upper, high)
    else:
        high = np.abs(groups).max(axis=1) / (2 if operator == "naive" else 3)
    return -high, high


def _check_choices(*, operator: str, mode: str, magnitude: str) -> None:
    for name, value, choices in (
        ("operator", operator, ("naive", "tquant", "mquant")),
        ("mode", mode, ("gauss", "empirical")),
        ("magnitude", magnitude, ("round", "least_squares")),
    ):
        if value not in choices:
            raise QuantizeError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
