"""The order of the instruction stream: list scheduling with the cycle model."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

from tercel.hw.isa import Engine
from tercel.sw.compiler.state import Compilation
from tercel.sw.cycles import instruction_cycles

SHARED = 1.2
"""How much longer a LOAD or STORE takes because the other one and the fetch of instructions use the memory too, about."""


class Task(Protocol):
    """Something that an engine does: what must have landed and what must have started before it."""

    @property
    def engine(self) -> Engine:
        """Who does it."""
        ...

    @property
    def after(self) -> Collection[int]:
        """Earlier tasks that must have landed."""
        ...

    @property
    def behind(self) -> Collection[int]:
        """Earlier tasks of the same engine that must have started."""
        ...


@dataclass(frozen=True)
class Timetable:
    """Tasks in the order in which they start, and the time at which the last has landed."""

    order: list[int]
    end: int


def list_schedule(tasks: Sequence[Task], costs: Sequence[tuple[int, int]], *, groups: Sequence[int] = ()) -> Timetable:
    """Every engine takes, whenever it is free, the first task that has nothing to wait for.

    ``costs`` holds for each task the cycles until its engine is free again, and from then until it has landed. With ``groups``, the
    ascending number of each task's group, loads come at most one group ahead of everything else, so that those for much later do not
    delay those for now.
    """
    current = 0
    waiting = [len(task.after) + len(task.behind) for task in tasks]
    released: list[list[int]] = [[] for _ in tasks]
    followers: list[list[int]] = [[] for _ in tasks]
    ready: list[list[int]] = [[] for _ in Engine]
    for index, task in enumerate(tasks):
        for other in task.after:
            released[other].append(index)
        for other in task.behind:
            followers[other].append(index)
        if waiting[index] == 0:
            ready[task.engine].append(index)
    engines = list(enumerate(ready))[::-1]
    free, landed = [0] * len(Engine), [0] * len(Engine)
    order: list[int] = []
    events: list[tuple[int, int]] = [(0, -1)]
    time = 0
    while events:
        time = events[0][0]
        while events and events[0][0] == time:
            _, index = heappop(events)
            if index >= 0:
                for follower in released[index]:
                    waiting[follower] -= 1
                    if waiting[follower] == 0:
                        heappush(ready[tasks[follower].engine], follower)
        for engine, queue in engines:
            if free[engine] > time or not queue:
                continue
            if groups and engine == Engine.LOAD and groups[queue[0]] > current + 1:
                continue
            index = heappop(queue)
            order.append(index)
            if groups and engine != Engine.LOAD:
                current = max(current, groups[index])
            for follower in followers[index]:
                waiting[follower] -= 1
                if waiting[follower] == 0:
                    heappush(queue, follower)
            issue, latency = costs[index]
            free[engine] = time + issue
            landed[engine] = max(landed[engine], free[engine] + latency)
            heappush(events, (free[engine], -1))
            heappush(events, (landed[engine], index))
        if not events and ready[Engine.LOAD]:
            current += 1
            events.append((time, -1))
    assert len(order) == len(tasks)
    return Timetable(order, time)


def order(state: Compilation) -> None:
    """Fill in ``order``.

    The dispatcher takes instructions in order, and few of them wait at an engine, so they come in the order in which they start.
    """
    costs = []
    for operation in state.trace.operations:
        cost = instruction_cycles(operation.opcode, operation.values, state.config)
        if cost.beats:
            costs.append((round(cost.issue * SHARED), cost.latency + state.memory_latency))
        else:
            costs.append((cost.issue, cost.latency))
    group_of = {node.name: number for number, nodes in enumerate(state.group_nodes()) for node in nodes}
    numbers = [group_of[node.name] for node in state.graph.nodes]
    groups = [numbers[operation.node] for operation in state.trace.operations]
    # Groups without operations do not count: nothing of theirs begins, so that the loads after them would wait for good.
    ranks = {group: rank for rank, group in enumerate(sorted(set(groups)))}
    state.order = list_schedule(state.trace.operations, costs, groups=[ranks[group] for group in groups]).order
