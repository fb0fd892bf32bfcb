"""Requests to a machine, each repeated until it is answered or given up."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from tercel.hw.link.protocol import (
    ANSWER,
    ANSWER_HEADER,
    IDENTITY,
    PROTOCOL_VERSION,
    REQUEST_HEADER,
    SEQUENCE_LIMIT,
    Command,
    Status,
)
from tercel.sw.link.frame import FrameDecoder, encode_frame
from tercel.sw.link.transport import LinkError, Transport

CSR_BYTES = 4
_FRAME_OVERHEAD = 2 * (REQUEST_HEADER.size + 4) + 2  # every byte escaped
_CAUSES = {
    Status.BAD_REQUEST: "an address or size is not one of the machine's",
    Status.BUS_ERROR: "the memory refused it",
    Status.BUS_TIMEOUT: "the memory did not answer",
}

Progress = Callable[[int, int], None]
"""Called with the bytes that are done and the whole."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a machine says of itself.

    Attributes
    ----------
    protocol_version
        Of the link.
    memory_width, payload_bytes
        Bytes of the memory port and of the link's buffer.
    config_hash
        See :attr:`~tercel.hw.config.Config.hash`.
    memory_bytes
        Size of its memory.
    clock_hz
        Of its core.
    """

    protocol_version: int
    memory_width: int
    payload_bytes: int
    config_hash: int
    memory_bytes: int
    clock_hz: int


@dataclass(kw_only=True)
class LinkCounts:
    """What a session has seen: requests, repeats of them, and answers that were damaged or belonged to nothing."""

    requests: int = 0
    repeats: int = 0
    strays: int = 0


class Session:
    """A conversation with one machine; a context manager that closes the transport. The machine is identified at once.

    Parameters
    ----------
    transport
        The line.
    timeout_s
        What an answer may take beyond its time on the wire.
    attempts
        How often a request is sent before it is given up.

    Raises
    ------
    LinkError
        From every method: no answer to any attempt, another protocol version, a request that the machine refuses, or another user of
        the same machine. A write that raises may or may not have been done.
    """

    def __init__(self, transport: Transport, *, timeout_s: float = 0.3, attempts: int = 8) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._decoder = FrameDecoder()
        self._sequence = 0
        self.counts = LinkCounts()
        self.identity, self._sequence = self._identify()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    def read_csr(self, address: int, *, count: int = 1) -> list[int]:
        """``count`` registers from byte address ``address`` on."""
        data = self._read(Command.READ_CSR, address, CSR_BYTES * count, None)
        return [int.from_bytes(data[at : at + CSR_BYTES], "little") for at in range(0, len(data), CSR_BYTES)]

    def write_csr(self, address: int, value: int) -> None:
        """Write one register, 0..2**32 - 1."""
        self._request(Command.WRITE_CSR, address, CSR_BYTES, value.to_bytes(CSR_BYTES, "little"))

    def read_memory(self, address: int, length: int, *, progress: Progress | None = None) -> bytes:
        """``length`` bytes of memory from any ``address`` on."""
        self._check_range(address, length)
        width = self.identity.memory_width
        first = address - address % width
        last = -(-(address + length) // width) * width
        return self._read(Command.READ_MEMORY, first, last - first, progress)[address - first :][:length]

    def write_memory(self, address: int, data: bytes, *, progress: Progress | None = None) -> None:
        """Write ``data`` to memory from any ``address`` on. Bytes beside it in the same word of the port are read and written back."""
        self._check_range(address, len(data))
        width = self.identity.memory_width
        before = address % width
        after = -(address + len(data)) % width
        if data and before:
            data = self.read_memory(address - before, before) + data
        if data and after:
            data += self.read_memory(address - before + len(data), after)
        self._write(address - before, data, progress)

    def _check_range(self, address: int, length: int) -> None:
        end = self.identity.memory_bytes
        if not 0 <= address <= address + length <= end:
            raise LinkError(f"address must lie in 0..{end}, not {address}..{address + length} ({self._transport.name} has no more memory)")

    def _read(self, command: Command, address: int, length: int, progress: Progress | None) -> bytes:
        data = b""
        while len(data) < length:
            count = min(self.identity.payload_bytes, length - len(data))
            answer = self._request(command, address + len(data), count, b"")
            if len(answer) != count:
                raise LinkError(f"{self._transport.name} answered {len(answer)} bytes, not {count} (its bitstream is of another release)")
            data += answer
            if progress is not None:
                progress(len(data), length)
        return data

    def _write(self, address: int, data: bytes, progress: Progress | None) -> None:
        for done in range(0, len(data), self.identity.payload_bytes):
            piece = data[done : done + self.identity.payload_bytes]
            self._request(Command.WRITE_MEMORY, address + done, len(piece), piece)
            if progress is not None:
                progress(done + len(piece), len(data))

    def _request(self, command: Command, address: int, count: int, payload: bytes) -> bytes:
        """Carry a request out, once: a repeat has the same number, and the machine does not do it again."""
        self._sequence = (self._sequence + 1) % SEQUENCE_LIMIT
        message = REQUEST_HEADER.pack(command, self._sequence, address, count) + payload
        expected = 0 if payload else count
        answer = self._exchange(message, expected)
        if answer is None:
            raise self._lost()
        status, data = answer
        if status is not Status.OK:
            what = f"{command.name} of {count} bytes at 0x{address:x}"
            raise LinkError(f"{self._transport.name} refused {what} with {status.name}: {_CAUSES[status]}")
        return data

    def _exchange(self, message: bytes, expected: int) -> tuple[Status, bytes] | None:
        """Send until the answer comes: its status and payload, or None. ``expected`` is the size of that payload."""
        command, sequence, _, _ = REQUEST_HEADER.unpack_from(message)
        frame = encode_frame(message)
        wire_s = self._transport.byte_seconds * (len(frame) + _FRAME_OVERHEAD + 2 * expected)
        self.counts.requests += 1
        for attempt in range(self._attempts):
            self.counts.repeats += attempt > 0
            self._transport.write(frame)
            until = self._transport.now() + wire_s + self._timeout_s
            while (left_s := until - self._transport.now()) > 0:
                for answer in self._decoder.feed(self._transport.read(left_s)):
                    if len(answer) >= ANSWER_HEADER.size:
                        answered, number, status = ANSWER_HEADER.unpack_from(answer)
                        if answered == command + ANSWER and number == sequence and status in iter(Status):
                            return Status(status), answer[ANSWER_HEADER.size :]
                    self.counts.strays += 1
        return None

    def _identify(self) -> tuple[Identity, int]:
        """The machine's identity and the number of its last request. The number of this one is random, so that old answers do not count."""
        message = REQUEST_HEADER.pack(Command.IDENTIFY, random.randrange(SEQUENCE_LIMIT), 0, 0)
        answer = self._exchange(message, IDENTITY.size)
        name = self._transport.name
        if answer is None:
            raise LinkError(f"{name} does not answer (is a Tercel bitstream loaded, is it the right port, and the right baud rate?)")
        _, data = answer
        version = data[0] if data else 0
        if version != PROTOCOL_VERSION or len(data) != IDENTITY.size:
            raise LinkError(
                f"{name} must speak version {PROTOCOL_VERSION} of the link, not {version} (build its bitstream with this release)"
            )
        _, sizes, last, config_hash, memory_bytes, clock_hz = IDENTITY.unpack(data)
        identity = Identity(
            protocol_version=version,
            memory_width=1 << (sizes & 15),
            payload_bytes=1 << (sizes >> 4),
            config_hash=config_hash,
            memory_bytes=memory_bytes,
            clock_hz=clock_hz,
        )
        return identity, last

    def _lost(self) -> LinkError:
        """Why a request was not answered."""
        name = self._transport.name
        try:
            identity, last = self._identify()
        except LinkError:
            return LinkError(f"{name} stopped answering (is the board still powered and plugged in?)")
        if identity != self.identity:
            return LinkError(f"{name} is another machine than before (was another bitstream loaded?)")
        asked, self._sequence = self._sequence, last
        if (asked - last) % SEQUENCE_LIMIT > 1:
            return LinkError(f"{name} was reset, or another program uses it too (start again, alone)")
        return LinkError(
            f"{name} lost {self._attempts} requests or their answers one after the other (check the cable, or lower the baud rate)"
        )
