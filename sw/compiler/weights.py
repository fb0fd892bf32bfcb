"""Brings weights and parameters into the linear memories, ahead of the instructions that use them."""

from dataclasses import dataclass, field

from tercel.hw.config import Config
from tercel.hw.isa import Space
from tercel.sw.chunk import LinearPart
from tercel.sw.compiler.group_plan import linear_depths
from tercel.sw.compiler.trace import RingMemory, Trace
from tercel.sw.transfer import load_words


def linear_memories(config: Config) -> dict[Space, RingMemory]:
    """The linear memories of a machine, empty."""
    return {space: RingMemory(depth) for space, depth in linear_depths(config).items() if depth}


@dataclass(frozen=True)
class _Loaded:
    first: int
    end: int
    address: int
    loads: list[int]
    users: list[int]


@dataclass
class PartStream:
    """One part of one layer.

    Parameters
    ----------
    resident
        Loaded once and kept while the layer's group runs; else loaded anew in every :meth:`begin`.
    groups_per_load
        How many groups of outputs come with one load.
    groups
        All groups of the layer.
    """

    part: LinearPart
    memory: RingMemory
    trace: Trace
    resident: bool
    groups_per_load: int
    groups: int
    _loaded: list[_Loaded] = field(default_factory=list)

    def begin(self) -> None:
        """The layer's next strip begins."""
        if not self.resident:
            self._loaded.clear()

    def bring(self, first: int, count: int) -> tuple[int, list[int], list[list[int]]]:
        """Address of group ``first``; the loads of that and the ``count - 1`` groups after it; lists for users to note themselves in.

        Groups must come in order.
        """
        while not self._loaded or self._loaded[-1].end < first + count:
            start = self._loaded[-1].end if self._loaded else first
            self._load(start, min(self.groups_per_load, self.groups - start))
        pieces = [piece for piece in self._loaded if piece.first < first + count and first < piece.end]
        address = (pieces[0].address + (first - pieces[0].first) * self.part.words) % self.part.depth
        return address, [load for piece in pieces for load in piece.loads], [piece.users for piece in pieces]

    def _load(self, first: int, count: int) -> None:
        address, users, before = self.memory.take(count * self.part.words)
        loads = load_words(
            self.trace,
            self.part.space,
            address=self.part.address + first * self.part.bytes_per_group,
            word_bytes=self.part.word_bytes,
            first=address,
            count=count * self.part.words,
            depth=self.part.depth,
            after=before,
        )
        users.extend(loads)
        self._loaded.append(_Loaded(first, first + count, address, loads, users))
