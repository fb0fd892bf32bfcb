"""The ports between the blocks, as signatures derived from a :class:`~tercel.hw.config.Config`."""

from amaranth.hdl import Cat, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.isa import ADDR_BITS, INSTRUCTION_BITS
from tercel.hw.memory.space import most_parts, part_bytes, spaces

BANK_BITS = 4

START_LAYOUT = data.StructLayout({"instruction": unsigned(INSTRUCTION_BITS), "index": unsigned(16)})
"""An instruction on its way into an engine, with its index in the program."""

DONE_LAYOUT = data.StructLayout({"index": unsigned(16), "post": unsigned(4)})
"""An instruction whose writes have landed, and the engines to which it gives a token."""


def wrap_limit(limit: Value) -> Value:
    """What an address is compared with that wraps at an instruction's ``limit``: a bit more, as 0 means that it does not."""
    return Cat(limit, limit == 0)


def parameter_layout(config: Config) -> data.StructLayout:
    """One output channel's entry of a parameter word as it is stored on chip."""
    fields = {"bias": signed(32), "shift": unsigned(4)}
    if config.per_channel_multiplier:
        fields["multiplier"] = unsigned(config.multiplier_bits)
    return data.StructLayout(fields)


def parameter_word(config: Config, channels: int) -> data.ArrayLayout:
    """A parameter word: ``drain_lanes`` channels for the array, ``lanes`` for the depthwise engine."""
    return data.ArrayLayout(parameter_layout(config), channels)


class EngineSignature(wiring.Signature):
    """How the sequencer drives an engine (directions as seen from the engine). See the README of this folder."""

    def __init__(self, events: int) -> None:
        super().__init__(
            {
                "start": In(stream.Signature(START_LAYOUT)),
                "done": Out(stream.Signature(DONE_LAYOUT)),
                "idle": Out(1, init=1),
                "fault_valid": Out(1),
                "fault_code": Out(4),
                "fault_index": Out(16),
                "events": Out(events),
            }
        )


class BankReadSignature(wiring.Signature):
    """All banks of a scratchpad read by their engine, as seen from the engine.

    ``data`` follows ``en`` by one cycle and is valid for that cycle only: the store engine may read the bank in the next. ``addr_high``
    is ``addr`` for the upper half of each word, which may come from registers of its own.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "en": Out(config.pixels),
                "addr": Out(data.ArrayLayout(unsigned(ADDR_BITS), config.pixels)),
                "addr_high": Out(data.ArrayLayout(unsigned(ADDR_BITS), config.pixels)),
                "data": In(data.ArrayLayout(unsigned(8 * config.lanes), config.pixels)),
            }
        )


class BankWriteSignature(wiring.Signature):
    """All banks of a scratchpad written by the drain, as seen from the drain; every write is accepted.

    ``en`` comes a cycle before its ``addr`` and ``data``: it decides who else may use a bank.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "en": Out(config.pixels),
                "addr": Out(data.ArrayLayout(unsigned(ADDR_BITS), config.pixels)),
                "data": Out(data.ArrayLayout(unsigned(8 * config.lanes), config.pixels)),
            }
        )


def word_write_layout(config: Config) -> data.StructLayout:
    """One scratchpad word to write; the payload of the depthwise and load engines' write streams.

    Much is decided by where it goes, in little time, so that is told in the form in which it is used: ``spaces`` has one bit set, that of
    its scratchpad, and none while the stream is not valid; ``banks`` has one bit set, that of ``bank``.
    """
    return data.StructLayout(
        {
            "spaces": unsigned(1 + config.depthwise),
            "bank": unsigned(BANK_BITS),
            "banks": unsigned(config.pixels),
            "addr": unsigned(ADDR_BITS),
            "data": unsigned(8 * config.lanes),
        }
    )


def one_bank(config: Config, bank: Value) -> Value:
    """``banks`` of a word in ``bank``."""
    return Cat(bank == index for index in range(config.pixels))


WORD_READ_LAYOUT = data.StructLayout({"space": unsigned(1), "bank": unsigned(BANK_BITS), "addr": unsigned(ADDR_BITS)})
"""One scratchpad word to read; the payload of the store engine's request stream."""


class LinearReadSignature(wiring.Signature):
    """Read port of a linear memory, as seen from the reader: ``data`` follows ``en`` by one cycle and holds until the next read.

    Depthwise parameters follow by two, and weights, which are read in every cycle, follow ``addr`` by two.
    """

    def __init__(self, addr_bits: int, shape) -> None:
        super().__init__({"en": Out(1), "addr": Out(addr_bits), "data": In(shape)})


class LinearWriteSignature(wiring.Signature):
    """What the load engine writes into the linear memories, words or parts of words, as seen from it; every write is accepted.

    ``space`` is the memory written (the others ignore it), ``addr`` the word or record (its low bits count: the memories are rings),
    ``tap`` the tap word 0..8 of a record, ``part`` which part of its word it is, of ``part_bytes`` each. It is, in its format in
    external memory, in the *highest* bytes of ``data``.
    """

    def __init__(self, config: Config) -> None:
        widest = max(part_bytes(config, space=space) for space in spaces(config))
        super().__init__(
            {
                "en": Out(1),
                "space": Out(3),
                "addr": Out(16),
                "tap": Out(4),
                "part": Out(range(most_parts(config))),
                "data": Out(8 * widest),
            }
        )


def beat_addr_bits(config: Config) -> int:
    """Bits of an address in external memory that counts beats of ``memory_width`` bytes."""
    return 32 - exact_log2(config.memory_width)


class MemoryReadSignature(wiring.Signature):
    """Reads of external memory, as seen from the client.

    ``request`` carries the address of one beat, in beats. Its answer comes later, in the order of the requests and without
    backpressure (the client has reserved room): in the one cycle in which ``valid`` is 1, ``data`` is the beat unless ``err`` is 1; then
    ``timeout`` tells a memory that does not answer from one that refuses.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "request": Out(stream.Signature(unsigned(beat_addr_bits(config)))),
                "valid": In(1),
                "data": In(8 * config.memory_width),
                "err": In(1),
                "timeout": In(1),
            }
        )


def beat_write_layout(config: Config) -> data.StructLayout:
    """One beat to write: its address in beats, its data, and a tag that comes back with the answer."""
    return data.StructLayout(
        {"addr": unsigned(beat_addr_bits(config)), "data": unsigned(8 * config.memory_width), "last": unsigned(1)}
    )


class MemoryWriteSignature(wiring.Signature):
    """Writes to external memory, as seen from the client; answers as in :class:`MemoryReadSignature`, with the tag of the request."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "request": Out(stream.Signature(beat_write_layout(config))),
                "valid": In(1),
                "last": In(1),
                "err": In(1),
                "timeout": In(1),
            }
        )


class WishboneSignature(wiring.Signature):
    """Pipelined Wishbone B4, as seen from the master. ``adr`` counts units of ``data_width`` bits."""

    def __init__(self, *, addr_width: int, data_width: int) -> None:
        super().__init__(
            {
                "adr": Out(addr_width),
                "dat_w": Out(data_width),
                "dat_r": In(data_width),
                "sel": Out(data_width // 8),
                "we": Out(1),
                "cyc": Out(1),
                "stb": Out(1),
                "stall": In(1),
                "ack": In(1),
                "err": In(1),
            }
        )
