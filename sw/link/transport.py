"""Bytes to and from a machine."""

import time
from contextlib import suppress
from typing import Any, Protocol


class LinkError(RuntimeError):
    """The machine does not answer, or is not the one that was expected. The message names the line, what happened and what to do."""


class Transport(Protocol):
    """A line to a machine, in both directions, that may lose or change bytes.

    Attributes
    ----------
    name
        For messages.
    byte_seconds
        How long one byte is on the wire.
    """

    name: str
    byte_seconds: float

    def now(self) -> float:
        """Seconds, on the clock that time-outs are measured by."""
        ...

    def write(self, data: bytes) -> None:
        """Send; may return before the bytes have left. :class:`LinkError` if the line is gone."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """What has come, at least one byte; nothing after ``timeout_s`` seconds without any. :class:`LinkError` if the line is gone."""
        ...

    def close(self) -> None:
        """Give the line back."""
        ...


class SerialTransport:
    """A serial port of this computer, used by nobody else as long as it is open.

    Parameters
    ----------
    port
        As the operating system calls it, for example ``/dev/ttyUSB0``.
    baud
        Bits a second, as the machine was built for.

    Raises
    ------
    LinkError
        It cannot be opened.
    """

    def __init__(self, port: str, *, baud: int) -> None:
        import serial

        self.name = port
        self.byte_seconds = 10 / baud
        self._errors: tuple[type[Exception], ...] = (serial.SerialException, OSError, ValueError)
        try:
            self._serial: Any = serial.Serial(port, baudrate=baud, timeout=0, write_timeout=5, exclusive=True)
        except self._errors as error:
            raise LinkError(
                f"{port} cannot be opened at {baud} baud: {error} (is the board plugged in, and have you the right to use it?)"
            ) from error
        # USB bridges hold short answers back for up to 16 ms unless told otherwise, which only Linux can, and not to every bridge.
        with suppress(*self._errors, AttributeError):
            self._serial.set_low_latency_mode(True)

    def now(self) -> float:
        """As :meth:`Transport.now`."""
        return time.monotonic()

    def write(self, data: bytes) -> None:
        """As :meth:`Transport.write`."""
        try:
            self._serial.write(data)
        except self._errors as error:
            raise self._gone(error) from error

    def read(self, timeout_s: float) -> bytes:
        """As :meth:`Transport.read`."""
        try:
            self._serial.timeout = timeout_s
            data: bytes = self._serial.read(1)
            return data + self._serial.read(self._serial.in_waiting) if data else data
        except self._errors as error:
            raise self._gone(error) from error

    def close(self) -> None:
        """As :meth:`Transport.close`."""
        self._serial.close()

    def _gone(self, error: Exception) -> LinkError:
        return LinkError(f"{self.name} is gone: {error} (was the cable unplugged?)")
