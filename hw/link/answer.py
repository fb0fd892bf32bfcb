"""Answers, byte by byte."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.link.frame import MESSAGE_LAYOUT
from tercel.hw.link.protocol import ANSWER, ANSWER_HEADER, IDENTITY, Command


class AnswerSender(Component):
    """Sends one answer: header, then the identity or bytes of the buffer.

    Parameters
    ----------
    payload_bytes
        Size of the buffer, a power of two.
    identity
        Payload of the answer to IDENTIFY, with the number of the last request left 0.

    Members
    -------
    command, sequence, status, count, last_sequence
        Of the answer; held while ``send`` is 1.
    send : In(1)
        Send it; to be taken back in the cycle after ``sent``.
    sent : Out(1)
        The last byte is taken in this cycle.
    buffer_addr : Out, buffer_data : In(8)
        The buffer; what is read comes a cycle later.
    o : Out(stream.Signature(MESSAGE_LAYOUT))
        The message.
    """

    def __init__(self, *, payload_bytes: int, identity: bytes) -> None:
        self._identity = identity
        addr_bits = exact_log2(payload_bytes)
        super().__init__(
            {
                "command": In(8),
                "sequence": In(16),
                "status": In(2),
                "count": In(addr_bits + 1),
                "last_sequence": In(16),
                "send": In(1),
                "sent": Out(1),
                "buffer_addr": Out(addr_bits),
                "buffer_data": In(8),
                "o": Out(stream.Signature(MESSAGE_LAYOUT)),
            }
        )

    def elaborate(self, platform) -> Module:
        """``place`` counts the bytes of the header, then those of the payload; each waits a cycle for the buffer."""
        m = Module()
        place = Signal(len(self.count))
        in_payload = Signal()
        fetched = Signal()
        last_index = Signal(len(self.count))
        empty = Signal()
        identify = Signal()
        header = Cat(self.command | ANSWER, self.sequence, self.status, Const(0, 6))
        assert len(header) == 8 * ANSWER_HEADER.size
        identity = [Const(byte, 8) for byte in self._identity]
        identity[2:4] = self.last_sequence[:8], self.last_sequence[8:]
        payload = Mux(identify, Array(identity)[place[: exact_log2(IDENTITY.size)]], self.buffer_data)
        m.d.comb += [
            identify.eq(self.command == Command.IDENTIFY),
            empty.eq(~identify & (self.count == 0)),
            last_index.eq(Mux(identify, IDENTITY.size, self.count) - 1),
            self.buffer_addr.eq(place),
            self.o.valid.eq(self.send & fetched),
            self.o.p.data.eq(Mux(in_payload, payload, header.word_select(place[:2], 8))),
            self.o.p.last.eq(Mux(in_payload, place == last_index, empty & (place == ANSWER_HEADER.size - 1))),
            self.sent.eq(self.o.valid & self.o.ready & self.o.p.last),
        ]
        m.d.sync += fetched.eq(self.send)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [place.eq(place + 1), fetched.eq(0)]
            with m.If(self.sent | (~in_payload & (place == ANSWER_HEADER.size - 1))):
                m.d.sync += [place.eq(0), in_payload.eq(~self.sent)]
        return m
