"""Routing that insists on a clock: where it does not come to an end, it is ended."""

import re
from collections.abc import Callable

from tercel.sim.toolchain import ToolError

UNTIL_CLOCK = "--tmg-ripup"
"""Argument of nextpnr: routes whose path is too slow are torn up and made again, in each round, until there are none."""

LIMIT = 250
"""Rounds. ``base`` on an 85F takes some 100 where the clock is reached."""

_ROUND = re.compile(r"iter=(\d+) .* tmgfail=(\d+) ")


class RoutingRounds:
    """Takes nextpnr's lines, and passes them on.

    Parameters
    ----------
    clock_mhz
        Asked for, for the message.
    then
        Takes the lines next.
    """

    def __init__(self, *, clock_mhz: float, then: Callable[[str], None]) -> None:
        self._clock_mhz = clock_mhz
        self._then = then

    def __call__(self, line: str) -> None:
        """Take one line.

        Raises
        ------
        ToolError
            It tells of round ``LIMIT`` or a later one, after which there are late paths.
        """
        self._then(line)
        routed = _ROUND.search(line)
        if routed is None:
            return
        number, late = (int(text) for text in routed.groups())
        if late and number >= LIMIT:
            raise ToolError(
                f"{self._clock_mhz:g} MHz are not reached: after {number} rounds of routing {late} connections are on paths that take "
                "longer (try another --seed, or a lower clock)"
            )
