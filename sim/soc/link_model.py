"""What a machine does with the bytes of the link, in plain Python, and a line to it that can be made bad."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tercel.hw.link.protocol import ANSWER, ANSWER_HEADER, IDENTITY, PROTOCOL_VERSION, REQUEST_HEADER, SEQUENCE_LIMIT, Command, Status
from tercel.sw.link.frame import FrameDecoder, encode_frame
from tercel.sw.link.transport import Transport

_COMMANDS = {command.value for command in Command}


class Machine(Protocol):
    """What lies behind the link: registers, and a memory that requests change in place."""

    memory: bytearray

    def read_csr(self, address: int) -> int:
        """The register at a byte address."""
        ...

    def write_csr(self, address: int, value: int) -> None:
        """Write a register."""
        ...


@dataclass(kw_only=True)
class LinkModel:
    """The gateware's half of the link.

    Attributes
    ----------
    machine
        What requests act on.
    memory_width, payload_bytes, config_hash, clock_hz
        Of the machine.
    """

    machine: Machine
    memory_width: int
    payload_bytes: int = 2048
    config_hash: int = 0
    clock_hz: int = 48_000_000
    _last: int = 0
    _status: Status = Status.OK
    _decoder: FrameDecoder = field(default_factory=FrameDecoder)

    def feed(self, data: bytes) -> bytes:
        """The bytes that come back for ``data``."""
        return b"".join(encode_frame(answer) for answer in map(self.answer, self._decoder.feed(data)) if answer is not None)

    def answer(self, message: bytes) -> bytes | None:
        """What a request is answered, None if it is not."""
        length = len(message) - REQUEST_HEADER.size
        if not 0 <= length <= self.payload_bytes:
            return None
        command, sequence, address, count = REQUEST_HEADER.unpack_from(message)
        head = command | ANSWER, sequence
        if command == Command.IDENTIFY:
            sizes = self.memory_width.bit_length() - 1 | self.payload_bytes.bit_length() - 1 << 4
            values = PROTOCOL_VERSION, sizes, self._last, self.config_hash, len(self.machine.memory), self.clock_hz
            return ANSWER_HEADER.pack(*head, Status.OK) + IDENTITY.pack(*values)
        steps = (sequence - self._last) % SEQUENCE_LIMIT
        if steps > 1:
            return None
        self._last = sequence
        if steps == 0 and command & 1:
            return ANSWER_HEADER.pack(*head, self._status)
        self._status, data = self._carry_out(command, address, count, message[REQUEST_HEADER.size :])
        return ANSWER_HEADER.pack(*head, self._status) + data

    def _carry_out(self, command: int, address: int, count: int, payload: bytes) -> tuple[Status, bytes]:
        unit = self.memory_width if command & 4 else 4
        writes = command & 1
        if (
            command not in _COMMANDS
            or not 1 <= count <= self.payload_bytes
            or address % unit
            or count % unit
            or len(payload) != (count if writes else 0)
        ):
            return Status.BAD_REQUEST, b""
        if command & 4:
            end = min(address + count, len(self.machine.memory))
            status = Status.OK if end == address + count else Status.BUS_ERROR
            if writes:
                if address < end:
                    self.machine.memory[address:end] = payload[: end - address]
                return status, b""
            return status, bytes(self.machine.memory[address:end]) if status is Status.OK else b""
        # The bus of the registers has 10 bits that count words.
        addresses = [at % 4096 for at in range(address, address + count, unit)]
        if not writes:
            return Status.OK, b"".join(self.machine.read_csr(at).to_bytes(4, "little") for at in addresses)
        for index, at in enumerate(addresses):
            self.machine.write_csr(at, int.from_bytes(payload[4 * index : 4 * index + 4], "little"))
        return Status.OK, b""


class ModelTransport:
    """A line to a :class:`LinkModel` that takes no time but while nothing comes.

    Parameters
    ----------
    model
        The other end.
    """

    def __init__(self, model: LinkModel) -> None:
        self.model = model
        self.name = "model"
        self.byte_seconds = 0.0
        self._now = 0.0
        self._waiting = b""

    def now(self) -> float:
        """As :meth:`~tercel.sw.link.transport.Transport.now`."""
        return self._now

    def write(self, data: bytes) -> None:
        """As :meth:`~tercel.sw.link.transport.Transport.write`."""
        self._waiting += self.model.feed(data)

    def read(self, timeout_s: float) -> bytes:
        """As :meth:`~tercel.sw.link.transport.Transport.read`."""
        if not self._waiting:
            self._now += timeout_s
        data, self._waiting = self._waiting, b""
        return data

    def close(self) -> None:
        """Nothing to give back."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What a bad line does: to each piece that is written or read, with these chances. 0..1 each, together at most 1."""

    corrupt: float = 0.0
    truncate: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    insert: float = 0.0


@dataclass(kw_only=True)
class NoiseCounts:
    """How many pieces were spoiled, and how many passed."""

    passed: int = 0
    spoiled: int = 0


class NoisyTransport:
    """A line that spoils what crosses it in both directions: bits flip, ends are cut off, frames come twice, or late, or rubbish comes.

    Parameters
    ----------
    transport
        The line behind it.
    noise
        How bad it is.
    seed
        Of the chances.
    """

    def __init__(self, transport: Transport, *, noise: Noise, seed: int) -> None:
        self._transport = transport
        self._noise = noise
        self._random = random.Random(seed)
        self._late: dict[str, deque[bytes]] = {"to": deque(maxlen=8), "from": deque(maxlen=8)}
        self.name = transport.name
        self.byte_seconds = transport.byte_seconds
        self.counts = NoiseCounts()

    def now(self) -> float:
        """As :meth:`~tercel.sw.link.transport.Transport.now`."""
        return self._transport.now()

    def write(self, data: bytes) -> None:
        """As :meth:`~tercel.sw.link.transport.Transport.write`, most of the time."""
        self._transport.write(self._spoil(data, "to"))

    def read(self, timeout_s: float) -> bytes:
        """As :meth:`~tercel.sw.link.transport.Transport.read`, most of the time."""
        data = self._transport.read(timeout_s)
        return self._spoil(data, "from") if data else data

    def close(self) -> None:
        """As :meth:`~tercel.sw.link.transport.Transport.close`."""
        self._transport.close()

    def _spoil(self, data: bytes, direction: str) -> bytes:
        late = self._late[direction]
        early = late.popleft() if late and self._random.random() < 0.5 else b""
        kinds: list[tuple[float, Callable[[bytes], bytes]]] = [
            (self._noise.corrupt, self._flip),
            (self._noise.truncate, lambda piece: piece[: self._random.randrange(len(piece))]),
            (self._noise.duplicate, lambda piece: piece + piece),
            (self._noise.insert, self._insert),
        ]
        draw = self._random.random()
        for chance, change in kinds:
            if draw < chance:
                self.counts.spoiled += 1
                return early + change(data)
            draw -= chance
        if draw < self._noise.delay:
            self.counts.spoiled += 1
            late.append(data)
            return early
        self.counts.passed += 1
        return early + data

    def _flip(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._random.choice((1, 1, 2, 8))):
            changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _insert(self, data: bytes) -> bytes:
        at = self._random.randrange(len(data) + 1)
        return data[:at] + self._random.randbytes(self._random.randint(1, 8)) + data[at:]
