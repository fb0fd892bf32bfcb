"""The on-chip memories that LOAD reaches: which ones a config has, how deep they are, and how large their words are outside."""

from tercel.hw.config import Config
from tercel.hw.isa import Space

RECORD_TAPS = 9
"""Tap words, each of K bytes, of one record."""

ENTRY_BYTES = 8
"""Of a parameter word, for each channel."""

RECORD_ROW_BITS = 2
"""Of the number of a record's row of 3 taps."""


def depth(config: Config, *, space: Space) -> int:
    """Words of ``space`` (words per bank of a scratchpad, records of the record memory); 0 where the config lacks it."""
    return {
        Space.ARRAY: config.array_depth,
        Space.WINDOW: config.window_depth,
        Space.WEIGHT: config.weight_depth,
        Space.PARAMETER: config.parameter_depth,
        Space.RECORD: config.record_depth,
        Space.DEPTHWISE_PARAMETER: config.record_depth,
        Space.THRESHOLD: config.threshold_depth,
    }[space]


def spaces(config: Config) -> list[Space]:
    """The spaces that the config has."""
    return [space for space in Space if depth(config, space=space)]


def word_bytes(config: Config, *, space: Space) -> int:
    """Bytes of one word of ``space`` in external memory (of one tap word for records), a multiple of the memory width."""
    return {
        Space.ARRAY: config.lanes,
        Space.WINDOW: config.lanes,
        Space.WEIGHT: config.weight_word_bytes,
        Space.PARAMETER: config.parameter_word_bytes,
        Space.RECORD: config.lanes,
        Space.DEPTHWISE_PARAMETER: config.depthwise_parameter_word_bytes,
        Space.THRESHOLD: config.threshold_word_bytes,
    }[space]


def part_bytes(config: Config, *, space: Space) -> int:
    """Bytes of a word of ``space`` that LOAD writes at once: a parameter word by channels, or by beats if those are larger."""
    size = word_bytes(config, space=space)
    return min(size, max(ENTRY_BYTES, config.memory_width)) if space in (Space.PARAMETER, Space.DEPTHWISE_PARAMETER) else size


def most_parts(config: Config) -> int:
    """Parts of the word that has the most."""
    return max(word_bytes(config, space=space) // part_bytes(config, space=space) for space in spaces(config))


def word_beats(config: Config, *, space: Space) -> int:
    """Beats of the memory port that one word of ``space`` takes."""
    return word_bytes(config, space=space) // config.memory_width


def most_beats(config: Config) -> int:
    """Beats of the largest word of any space."""
    return max(word_beats(config, space=space) for space in spaces(config))
