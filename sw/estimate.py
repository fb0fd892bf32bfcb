"""The whole program's cycles: the engines' instruction times, queues and tokens, and the memory port that they share.

Fetch has the port first; LOAD and STORE share what is left equally. A LOAD into a scratchpad takes the cycles in which no engine writes
there, on average over an instruction. Time is exact between events and rates are constant between them.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from tercel.hw.config import Config
from tercel.hw.isa import QUEUE_DEPTH, TOKEN_MAX, Engine, Opcode, Space
from tercel.sw import cycles
from tercel.sw.cycles import InstructionCycles, instruction_cycles
from tercel.sw.emitter import TokenError, engine_of
from tercel.sw.program import Program

_NEVER = float("inf")


@dataclass(frozen=True, kw_only=True)
class Span:
    """When an instruction ran: ``start``, the cycle its engine was ``free`` again, and ``landed``.

    ``events`` are those of :class:`~tercel.sw.cycles.InstructionCycles`, and what an ARRAY waits for the drain to empty.
    """

    index: int
    engine: Engine
    start: float
    free: float
    landed: float
    events: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cycles from the start to HALT, by instruction, and by engine and event as the counters have them (stalls not itemised)."""

    cycles: int
    spans: tuple[Span, ...]
    events: Mapping[str, int]


@dataclass
class _Job:
    index: int
    opcode: Opcode
    values: dict[str, int]
    cost: InstructionCycles
    beats_left: float = 0.0
    start: float = 0.0
    free: float = _NEVER
    landed: float = _NEVER
    drain: int = 0

    @property
    def events(self) -> Mapping[str, int]:
        return {**self.cost.events, "drain": self.cost.events["drain"] + self.drain} if self.drain else self.cost.events


@dataclass
class _Queue:
    waiting: deque[_Job] = field(default_factory=deque)
    running: _Job | None = None
    landing: deque[_Job] = field(default_factory=deque)
    last_landed: float = 0.0
    empty: float = 0.0


