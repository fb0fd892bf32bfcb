"""Hostile variants of good programs: what the machine must survive with a fault report instead of a hang."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tercel.hw.isa import FIELDS, INSTRUCTION_BITS, INSTRUCTION_BYTES, RESERVED_LOW, Engine, IsaError, Opcode, decode
from tercel.sw.program import Program

Words = list[int]
_ADDRESSES = ("memory_addr", "memory_row", "in_addr", "out_addr", "res_addr", "spad_addr", "weight_addr", "parameter_addr", "record_addr")


def mutate(program: Program, *, seed: int) -> Program:
    """The program with one to three random injuries, always the same for the same arguments. It may still be a good one."""
    random = np.random.default_rng(seed)
    words = list(program.words)
    for _ in range(int(random.integers(1, 4))):
        words = _MUTATIONS[random.integers(len(_MUTATIONS))](words, random)
    end = program.program_base + len(words) * INSTRUCTION_BYTES
    return replace(program, words=tuple(words), memory_bytes=max(program.memory_bytes, end))


def _index(words: Words, random: np.random.Generator) -> int:
    return int(random.integers(len(words)))


def _flip_bit(words: Words, random: np.random.Generator) -> Words:
    """A bit inside the fields of an instruction."""
    index = _index(words, random)
    opcode = words[index] & 0xF
    bits = RESERVED_LOW[Opcode(opcode)] if opcode in Opcode._value2member_map_ else INSTRUCTION_BITS
    words[index] ^= 1 << int(random.integers(bits))
    return words


def _flip_reserved(words: Words, random: np.random.Generator) -> Words:
    """A bit anywhere in an instruction."""
    words[_index(words, random)] ^= 1 << int(random.integers(INSTRUCTION_BITS))
    return words


def _randomize_field(words: Words, random: np.random.Generator) -> Words:
    """Any field but the opcode gets any value."""
    return _set_field(words, random, lambda name: name != "opcode")


def _move_address(words: Words, random: np.random.Generator) -> Words:
    """An address field gets any value."""
    return _set_field(words, random, lambda name: name in _ADDRESSES)


def _change_tokens(words: Words, random: np.random.Generator) -> Words:
    """The tokens an instruction takes or gives change."""
    return _set_field(words, random, lambda name: name in ("wait", "post"))


def _set_field(words: Words, random: np.random.Generator, chosen: Callable[[str], bool]) -> Words:
    index = _index(words, random)
    try:
        opcode, _ = decode(words[index])
    except IsaError:
        return words
    places = []
    position = 0
    for field in FIELDS[opcode]:
        if chosen(field.name):
            places.append((position, field.shape.width))
        position += field.shape.width
    if places:
        position, width = places[random.integers(len(places))]
        value = int(random.integers(1 << width))
        words[index] = words[index] & ~((1 << width) - 1 << position) | value << position
    return words


def _cut_end(words: Words, random: np.random.Generator) -> Words:
    """The program ends early, so that HALT is missing."""
    return words[: int(random.integers(1, len(words)))] if len(words) > 1 else words


def _remove(words: Words, random: np.random.Generator) -> Words:
    """An instruction is missing."""
    if len(words) > 1:
        del words[_index(words, random)]
    return words


def _repeat(words: Words, random: np.random.Generator) -> Words:
    """An instruction is there twice."""
    index = _index(words, random)
    return [*words[: index + 1], *words[index:]]


def _swap(words: Words, random: np.random.Generator) -> Words:
    """Two instructions change places."""
    a, b = _index(words, random), _index(words, random)
    words[a], words[b] = words[b], words[a]
    return words


def _replace_engine(words: Words, random: np.random.Generator) -> Words:
    """A SYNC of any engine with any tokens comes in."""
    index = _index(words, random)
    engine = int(random.choice(list(Engine)))
    word = int(Opcode.SYNC) | int(random.integers(1 << 9)) << 4 | engine << 13
    return [*words[:index], word, *words[index:]]


_MUTATIONS = (
    _flip_bit,
    _flip_reserved,
    _randomize_field,
    _move_address,
    _change_tokens,
    _cut_end,
    _remove,
    _repeat,
    _swap,
    _replace_engine,
)
