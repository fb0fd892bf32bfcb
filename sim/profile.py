"""Where a program's cycles go, layer by layer, from the cycle model's timeline.

Each cycle of the run belongs to one layer: to the one that the array is working on; if it rests, to that of the depthwise engine; if both
rest, to the one whose tensors are moving (half to each of two); and while nothing runs, to the one whose instruction starts next. So the
layers' cycles add up to the run, and a depthwise layer has only those that the array does not hide.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import floor
from typing import Any

from tercel.hw.config import Config
from tercel.hw.isa import Engine, Opcode
from tercel.sim.lane_cycles import LaneCycles, account
from tercel.sw.cycles import transfer_beats
from tercel.sw.estimate import Estimate, Span, estimate
from tercel.sw.program import LayerMark, Program

COMPUTE = (Engine.ARRAY, Engine.DEPTHWISE)
MOVE = (Engine.LOAD, Engine.STORE)
NO_LAYER = "(program)"
"""Stands for instructions that belong to no layer."""


@dataclass(kw_only=True)
class LayerProfile:
    """One layer's part of a run.

    Attributes
    ----------
    weight_bits
        2 a digit plane; 8 on the depthwise engine; 0 for layers without weights.
    cycles, share
        Its cycles (see the module), and their share of the run, 0..1.
    start, end
        The first cycle in which its engine had one of its instructions under way, and the cycle in which the last of these had landed.
    busy
        Cycles in which its engine had an instruction of the layer under way.
    waits
        Those of its cycles in which neither engine computed, by what went on: ``load``, ``store``, or nothing (``latency``).
    events
        The engine's cycles as its counters name them.
    useful
        Lane-cycles that multiply: MACs times digit planes.
    loaded, stored
        Bytes over the memory port.
    memory
        Cycles that these bytes take.
    """

    name: str
    kind: str
    engine: str
    group: int
    weight_bits: int
    macs: int
    useful: int
    lanes: int
    cycles: float = 0.0
    share: float = 0.0
    start: float = float("inf")
    end: float = 0.0
    busy: int = 0
    waits: dict[str, float] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    loaded: int = 0
    stored: int = 0
    memory: float = 0.0

    @property
    def steady(self) -> float:
        """Useful share, 0..1, of its engine's lane-cycles while the engine has an instruction of the layer under way."""
        return self.useful / (self.lanes * self.busy) if self.lanes and self.busy else 0.0

    @property
    def bound(self) -> str:
        """What takes the layer longest: its engine or ``memory``."""
        return self.engine if self.busy >= self.memory and self.engine != "load" else "memory"

    @property
    def intensity(self) -> float:
        """MACs a byte over the memory port; infinite where nothing moves."""
        moved = self.loaded + self.stored
        return self.macs / moved if moved else float("inf")

    @property
    def rate(self) -> float:
        """MACs a cycle of the longest of what the layer needs: its cycles, its engine's, and the memory's for its bytes."""
        longest = max(self.cycles, float(self.busy), self.memory)
        return self.macs / longest if longest else 0.0

    def stalls(self) -> dict[str, float]:
        """Cycles in which no lane of its engine multiplied for it, by cause, the largest first: the engine's events, and waits."""
        causes = {name: float(count) for name, count in self.events.items() if name not in ("step", "emit")} | self.waits
        return dict(sorted(((name, count) for name, count in causes.items() if count), key=lambda item: -item[1]))

    def as_json(self) -> dict[str, Any]:
        """The profile for a script."""
        return {
            "name": self.name,
            "kind": self.kind,
            "engine": self.engine,
            "group": self.group,
            "weight_bits": self.weight_bits,
            "macs": self.macs,
            "cycles": self.cycles,
            "share": self.share,
            "start": self.start,
            "end": self.end,
            "busy": self.busy,
            "steady_utilization": self.steady,
            "loaded_bytes": self.loaded,
            "stored_bytes": self.stored,
            "memory_cycles": self.memory,
            "bound": self.bound,
            "stalls": self.stalls(),
        }


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A run by layer and by engine. ``lane_cycles`` has ``array`` and, where the machine has it, ``depthwise``."""

    config: Config
    memory_rate: float
    predicted: Estimate
    layers: tuple[LayerProfile, ...]
    lane_cycles: Mapping[str, LaneCycles]

    @property
    def cycles(self) -> int:
        """Cycles of the run."""
        return self.predicted.cycles

    @property
    def macs(self) -> int:
        """MACs of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def utilization(self) -> float:
        """Useful share, 0..1, of all lane-cycles of both engines."""
        total = sum(lanes.total for lanes in self.lane_cycles.values())
        return sum(lanes.useful for lanes in self.lane_cycles.values()) / total if total else 0.0

    def as_json(self) -> dict[str, Any]:
        """The profile for a script."""
        return {
            "config": self.config.name,
            "cycles": self.cycles,
            "macs": self.macs,
            "utilization": self.utilization,
            "layers": [layer.as_json() for layer in self.layers],
            "lane_cycles": {
                name: {"total": lanes.total, "useful": lanes.useful, "lost": dict(lanes.lost)} for name, lanes in self.lane_cycles.items()
            },
        }


