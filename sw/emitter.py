"""Instructions with the instructions they depend on, turned into tokens and fences."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tercel.hw.isa import QUEUE_DEPTH, TOKEN_MAX, Engine, Opcode

Instruction = tuple[Opcode, dict[str, int]]

_ENGINES = {
    Opcode.LOAD: Engine.LOAD,
    Opcode.ARRAY: Engine.ARRAY,
    Opcode.DEPTHWISE: Engine.DEPTHWISE,
    Opcode.STORE: Engine.STORE,
}


class TokenError(ValueError):
    """A program that would stop for good. The message names the instruction and the engines it waits for."""


def engine_of(opcode: Opcode, values: Mapping[str, int]) -> Engine | None:
    """The engine that runs an instruction; None for HALT."""
    if opcode is Opcode.SYNC:
        return Engine(values.get("engine", 0))
    return _ENGINES.get(opcode)


@dataclass
class Emitter:
    """Collects instructions in program order; :meth:`finish` adds HALT, the tokens and the fences.

    Every instruction says after which earlier ones it may start. Instructions of one engine land in order, so one token for the
    latest of another engine is enough, and none where that has landed for certain: because an earlier instruction of the same engine,
    or one that this one waits for, has waited for it already.
    """

    _instructions: list[Instruction] = field(default_factory=list)
    _after: list[set[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._instructions)

    def add(self, opcode: Opcode, values: Mapping[str, int], *, after: Iterable[int] = ()) -> int:
        """Append an instruction that may start when those ``after`` have landed; returns its index.

        One of the same engine among ``after`` makes a fence: the engine's own order alone lets the reads of an instruction overtake
        the writes of the one before.
        """
        self._instructions.append((opcode, dict(values)))
        self._after.append(set(after))
        return len(self._instructions) - 1

    def splice(self, other: "Emitter", places: dict[int, int], *, after: Iterable[int] = ()) -> int:
        """Append the next instruction of ``other``, also waiting for those of this emitter ``after``; returns its index.

        ``places`` holds the new index of each of its instructions spliced so far, in its own order, and is added to.
        """
        index = len(places)
        opcode, values = other._instructions[index]
        places[index] = self.add(opcode, values, after=[*(places[giver] for giver in other._after[index]), *after])
        return places[index]

    def entries(self) -> Iterator[tuple[Opcode, dict[str, int], set[int]]]:
        """All instructions with those that they wait for, in order."""
        for (opcode, values), after in zip(self._instructions, self._after, strict=True):
            yield opcode, values, after

    def engine(self, index: int) -> Engine:
        """The engine of an instruction."""
        engine = engine_of(*self._instructions[index])
        assert engine is not None
        return engine

    def finish(self) -> list[Instruction]:
        """All instructions with ``wait``, ``post`` and ``fence``, and a HALT; :class:`TokenError` if tokens would not suffice."""
        result = [(opcode, dict(values)) for opcode, values in self._instructions]
        # What has landed for certain when an instruction starts: by engine, the index of the latest.
        landed: list[list[int]] = []
        before = {engine: [-1] * len(Engine) for engine in Engine}
        for index, (opcode, values) in enumerate(result):
            engine = engine_of(opcode, values)
            assert engine is not None
            known = list(before[engine])
            latest: dict[Engine, int] = {}
            for giver in self._after[index]:
                giver_engine = engine_of(*result[giver])
                assert giver < index and giver_engine is not None
                latest[giver_engine] = max(giver, latest.get(giver_engine, -1))
            for giver_engine, giver in sorted(latest.items(), key=lambda item: -item[1]):
                if known[giver_engine] >= giver:
                    continue
                if giver_engine is engine:
                    values["fence"] = 1
                    giver = self._previous(index, engine)  # noqa: PLW2901
                else:
                    values["wait"] = values.get("wait", 0) | 1 << giver_engine
                    result[giver][1]["post"] = result[giver][1].get("post", 0) | 1 << engine
                known = [max(pair) for pair in zip(known, landed[giver], strict=True)]
                known[giver_engine] = max(known[giver_engine], giver)
            landed.append(known)
            before[engine] = known
        result.append((Opcode.HALT, {}))
        check_tokens(result)
        return result

    def _previous(self, index: int, engine: Engine) -> int:
        """The instruction before ``index`` on the same engine."""
        return next(other for other in range(index - 1, -1, -1) if self.engine(other) is engine)


def check_tokens(instructions: list[Instruction]) -> None:
    """:class:`TokenError` unless the instructions run to a HALT.

    Queues and token counters are bounded channels between sequential engines, so whether the program stops does not depend on
    timing and one run through it decides.
    """
    queues: dict[Engine, deque[int]] = {engine: deque() for engine in Engine}
    giving: dict[Engine, tuple[int, int]] = {}
    tokens = {(giver, taker): 0 for giver in Engine for taker in Engine}
    position = 0
    moved = True

    def masked(mask: int) -> list[Engine]:
        return [engine for engine in Engine if mask >> engine & 1]

    while moved:
        moved = False
        while position < len(instructions):
            engine = engine_of(*instructions[position])
            if engine is None or len(queues[engine]) >= QUEUE_DEPTH:
                break
            queues[engine].append(position)
            position += 1
            moved = True
        for engine, queue in queues.items():
            if engine not in giving and queue:
                values = instructions[queue[0]][1]
                needed = masked(values.get("wait", 0))
                if all(tokens[giver, engine] for giver in needed):
                    for giver in needed:
                        tokens[giver, engine] -= 1
                    giving[engine] = (queue.popleft(), values.get("post", 0))
                    moved = True
            if engine in giving:
                index, mask = giving[engine]
                if all(tokens[engine, taker] < TOKEN_MAX for taker in masked(mask)):
                    for taker in masked(mask):
                        tokens[engine, taker] += 1
                    del giving[engine]
                    moved = True
    for engine, (index, mask) in giving.items():
        raise TokenError(
            f"instruction {index} on {engine.name} cannot give its tokens to {', '.join(taker.name for taker in masked(mask))} "
            f"(a counter holds {TOKEN_MAX}; let the taker wait earlier in the program)"
        )
    for engine, queue in queues.items():
        if queue:
            needed = masked(instructions[queue[0]][1].get("wait", 0))
            raise TokenError(
                f"instruction {queue[0]} on {engine.name} waits for tokens of {', '.join(giver.name for giver in needed)} that never come "
                f"(every wait needs a post earlier in the program)"
            )
    if position >= len(instructions):
        raise TokenError(f"instruction {position} is missing (the last instruction must be HALT)")


@dataclass
class Slots:
    """Places of a memory used in turn, and who must finish before each is overwritten."""

    addresses: list[int]
    _next: int = 0
    _users: dict[int, list[int]] = field(default_factory=dict)

    def take(self) -> tuple[int, list[int]]:
        """The next place, and the instructions that used it last."""
        address = self.addresses[self._next]
        self._next = (self._next + 1) % len(self.addresses)
        return address, self._users.pop(address, [])

    def use(self, address: int, instructions: Iterable[int]) -> None:
        """Note that ``instructions`` write or read the place."""
        self._users.setdefault(address, []).extend(instructions)
