"""What crosses the link between a host and the machine: the one definition that both sides use.

A frame is FLAG, the bytes of a message and its CRC-32 (IEEE 802.3, lowest byte first), FLAG. A FLAG or ESCAPE among those bytes is
sent as ESCAPE and the byte XOR FLIP, as in RFC 1662, so that a FLAG always is a border between frames and a receiver that has lost its
place finds it at the next one. Numbers are stored lowest byte first.

=======  =====================================================================================
message  bytes
=======  =====================================================================================
request  command 1, sequence 2, address 4, count 2; for a write ``count`` bytes of payload
answer   command + ANSWER 1, sequence 2 (those of the request), status 1; payload
=======  =====================================================================================

``address`` and ``count`` are in bytes, multiples of 4 for registers and of the memory port's width for memory; ``count`` is 1..the
size of the machine's buffer. A frame with a wrong CRC, a byte without stop bit or a wrong length leaves no trace.

The machine holds the number of the last request that it carried out. It carries out a request whose number is one more (modulo
65536), and only that; the same number again is answered as the first time without a second write; any other number is ignored. So a
request that is repeated, delayed or sent twice does what it does once. IDENTIFY is answered whatever its number, changes nothing and
tells a host the number to go on with.
"""

import struct
from enum import IntEnum

PROTOCOL_VERSION = 1

FLAG = 0x7E
ESCAPE = 0x7D
FLIP = 0x20
CRC_BYTES = 4

ANSWER = 0x80
"""Added to the command in an answer."""

REQUEST_HEADER = struct.Struct("<BHIH")
"""Command, sequence, address, count."""

ANSWER_HEADER = struct.Struct("<BHB")
"""Command + ANSWER, sequence, status."""

IDENTITY = struct.Struct("<BBHIII")
"""Payload of the answer to IDENTIFY: PROTOCOL_VERSION; log2 of the memory port's width in bytes, and in the high four bits log2 of the
buffer's size in bytes; number of the last request; hash of the config; bytes of memory; core clock in Hz."""

SEQUENCE_LIMIT = 1 << 16


class Command(IntEnum):
    """What a request asks for. Bit 0: a write; bit 2: memory."""

    IDENTIFY = 0
    READ_CSR = 2
    WRITE_CSR = 3
    READ_MEMORY = 4
    WRITE_MEMORY = 5


class Status(IntEnum):
    """What became of a request. Only OK and BAD_REQUEST leave everything else as it was asked for."""

    OK = 0
    BAD_REQUEST = 1
    """Unknown command, or an address or count that is no multiple or out of range. Nothing was done."""
    BUS_ERROR = 2
    """The memory refused a word. The words before it were written."""
    BUS_TIMEOUT = 3
    """The memory did not answer."""
