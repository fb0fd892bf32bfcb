"""Instructions with the instructions they depend on, turned into tokens and fences."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tercel.hw.isa import QUEUE_DEPTH, TOKEN_MAX, Engine, Opcode

Instruction = tuple[Opcode, dict[str, int]]

_Tokens = dict[tuple[Engine, Engine], list[tuple[int, int]]]
"""By the engines of giver and taker: who gives a token, and who takes it; both ascend."""

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

    def finish(self, *, merge: bool = True) -> list[Instruction]:
        """All instructions with ``wait``, ``post`` and ``fence``, and a HALT.

        Where more tokens would be on their way between two engines than a counter holds, so that the program would stop, one token
        stands for several: its taker waits longer than it must. Without ``merge`` that is a :class:`TokenError`.
        """
        plain, tokens = self._tokens()
        result = _with_tokens(plain, tokens)
        try:
            check_tokens(result)
        except TokenError:
            if not merge:
                raise
            result = _with_tokens(plain, {engines: _merged(pairs) for engines, pairs in tokens.items()})
            check_tokens(result)
        return result

    def _tokens(self) -> tuple[list[Instruction], _Tokens]:
        """The instructions with fences, and the tokens they need."""
        result = [(opcode, dict(values)) for opcode, values in self._instructions]
        tokens: _Tokens = {}
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
                    awaited = self._previous(index, engine)
                else:
                    tokens.setdefault((giver_engine, engine), []).append((giver, index))
                    awaited = giver
                known = [max(pair) for pair in zip(known, landed[awaited], strict=True)]
                known[giver_engine] = max(known[giver_engine], awaited)
            landed.append(known)
            before[engine] = known
        return result, tokens

    def _previous(self, index: int, engine: Engine) -> int:
        """The instruction before ``index`` on the same engine."""
        return next(other for other in range(index - 1, -1, -1) if self.engine(other) is engine)


def _with_tokens(plain: list[Instruction], tokens: _Tokens) -> list[Instruction]:
    result = [(opcode, dict(values)) for opcode, values in plain]
    for (giver_engine, taker_engine), pairs in tokens.items():
        for giver, taker in pairs:
            result[giver][1]["post"] = result[giver][1].get("post", 0) | 1 << taker_engine
            result[taker][1]["wait"] = result[taker][1].get("wait", 0) | 1 << giver_engine
    return [*result, (Opcode.HALT, {})]


def _merged(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The tokens from one engine to another with never more than TOKEN_MAX between giver and taker in program order.

    Then nobody would wait if the instructions ran one at a time, and so they reach the end in any timing. Of two tokens that follow one
    another, the first taker takes the second giver's, which has been given after the first's and before either is taken; the second
    taker comes after the first. Merged are those two whose giver and taker lie furthest apart, where waiting costs least.
    """
    result: list[tuple[int, int]] = []
    waiting: list[tuple[int, int]] = []
    for pair in pairs:
        taken = [other for other in waiting if other[1] < pair[0]]
        result += taken
        waiting = [*waiting[len(taken) :], pair]
        if len(waiting) > TOKEN_MAX:
            first = max(range(TOKEN_MAX), key=lambda index: waiting[index][1] - waiting[index + 1][0])
            waiting[first : first + 2] = [(waiting[first + 1][0], waiting[first][1])]
    return result + waiting


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
