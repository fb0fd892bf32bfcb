"""Frames on the wire; see :mod:`tercel.hw.link.protocol`."""

import zlib

from tercel.hw.link.protocol import CRC_BYTES, ESCAPE, FLAG, FLIP

_SPECIAL = {bytes([value]): bytes([ESCAPE, value ^ FLIP]) for value in (ESCAPE, FLAG)}


def encode_frame(message: bytes) -> bytes:
    """The frame around ``message``, both FLAGs included."""
    body = message + zlib.crc32(message).to_bytes(CRC_BYTES, "little")
    for value, replacement in _SPECIAL.items():  # ESCAPE comes first: the others' replacements hold one
        body = body.replace(value, replacement)
    return bytes([FLAG]) + body + bytes([FLAG])


def decode_body(body: bytes) -> bytes | None:
    """The message between two FLAGs, or None if it is empty or damaged."""
    first, *escaped = body.split(bytes([ESCAPE]))
    if not all(escaped):
        return None  # an ESCAPE before another or before the FLAG
    plain = first + b"".join(bytes([piece[0] ^ FLIP]) + piece[1:] for piece in escaped)
    message, crc = plain[:-CRC_BYTES], plain[-CRC_BYTES:]
    if len(crc) < CRC_BYTES or zlib.crc32(message) != int.from_bytes(crc, "little"):
        return None
    return message


class FrameDecoder:
    """Finds the messages in a stream of bytes that comes in pieces. Damaged frames are left out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that end in ``data``."""
        *bodies, self._rest = (self._rest + data).split(bytes([FLAG]))
        return [message for message in map(decode_body, bodies) if message is not None]
