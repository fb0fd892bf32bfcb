"""Addresses in a scratchpad for buffers that are needed at different times."""

from collections.abc import Sequence
from dataclasses import dataclass

from tercel.sw.compiler.group import Key


@dataclass(frozen=True)
class Request:
    """``words`` words from step ``first`` to step ``last``, at ``lowest`` or higher."""

    key: Key
    first: int
    last: int
    words: int
    lowest: int = 0


def allocate(requests: Sequence[Request], *, depth: int, from_top: bool) -> dict[Key, int] | None:
    """A base for each request so that no two overlap in both time and place; None if first fit finds no room."""
    placed: list[tuple[Request, int]] = []
    for request in sorted(requests, key=lambda wanted: (wanted.first, -wanted.words, wanted.key)):
        others = [(base, base + other.words) for other, base in placed if other.first <= request.last and request.first <= other.last]
        if from_top:
            candidates = sorted([depth - request.words, *(low - request.words for low, _ in others)], reverse=True)
        else:
            candidates = sorted([request.lowest, *(high for _, high in others)])
        for base in candidates:
            inside = request.lowest <= base <= depth - request.words
            if inside and all(high <= base or base + request.words <= low for low, high in others):
                placed.append((request, base))
                break
        else:
            return None
    return {request.key: base for request, base in placed}
