"""Thresholds on real values as thresholds on whole numbers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tercel.sw.importer.expressions import Affine, Clamp, Count, Expression, Slope
from tercel.sw.importer.report import Rejection
from tercel.sw.importer.scaling import Reals
from tercel.sw.layer_spec import Integers

LOWEST, HIGHEST = -32768, 32767 - 16
"""Ends of thresholds that some value passes, before the output's zero point of up to 15 is added; the machine compares 16 bits."""
NEVER = 32767
"""A threshold that no value passes."""

_BISECTIONS = 1 << 40
"""Steps from 0 to the largest sum, on a grid on which thresholds are looked for before it is known how fine they can be."""


@dataclass(frozen=True)
class Counting:
    """``#{i : f_c(x) > thresholds[c, i]}`` for the values x of channel c; f is the chain of ``steps``, the first one first.

    ``thresholds`` is ``[channels or 1, count]``. Every f_c rises or falls over all real numbers (:meth:`of` sees to it), in exact
    arithmetic and in float64 alike, because sums, products and maxima with a constant keep the order when they are rounded.
    """

    steps: tuple[Affine | Slope | Clamp, ...]
    thresholds: Reals

    @classmethod
    def of(cls, count: Count) -> tuple["Counting", Expression]:
        """The thresholds of ``count`` on the value below the chain before it, and that value.

        ``Rejection`` for a negative slope, and for numbers that are NaN or, but for thresholds, infinite.
        """
        if np.isnan(count.thresholds).any():
            raise _not_finite("thresholds", count)
        steps: list[Affine | Slope | Clamp] = []
        value = count.input
        while isinstance(value, Affine | Slope | Clamp):
            if isinstance(value, Affine) and not (np.isfinite(value.gain).all() and np.isfinite(value.offset).all()):
                raise _not_finite("gains and offsets", value)
            if isinstance(value, Slope) and not np.isfinite(value.slopes).all():
                raise _not_finite("slopes", value)
            if isinstance(value, Slope) and value.slopes.min() < 0:
                rejection = Rejection(
                    f"slope below zero of channel {int(value.slopes.argmin())}",
                    "at least 0 before thresholds",
                    f"{value.slopes.min():.4g}",
                    "train with slopes held at 0 or above, as RPReLU does: a count of thresholds needs a function that only rises",
                )
                rejection.operation = value.operation
                raise rejection
            steps.append(value)
            value = value.input
        return cls(tuple(reversed(steps)), count.thresholds), value

    @property
    def uniform(self) -> bool:
        """Whether all channels have the same function and thresholds."""
        sizes = [len(self.thresholds)]
        for step in self.steps:
            if isinstance(step, Affine):
                sizes += [step.gain.size, step.offset.size]
            elif isinstance(step, Slope):
                sizes.append(step.slopes.size)
        return max(sizes) == 1

    def falling(self, channels: int) -> npt.NDArray[np.bool_]:
        """Channels whose function falls."""
        sign = np.ones(channels)
        for step in self.steps:
            if isinstance(step, Affine):
                sign = sign * np.where(step.gain < 0, -1.0, 1.0)
        return np.asarray(sign < 0)

    def function(self, x: Reals) -> Reals:
        """``f_c(x)`` of ``[channels, count]`` values."""
        for step in self.steps:
            if isinstance(step, Affine):
                x = step.gain[:, None] * x + step.offset[:, None]
            elif isinstance(step, Slope):
                x = np.where(x < 0, step.slopes[:, None] * x, x)
            else:
                x = np.clip(x, step.low, step.high)
        return x

    def on_integers(self, *, units: Reals, offset: Reals, least: Integers, most: Integers) -> Integers:
        """Thresholds t on whole numbers v with ``v > t`` exactly where ``f_c(units[c] * v + offset[c]) > thresholds[c, i]``.

        Parameters
        ----------
        units, offset
            One a channel; of a sign for which the whole function rises with v.
        least, most
            Bounds of v, one a channel.

        Returns
        -------
        ``[channels, count]`` in ``least - 1`` (always passed) to ``most`` (never). The function rises, so that the v that do not pass
        a threshold are those up to a largest one, which is t; it is found by bisection with the function itself, in float64.
        """
        shape = len(units), self.thresholds.shape[1]
        below = np.broadcast_to(least[:, None] - 1, shape).copy()
        above = np.broadcast_to(most[:, None] + 1, shape).copy()
        while (open_ := above - below > 1).any():
            middle = (below + above) >> 1
            passed = self.function(units[:, None] * middle + offset[:, None]) > self.thresholds
            above = np.where(open_ & passed, middle, above)
            below = np.where(open_ & ~passed, middle, below)
        return below

    def on_sums(self, reach: Reals, *, offset: Reals) -> tuple[float, Integers]:
        """A step, and thresholds on real sums of up to ``reach[c]`` without ``offset[c]``, rounded to a whole number of steps of 16 bits.

        The step is as fine as all thresholds inside the reach allow. Where x lies within half a step of a threshold, it may come to lie
        on the other side.
        """
        grid = np.full(len(reach), _BISECTIONS, dtype=np.int64)
        places = self.on_integers(units=reach / _BISECTIONS, offset=offset, least=-grid, most=grid)
        met = (places >= -_BISECTIONS) & (places < _BISECTIONS)
        farthest = float((np.where(met, np.abs(places), 1) * (reach[:, None] / _BISECTIONS)).max())
        step = farthest / HIGHEST
        limit = np.full(len(reach), HIGHEST + 1, dtype=np.int64)
        table = self.on_integers(units=np.full(len(reach), step), offset=offset, least=1 - limit, most=limit)
        return step, np.where(table > HIGHEST, NEVER, table)


def _not_finite(what: str, value: Affine | Slope | Count) -> Rejection:
    rejection = Rejection(what, "numbers", "NaN or infinity", "load other weights")
    rejection.operation = value.operation
    return rejection


def shared_rows(thresholds: Integers, *, zero_point: int) -> tuple[bool, Integers]:
    """Whether all channels have the same thresholds, and the table as the machine has it, with one row if so."""
    table = np.minimum(thresholds + zero_point, NEVER)
    shared = bool((table == table[0]).all())
    return shared, table[:1] if shared else table
