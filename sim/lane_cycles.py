"""Where an engine's lane-cycles went: every lane in every cycle was useful or lost, and why."""

from collections.abc import Mapping
from dataclasses import dataclass

WORK_EVENTS = {"array": ("step",), "depthwise": ("emit", "taps")}
"""Events in which the lanes of an engine multiply."""

WAITING = ("token", "for_load", "for_array", "for_depthwise", "for_store", "fetch", "fence", "idle", "other")
"""Causes of loss while an engine has no instruction under way: the machine counts ``token``, the cycle model says for whom."""

CAUSES = {
    "array.padding": "lanes, pixels or outputs that the layer does not have",
    "array.conflict": "bank conflicts of strided reads",
    "array.residual": "reading residual words",
    "array.drain": "waiting for the drain",
    "array.start": "setting up instructions and rows",
    "array.token": "waiting for the other engines and the memory",
    "array.for_load": "waiting for loads",
    "array.for_depthwise": "waiting for the depthwise engine",
    "array.for_store": "waiting for stores",
    "array.fetch": "waiting for the next instruction",
    "array.fence": "waiting for own writes to land",
    "array.idle": "no instruction",
    "depthwise.padding": "lanes or taps that the layer does not have",
    "depthwise.fill": "reading columns that complete no window",
    "depthwise.conflict": "bank conflicts",
    "depthwise.full": "waiting for room for results",
    "depthwise.start": "setting up instructions and rows",
    "depthwise.token": "waiting for the other engines and the memory",
    "depthwise.for_load": "waiting for loads",
    "depthwise.for_array": "waiting for the array",
    "depthwise.for_store": "waiting for stores",
    "depthwise.fetch": "waiting for the next instruction",
    "depthwise.fence": "waiting for own writes to land",
    "depthwise.idle": "no instruction",
    "array.other": "waiting for the other engines, for the memory or for own writes",
    "depthwise.other": "waiting for the other engines, for the memory or for own writes",
}
"""What each cause of loss means."""


@dataclass(frozen=True, kw_only=True)
class LaneCycles:
    """``useful`` plus all of ``lost`` (by cause, ``engine.event``) is ``total``, the engine's lanes times the run's cycles."""

    total: int
    useful: int
    lost: Mapping[str, int]

    @property
    def utilization(self) -> float:
        """Useful share, 0..1."""
        return self.useful / self.total if self.total else 0.0

    @property
    def steady(self) -> float:
        """Useful share, 0..1, of the cycles in which the engine has an instruction under way, hence neither data nor room to wait for."""
        waiting = sum(count for name, count in self.lost.items() if name.split(".")[1] in WAITING)
        return self.useful / (self.total - waiting) if self.total > waiting else 0.0


def account(engine: str, *, lanes: int, cycles: int, useful: int, events: Mapping[str, int]) -> LaneCycles:
    """Itemise a run.

    Parameters
    ----------
    engine, lanes
        ``array`` or ``depthwise``: the engine whose ``lanes`` are counted.
    cycles
        Of the whole run.
    useful
        Lane-cycles that the layer needs: multiply-accumulates times digit planes.
    events
        Counters by name, from the machine or from the cycle model. What they leave of ``cycles`` is lost as ``other``.
    """
    own = {name: count for name, count in events.items() if name.startswith(f"{engine}.")}
    work = sum(count for name, count in own.items() if name.split(".")[1] in WORK_EVENTS[engine])
    lost = {f"{engine}.padding": work * lanes - useful}
    lost |= {name: count * lanes for name, count in own.items() if name.split(".")[1] not in WORK_EVENTS[engine]}
    rest = cycles * lanes - useful - sum(lost.values())
    if rest:
        lost[f"{engine}.other"] = rest
    return LaneCycles(total=cycles * lanes, useful=useful, lost={name: count for name, count in lost.items() if count})
