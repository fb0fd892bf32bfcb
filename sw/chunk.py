"""Brings weights and parameters into their memories, group by group, as many groups at a time as fit."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tercel.hw.isa import Space
from tercel.sw.emitter import Emitter, Slots
from tercel.sw.layer_spec import LayerError
from tercel.sw.transfer import load_words


@dataclass(frozen=True, kw_only=True)
class LinearPart:
    """What every group needs in one linear memory.

    Parameters
    ----------
    depth_name, depth
        The memory's parameter in the config and its words.
    address, word_bytes
        External memory: all groups after one another.
    words
        Words a group.
    """

    space: Space
    depth_name: str
    depth: int
    address: int
    word_bytes: int
    words: int

    @property
    def bytes_per_group(self) -> int:
        """External memory of one group."""
        return self.words * self.word_bytes * (9 if self.space is Space.RECORD else 1)


def check_parts(parts: Iterable[LinearPart]) -> None:
    """:class:`~tercel.sw.layer_spec.LayerError` if a group needs more than a memory holds."""
    for part in parts:
        if part.words > part.depth:
            raise LayerError(
                f"input channels must need at most {part.depth_name}={part.depth} words a group of outputs, not {part.words} "
                f"(fewer channels, taps or weight bits, or a config with more {part.depth_name})"
            )


@dataclass(frozen=True)
class Chunk:
    """Groups ``first`` to ``first + count - 1`` of a section, which are on chip together."""

    index: int
    section: int
    first: int
    count: int


@dataclass
class Chunks:
    """The chunks of ``sections`` x ``groups`` groups, in order; no chunk spans two sections.

    If everything fits it is loaded once and stays. Otherwise there are two places in turn if two groups fit, else one.
    """

    parts: list[LinearPart]
    chunks: list[Chunk]
    slots: Slots
    resident: bool
    groups_per_section: int
    groups_per_slot: int
    _loads: dict[int, tuple[int, list[int]]] = field(default_factory=dict)

    @classmethod
    def plan(cls, parts: list[LinearPart], *, sections: int, groups: int) -> "Chunks":
        """:class:`~tercel.sw.layer_spec.LayerError` if not even one group fits."""
        check_parts(parts)
        fitting = min((part.depth // part.words for part in parts), default=sections * groups)
        resident = sections * groups <= fitting
        if resident:
            size, count = groups, sections
        elif fitting >= 2:
            size, count = min(groups, fitting // 2), 2
        else:
            size, count = 1, 1
        chunks: list[Chunk] = []
        for section in range(sections):
            for first in range(0, groups, size):
                chunks.append(Chunk(len(chunks), section, first, min(size, groups - first)))
        return cls(parts, chunks, Slots(list(range(count))), resident, groups, size)

    def bring(self, emitter: Emitter, chunk: Chunk) -> tuple[dict[Space, int], list[int]]:
        """First word of the chunk in each memory, and the LOADs to wait for."""
        if not (self.resident and chunk.index in self._loads):
            slot, users = self.slots.take()
            first = chunk.section * self.groups_per_section + chunk.first
            loads = []
            for part in self.parts:
                loads += load_words(
                    emitter,
                    part.space,
                    address=part.address + first * part.bytes_per_group,
                    word_bytes=part.word_bytes,
                    first=slot * self.groups_per_slot * part.words,
                    count=chunk.count * part.words,
                    depth=part.depth,
                    after=users,
                )
            self._loads[chunk.index] = (slot, loads)
        slot, loads = self._loads[chunk.index]
        return {part.space: slot * self.groups_per_slot * part.words for part in self.parts}, loads

    def used(self, chunk: Chunk, instructions: Iterable[int]) -> None:
        """Note who reads the chunk."""
        self.slots.use(self._loads[chunk.index][0], instructions)