def profile(program: Program, *, memory_latency: int = 8, memory_rate: float = 1.0) -> Profile:
    """Account for a program's predicted run; parameters as for :func:`~tercel.sw.estimate.estimate`."""
    predicted = estimate(program, memory_latency=memory_latency, memory_rate=memory_rate)
    config = program.config
    layers = {mark.name: _layer(mark, config) for mark in program.marks}
    owner = {index: layers[mark.name] for mark in program.marks for index in mark.indices()}
    rest = LayerProfile(name=NO_LAYER, kind="", engine="load", group=-1, weight_bits=0, macs=0, useful=0, lanes=0)
    instructions = program.instructions()
    for span in predicted.spans:
        layer = owner.get(span.index, rest)
        if layer.engine == span.engine.name.lower():
            layer.start, layer.end = min(layer.start, span.start), max(layer.end, span.landed)
        opcode, values = instructions[span.index]
        if opcode in (Opcode.LOAD, Opcode.STORE):
            beats = transfer_beats(values, config)
            layer.memory += beats / memory_rate
            if opcode is Opcode.LOAD:
                layer.loaded += beats * config.memory_width
            else:
                layer.stored += beats * config.memory_width
        elif span.engine in COMPUTE:
            layer.busy += sum(span.events.values())
            for name, count in span.events.items():
                layer.events[name] = layer.events.get(name, 0) + count
    for layer, cycles, cause in _cycles(predicted, owner, rest):
        layer.cycles += cycles
        if cause:
            layer.waits[cause] = layer.waits.get(cause, 0.0) + cycles
    found = [*layers.values(), *([rest] if rest.cycles else [])]
    for layer in found:
        layer.share = layer.cycles / predicted.cycles if predicted.cycles else 0.0
        layer.start = min(layer.start, layer.end)
    lanes = {"array": config.array_lanes} | ({"depthwise": config.depthwise_lanes} if config.depthwise else {})
    return Profile(
        config=config,
        memory_rate=memory_rate,
        predicted=predicted,
        layers=tuple(found),
        lane_cycles={
            name: account(
                name,
                lanes=count,
                cycles=predicted.cycles,
                useful=sum(layer.useful for layer in found if layer.engine == name),
                events={**predicted.events, **_waits(Engine[name.upper()], program, predicted)},
            )
            for name, count in lanes.items()
        },
    )


def _layer(mark: LayerMark, config: Config) -> LayerProfile:
    on_array = mark.engine == "array"
    return LayerProfile(
        name=mark.name,
        kind=mark.kind,
        engine=mark.engine,
        group=mark.group,
        weight_bits=2 * mark.digits if on_array else 8 if mark.kind in ("depthwise", "linear") else 0,
        macs=mark.macs,
        useful=mark.macs * (mark.digits if on_array else 1) if mark.engine != "load" else 0,
        lanes={"array": config.array_lanes, "depthwise": config.depthwise_lanes}.get(mark.engine, 0),
    )


def _waits(engine: Engine, program: Program, predicted: Estimate) -> dict[str, int]:
    """Cycles in which an engine had nothing under way, by what it waited for last, named like counters."""
    landings: dict[float, set[Engine]] = {}
    for span in predicted.spans:
        landings.setdefault(span.landed, set()).add(span.engine)
    instructions = program.instructions()
    lost: dict[str, int] = {}
    free = 0.0
    for span in (span for span in predicted.spans if span.engine is engine):
        gap = _whole(span.start) - _whole(free)
        if gap:
            waiting = instructions[span.index][1].get("wait", 0)
            cause = f"{engine.name.lower()}.{_cause(landings.get(span.start, set()), waiting=waiting, engine=engine)}"
            lost[cause] = lost.get(cause, 0) + gap
        free = span.free
    return lost | {f"{engine.name.lower()}.idle": predicted.cycles - _whole(free)}


def _cause(landed: set[Engine], *, waiting: int, engine: Engine) -> str:
    for giver in Engine:
        if waiting >> giver & 1 and giver in landed:
            return f"for_{giver.name.lower()}"
    return "fence" if engine in landed else "fetch"


def _cycles(predicted: Estimate, owner: Mapping[int, LayerProfile], rest: LayerProfile) -> Iterator[tuple[LayerProfile, float, str]]:
    """Every piece of time with the layer that it belongs to, and what went on where neither engine computed."""
    changes = sorted({0.0, float(predicted.cycles), *(time for span in predicted.spans for time in (span.start, span.free))})
    tracks = {engine: [span for span in predicted.spans if span.engine is engine] for engine in Engine}
    starts = sorted(predicted.spans, key=lambda span: span.start)
    place = dict.fromkeys(Engine, 0)
    upcoming = 0
    for begin, end in pairwise(changes):
        if begin >= predicted.cycles:
            break
        running: dict[Engine, Span] = {}
        for engine, spans in tracks.items():
            while place[engine] < len(spans) and spans[place[engine]].free <= begin:
                place[engine] += 1
            if place[engine] < len(spans) and spans[place[engine]].start <= begin:
                running[engine] = spans[place[engine]]
        while upcoming < len(starts) and starts[upcoming].start <= begin:
            upcoming += 1
        length = min(end, float(predicted.cycles)) - begin
        computing = next((running[engine] for engine in COMPUTE if engine in running), None)
        moving = [running[engine] for engine in MOVE if engine in running]
        if computing is not None:
            yield owner.get(computing.index, rest), length, ""
        for span in moving if computing is None else ():
            yield owner.get(span.index, rest), length / len(moving), span.engine.name.lower()
        if not running:
            # Latencies: the layer that comes next waits, or after the last instruction the last layer.
            yield owner.get(starts[min(upcoming, len(starts) - 1)].index, rest) if starts else rest, length, "latency"


def _whole(time: float) -> int:
    """The nearest whole cycle, so that pieces of time stay without gap or overlap."""
    return floor(time + 0.5)
