"""Instructions in the order in which they would run one at a time, and what each must wait for."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tercel.hw.isa import Engine, Opcode
from tercel.sw.emitter import engine_of


@dataclass(frozen=True, slots=True)
class Operation:
    """An instruction without tokens.

    Attributes
    ----------
    values
        Its fields.
    engine
        Where it runs.
    node
        Number of the node that it belongs to.
    after
        Operations that must have landed before it starts.
    behind
        Operations of the same engine that must start before it.
    """

    opcode: Opcode
    values: dict[str, int]
    engine: Engine
    node: int
    after: frozenset[int]
    behind: frozenset[int]


@dataclass
class Trace:
    """Grows by one operation at a time, for the node whose number is in ``node``."""

    operations: list[Operation] = field(default_factory=list)
    node: int = 0

    def add(self, opcode: Opcode, values: Mapping[str, int], *, after: Iterable[int] = (), overwrites: Iterable[int] = ()) -> int:
        """Append an operation; returns its index.

        It starts when those ``after`` have landed, and it takes the places of what those in ``overwrites`` have read or written: an
        engine's own order is enough for that, so of its own they need not have landed. LOAD and STORE never read what they write.
        """
        engine = engine_of(opcode, values)
        assert engine is not None
        landed: set[int] = set(after)
        behind: set[int] = set()
        for other in overwrites:
            (behind if self.operations[other].engine is engine else landed).add(other)
        if engine in (Engine.LOAD, Engine.STORE):
            own = {other for other in landed if self.operations[other].engine is engine}
            landed -= own
            behind |= own
        self.operations.append(Operation(opcode, dict(values), engine, self.node, frozenset(landed), frozenset(behind)))
        return len(self.operations) - 1


@dataclass(slots=True)
class _Row:
    """Who has written and who has read which channel groups of a row: first, end, operation."""

    writers: list[tuple[int, int, int]] = field(default_factory=list)
    readers: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass
class RowAccesses:
    """Accesses to the rows of a tensor in one memory.

    Parameters
    ----------
    ring
        Rows after which the place of a row is written again; 0: never.
    before
        Operations that used the place for something else; all writes wait for them.
    """

    ring: int = 0
    before: frozenset[int] = frozenset()
    _rows: dict[int, _Row] = field(default_factory=dict)

    def read(self, first: int, end: int, *, groups: tuple[int, int]) -> set[int]:
        """What a read of rows ``first..end-1``, channel groups ``groups[0]..groups[1]-1``, waits for."""
        low, high = groups
        found: set[int] = set()
        for row in range(first, end):
            if row in self._rows:
                found.update(writer for start, stop, writer in self._rows[row].writers if start < high and low < stop)
        return found

    def write(self, first: int, end: int, *, groups: tuple[int, int]) -> set[int]:
        """What a write waits for."""
        found = set(self.before)
        low, high = groups
        if self.ring:
            # A row of a ring may begin within the place of the row before the one that it follows around the ring.
            for row in range(first - self.ring - 1, end - self.ring):
                if row in self._rows:
                    entry = self._rows[row]
                    found.update(user for start, stop, user in (*entry.writers, *entry.readers) if start < high and low < stop)
        for row in range(first, end):
            if row in self._rows:
                found.update(writer for start, stop, writer in self._rows[row].writers if start < high and low < stop)
        return found

    def note_read(self, operation: int, first: int, end: int, *, groups: tuple[int, int]) -> None:
        """Remember a reader."""
        for row in range(first, end):
            self._rows.setdefault(row, _Row()).readers.append((*groups, operation))

    def note_write(self, operation: int, first: int, end: int, *, groups: tuple[int, int]) -> None:
        """Remember a writer."""
        for row in range(first, end):
            self._rows.setdefault(row, _Row()).writers.append((*groups, operation))
            if self.ring:
                self._rows.pop(row - 2 * self.ring - 2, None)

    def users(self) -> set[int]:
        """Everybody who must be done before the place is used for something else."""
        found: set[int] = set()
        for row in self._rows.values():
            found.update(user for _, _, user in (*row.writers, *row.readers))
        return found


@dataclass
class RingMemory:
    """A linear memory that is filled in turn, from its first word to its last and again.

    What is taken stays until so many words have been taken after it that its place comes up again.
    """

    depth: int
    _next: int = 0
    _taken: deque[tuple[int, int, list[int]]] = field(default_factory=deque)

    def take(self, words: int) -> tuple[int, list[int], set[int]]:
        """First word of room for ``words`` words, a list for its users to note themselves in, and who used the place before."""
        start = self._next
        self._next += words
        before: set[int] = set()
        while self._taken and self._taken[0][1] <= start - self.depth:
            self._taken.popleft()
        for low, _, users in self._taken:
            if low >= self._next - self.depth:
                break
            before.update(users)
        own: list[int] = []
        self._taken.append((start, self._next, own))
        return start % self.depth, own, before
