"""The pins of an SDRAM chip, and its commands."""

import enum

from amaranth.lib.wiring import In, Out, Signature

from tercel.hw.sdram.timing import SdramChip


class Command(enum.IntEnum):
    """What the chip does at a rising clock edge; the value is {ras_n, cas_n, we_n}, with cs_n low."""

    MODE = 0b000
    REFRESH = 0b001
    PRECHARGE = 0b010
    ACTIVATE = 0b011
    WRITE = 0b100
    READ = 0b101
    NOP = 0b111


ALL_BANKS = 1 << 10
"""Address bit that makes a PRECHARGE one of all banks."""


class SdramPinsSignature(Signature):
    """The chip's pins as electric levels (``_n``: active low), as seen from the controller; the chip's clock is the board's business.

    Every output comes straight from a flip-flop, and ``dq_i`` goes straight into one. A level that changes at clock edge E is for the
    chip to see at edge E + 1, and a word that the chip drives for edge E + 1 is the one in ``dq_i`` just before it.
    """

    def __init__(self, chip: SdramChip) -> None:
        super().__init__(
            {
                "cke": Out(1),
                "cs_n": Out(1, init=1),
                "ras_n": Out(1, init=1),
                "cas_n": Out(1, init=1),
                "we_n": Out(1, init=1),
                "ba": Out(chip.banks.bit_length() - 1),
                "a": Out(chip.addr_pins),
                "dqm": Out(chip.width, init=(1 << chip.width) - 1),
                "dq_o": Out(8 * chip.width),
                "dq_oe": Out(1),
                "dq_i": In(8 * chip.width),
            }
        )
