"""The ports between the blocks, as signatures derived from a :class:`~tercel.hw.config.Config`."""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .config import Config
from .isa import ADDR_BITS, INSTRUCTION_BITS

BANK_BITS = 4

START_LAYOUT = data.StructLayout({"instruction": unsigned(INSTRUCTION_BITS), "index": unsigned(16)})
"""An instruction on its way into an engine, with its index in the program."""

DONE_LAYOUT = data.StructLayout({"index": unsigned(16), "post": unsigned(4)})
"""An instruction whose writes have landed, and the engines to which it gives a token."""


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
    """All banks of a scratchpad read by their engine, as seen from the engine. ``data`` follows ``en`` by one cycle and holds until the next read."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "en": Out(config.pixels),
                "addr": Out(data.ArrayLayout(unsigned(ADDR_BITS), config.pixels)),
                "data": In(data.ArrayLayout(unsigned(8 * config.lanes), config.pixels)),
            }
        )


class BankWriteSignature(wiring.Signature):
    """All banks of a scratchpad written by the drain, as seen from the drain; every write is accepted."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "en": Out(config.pixels),
                "addr": Out(data.ArrayLayout(unsigned(ADDR_BITS), config.pixels)),
                "data": Out(data.ArrayLayout(unsigned(8 * config.lanes), config.pixels)),
            }
        )


def word_write_layout(config: Config) -> data.StructLayout:
    """One scratchpad word to write; the payload of the depthwise and load engines' write streams."""
    return data.StructLayout(
        {"space": unsigned(1), "bank": unsigned(BANK_BITS), "addr": unsigned(ADDR_BITS), "data": unsigned(8 * config.lanes)}
    )


WORD_READ_LAYOUT = data.StructLayout({"space": unsigned(1), "bank": unsigned(BANK_BITS), "addr": unsigned(ADDR_BITS)})
"""One scratchpad word to read; the payload of the store engine's request stream."""


class LinearReadSignature(wiring.Signature):
    """Read port of a linear memory, as seen from the reader: ``data`` follows ``en`` by one cycle and holds until the next read."""

    def __init__(self, addr_bits: int, shape) -> None:
        super().__init__({"en": Out(1), "addr": Out(addr_bits), "data": In(shape)})


class LinearWriteSignature(wiring.Signature):
    """Write port of a linear memory, as seen from the load engine: one memory word (its format in external memory) at a time."""

    def __init__(self, word_bytes: int) -> None:
        super().__init__({"en": Out(1), "addr": Out(20), "data": Out(8 * word_bytes)})


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
