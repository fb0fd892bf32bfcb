"""Requests out of frames: the header into a register, the payload into the buffer."""

from amaranth.hdl import Cat, Module, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.link.protocol import CRC_BYTES, REQUEST_HEADER

HEADER_LAYOUT = data.StructLayout({"command": unsigned(8), "sequence": unsigned(16), "address": unsigned(32), "count": unsigned(16)})
"""A request's header as its bytes follow one another."""


class RequestReceiver(Component):
    """Collects the frame that comes in; nothing but the buffer, the header and ``length`` changes before the frame has proved whole.

    Parameters
    ----------
    payload_bytes
        Size of the buffer, a power of two.

    Members
    -------
    begin, valid, data, end
        From :class:`~tercel.hw.link.frame.FrameReceiver`.
    write_en, write_addr, write_data
        Into the buffer: byte i of the payload goes to address i.
    header : Out(HEADER_LAYOUT)
        Held from ``request`` on until the next frame begins.
    length : Out(range(payload_bytes + 1))
        Bytes of payload, as ``header``.
    request : Out(1)
        A request is there.
    """

    def __init__(self, *, payload_bytes: int) -> None:
        self._addr_bits = exact_log2(payload_bytes)
        super().__init__(
            {
                "begin": In(1),
                "valid": In(1),
                "data": In(8),
                "end": In(1),
                "write_en": Out(1),
                "write_addr": Out(self._addr_bits),
                "write_data": Out(8),
                "header": Out(HEADER_LAYOUT),
                "length": Out(self._addr_bits + 1),
                "request": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """A position that counts from minus the header's and the CRC's length, so that it ends as the length of the payload."""
        m = Module()
        overhead = REQUEST_HEADER.size + CRC_BYTES
        position = Signal(signed(self._addr_bits + 2), init=-overhead)
        in_header = Signal()
        too_long = Signal()
        # The payload's address runs CRC_BYTES ahead of the position; its own counter costs less than the sum.
        addr = Signal(self._addr_bits + 1)
        m.d.comb += [
            in_header.eq(position[-1] & ~position[2:].all()),
            self.write_en.eq(self.valid & ~in_header & ~addr[-1]),
            self.write_addr.eq(addr),
            self.write_data.eq(self.data),
            self.length.eq(position),
            self.request.eq(self.end & ~position[-1] & ~too_long),
        ]
        with m.If(self.begin):
            m.d.sync += [position.eq(-overhead), addr.eq(0), too_long.eq(0)]
        with m.Elif(self.valid):
            m.d.sync += position.eq(position + 1)
            with m.If(in_header):
                m.d.sync += Value.cast(self.header).eq(Cat(Value.cast(self.header)[8:], self.data))
            with m.Elif(~addr[-1]):
                m.d.sync += addr.eq(addr + 1)
            with m.If(position == 1 << self._addr_bits):
                m.d.sync += too_long.eq(1)
        return m
