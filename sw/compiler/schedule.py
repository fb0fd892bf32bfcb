"""The order of the instruction stream: list scheduling with the cycle model."""

from heapq import heappop, heappush

from tercel.hw.config import Config
from tercel.hw.isa import Engine
from tercel.sw.compiler.trace import Trace
from tercel.sw.cycles import instruction_cycles


def schedule(trace: Trace, config: Config, *, memory_latency: int) -> list[int]:
    """Indices of all operations by the time at which they would start.

    Every engine takes, whenever it is free, the first operation of the trace that has nothing to wait for. Because the dispatcher takes
    instructions in order, and few of them wait at an engine, they must come in the order in which they start.
    """
    operations = trace.operations
    waiting = [len(operation.after) + len(operation.behind) for operation in operations]
    released: list[list[int]] = [[] for _ in operations]
    followers: list[list[int]] = [[] for _ in operations]
    for index, operation in enumerate(operations):
        for other in operation.after:
            released[other].append(index)
        for other in operation.behind:
            followers[other].append(index)
    ready: dict[Engine, list[int]] = {engine: [] for engine in Engine}
    for index, count in enumerate(waiting):
        if count == 0:
            heappush(ready[operations[index].engine], index)
    free = dict.fromkeys(Engine, 0)
    landed: dict[Engine, int] = dict.fromkeys(Engine, 0)
    starts: list[tuple[int, int]] = []
    events: list[tuple[int, int]] = [(0, -1)]
    time = 0

    def release(index: int) -> None:
        waiting[index] -= 1
        if waiting[index] == 0:
            heappush(ready[operations[index].engine], index)

    while events:
        time = events[0][0]
        while events and events[0][0] == time:
            _, index = heappop(events)
            if index >= 0:
                for follower in released[index]:
                    release(follower)
        for engine in Engine:
            if free[engine] > time or not ready[engine]:
                continue
            index = heappop(ready[engine])
            operation = operations[index]
            starts.append((time, index))
            for follower in followers[index]:
                release(follower)
            cost = instruction_cycles(operation.opcode, operation.values, config)
            free[engine] = time + cost.issue
            landed[engine] = max(landed[engine], free[engine] + cost.latency + (memory_latency if cost.beats else 0))
            heappush(events, (free[engine], -1))
            heappush(events, (landed[engine], index))
    assert len(starts) == len(operations)
    return [index for _, index in starts]