class _Machine:
    """One run of the model. Engines land in order; an engine that cannot give its tokens holds everything behind it."""

    def __init__(self, program: Program, *, memory_latency: int, memory_rate: float) -> None:
        self.config: Config = program.config
        self.jobs = [
            _Job(index, opcode, values, instruction_cycles(opcode, values, program.config))
            for index, (opcode, values) in enumerate(program.instructions())
        ]
        self.memory_latency = memory_latency
        self.memory_rate = memory_rate
        self.queues = {engine: _Queue() for engine in Engine}
        self.tokens = {(giver, taker): 0 for giver in Engine for taker in Engine}
        self.time = 0.0
        self.fetched = 0
        self.dispatched = 0
        self.fetch_left = float(cycles.fetch_beats(self.config))
        self.fetch_ready = _NEVER
        self.spans: list[Span] = []

    def run(self) -> Estimate:
        while not self._halted():
            moved = self._act()
            if self._halted():
                break
            step = self._next_event()
            if step == _NEVER:
                if not moved:
                    waiting = [q.waiting[0].index for q in self.queues.values() if q.waiting]
                    raise TokenError(f"instruction {min(waiting, default=self.dispatched)} waits for good (check_tokens says why)")
                continue
            self._advance(step)
        events: dict[str, int] = {}
        for job in self.jobs:
            engine = engine_of(job.opcode, job.values)
            for name, count in job.events.items():
                assert engine is not None
                key = f"{engine.name.lower()}.{name}"
                events[key] = events.get(key, 0) + count
        return Estimate(cycles=round(self.time), spans=tuple(sorted(self.spans, key=lambda span: span.index)), events=events)

    def _halted(self) -> bool:
        idle = all(not q.waiting and q.running is None and not q.landing for q in self.queues.values())
        return idle and self.dispatched < self.fetched and self.jobs[self.dispatched].opcode is Opcode.HALT

    def _act(self) -> bool:
        """Everything that can happen now."""
        moved, again = False, True
        while again:
            again = self._dispatch()
            for engine, queue in self.queues.items():
                again |= self._finish(engine, queue) | self._start(engine, queue)
            moved |= again
        return moved

    def _dispatch(self) -> bool:
        if self.dispatched >= self.fetched:
            return False
        job = self.jobs[self.dispatched]
        engine = engine_of(job.opcode, job.values)
        if engine is None or len(self.queues[engine].waiting) >= QUEUE_DEPTH:
            return False
        self.queues[engine].waiting.append(job)
        self.dispatched += 1
        return True

    def _start(self, engine: Engine, queue: _Queue) -> bool:
        if queue.running is not None or not queue.waiting:
            return False
        job = queue.waiting[0]
        givers = [giver for giver in Engine if job.values.get("wait", 0) >> giver & 1]
        if any(self.tokens[giver, engine] == 0 for giver in givers) or (job.values.get("fence", 0) and queue.landing):
            return False
        for giver in givers:
            self.tokens[giver, engine] -= 1
        queue.waiting.popleft()
        queue.running = job
        job.start = self.time
        job.beats_left = float(job.cost.beats)
        if not job.cost.beats:
            job.drain = max(0, round(queue.empty - self.time - job.cost.first_tile))
            job.free = self.time + job.cost.issue + job.drain
            queue.empty = job.free + job.cost.emptying
        return True

    def _finish(self, engine: Engine, queue: _Queue) -> bool:
        moved = False
        job = queue.running
        if job is not None and job.free <= self.time:
            latency = job.cost.latency + (self.memory_latency if job.cost.beats else 0)
            job.landed = max(job.free + latency, queue.last_landed)
            queue.last_landed = job.landed
            queue.landing.append(job)
            queue.running = None
            moved = True
        while queue.landing and queue.landing[0].landed <= self.time:
            job = queue.landing[0]
            takers = [taker for taker in Engine if job.values.get("post", 0) >> taker & 1]
            if any(self.tokens[engine, taker] >= TOKEN_MAX for taker in takers):
                break
            for taker in takers:
                self.tokens[engine, taker] += 1
            queue.landing.popleft()
            self.spans.append(Span(index=job.index, engine=engine, start=job.start, free=job.free, landed=self.time, events=job.events))
            moved = True
        return moved

    def _fetching(self) -> bool:
        return self.fetched < len(self.jobs) and self.fetched <= self.dispatched and self.fetch_ready == _NEVER

    def _rates(self) -> dict[Engine, float]:
        moving = [e for e in (Engine.LOAD, Engine.STORE) if (job := self.queues[e].running) is not None and job.beats_left > 0]
        share = 0.0 if self._fetching() else self.memory_rate / max(1, len(moving))
        return {engine: min(share, self._taken()) if engine is Engine.LOAD else share for engine in moving}

    def _taken(self) -> float:
        """Transfers a cycle that the running LOAD's scratchpad takes: the engines that write there at the same time come first."""
        load = self.queues[Engine.LOAD].running
        assert load is not None
        space = load.values.get("space", 0)
        if space > Space.WINDOW:
            return self.memory_rate
        words = 1.0
        for engine in (Engine.ARRAY, Engine.DEPTHWISE):
            job = self.queues[engine].running
            if job is not None and job.values.get("out_space", 0) == space:
                words *= max(0.0, 1 - job.cost.writes / (job.cost.issue + job.drain))
        return words * (self.config.lanes // self.config.memory_width)

    def _next_event(self) -> float:
        times = [self.fetch_ready - self.time]
        if self._fetching():
            times.append(self.fetch_left / self.memory_rate)
        for engine, rate in self._rates().items():
            job = self.queues[engine].running
            if job is not None and rate:
                times.append(job.beats_left / rate)
        for queue in self.queues.values():
            if queue.running is not None:
                times.append(queue.running.free - self.time)
            if queue.landing and queue.landing[0].landed > self.time:
                times.append(queue.landing[0].landed - self.time)
        return max(0.0, min(times))

    def _advance(self, step: float) -> None:
        fetching, rates = self._fetching(), self._rates()
        self.time += step
        if fetching:
            self.fetch_left -= step * self.memory_rate
            if self.fetch_left <= 1e-6:
                self.fetch_ready = self.time + cycles.FETCH_LATENCY + self.memory_latency
        for engine, rate in rates.items():
            job = self.queues[engine].running
            assert job is not None
            job.beats_left -= step * rate
            if job.beats_left <= 1e-6:
                job.beats_left = 0.0
                job.free = self.time + job.cost.issue - job.cost.beats
        if self.fetch_ready <= self.time:
            self.fetched += 1
            self.fetch_left = float(cycles.fetch_beats(self.config))
            self.fetch_ready = _NEVER


def estimate(program: Program, *, memory_latency: int = 8, memory_rate: float = 1.0) -> Estimate:
    """Predict a run.

    Parameters
    ----------
    program
        Any program that reaches its HALT; :class:`~tercel.sw.emitter.TokenError` for one that does not.
    memory_latency
        Cycles from a read request to its first answer.
    memory_rate
        Transfers the memory takes per cycle, at most 1.
    """
    return _Machine(program, memory_latency=memory_latency, memory_rate=memory_rate).run()
