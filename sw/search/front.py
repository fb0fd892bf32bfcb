"""Choosing a width for each layer: from the widest everywhere, step by step, the cheapest loss first.

The layers' errors are taken as independent, so that they add up, and so do their costs. Then the step that loses least error for what it
saves is the best next one, and the steps together walk along the lower convex hull of all assignments (greedy Lagrangian allocation,
after Shoham and Gersho, IEEE Trans. ASSP 36, 1988).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one width of one layer means: the error that it adds to the network's output, and what it costs."""

    error: float
    cost: float


Choices = Mapping[str, Mapping[int, Choice]]
"""For each layer what each width means."""


def descend(choices: Choices) -> list[dict[str, int]]:
    """Assignments from the widest for every layer to the cheapest, each one layer away from the one before.

    A step to another width of a layer counts the error that it adds over the cost that it saves; widths that lie above the hull, because a
    narrower one loses no more for what it saves, are passed over. Steps that save nothing are not taken.

    Parameters
    ----------
    choices
        Layers with at least one width each.
    """
    current = {layer: max(widths) for layer, widths in choices.items()}
    path = [dict(current)]
    while True:
        steps = [
            ((choices[layer][width].error - choices[layer][now].error) / saved, layer, width)
            for layer, now in current.items()
            for width in choices[layer]
            if width < now and (saved := choices[layer][now].cost - choices[layer][width].cost) > 0
        ]
        if not steps:
            return path
        _, layer, width = min(steps)
        current[layer] = width
        path.append(dict(current))


def total_error(choices: Choices, widths: Mapping[str, int]) -> float:
    """Error of an assignment: the sum of its layers'."""
    return sum(choices[layer][width].error for layer, width in widths.items())


def useful_steps(choices: Choices, path: Sequence[Mapping[str, int]]) -> int:
    """How many assignments from the start of a path are worth a look: all with less noise than signal, and the next one."""
    return min(len(path), 1 + sum(total_error(choices, widths) <= 1 for widths in path))


def spread(count: int, *, points: int) -> list[int]:
    """At most ``points`` of the indices ``0..count - 1``, both ends and evenly in between."""
    if count <= points:
        return list(range(count))
    return sorted({round(index * (count - 1) / (points - 1)) for index in range(points)}) if points > 1 else [0]
