"""Answers, byte by byte."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.late_mux import late_mux
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
    command, sequence, status, has_data, count, last_sequence
        Of the answer, which holds ``count`` bytes of the buffer if ``has_data``; held while ``send`` is 1.
    send : In(1)
        Send it; to be taken back when it has left, before the next.
    buffer_addr : Out, buffer_data : In(8)
        The buffer; what is read comes a cycle later.
    o : Out(stream.Signature(MESSAGE_LAYOUT))
        The message.
    """

    def __init__(self, *, payload_bytes: int, identity: bytes) -> None:
        self._payload_bytes = payload_bytes
        self._identity = identity
        addr_bits = exact_log2(payload_bytes)
        super().__init__(
            {
                "command": In(8),
                "sequence": In(16),
                "status": In(2),
                "has_data": In(1),
                "count": In(addr_bits + 1),
                "last_sequence": In(16),
                "send": In(1),
                "buffer_addr": Out(addr_bits),
                "buffer_data": In(8),
                "o": Out(stream.Signature(MESSAGE_LAYOUT)),
            }
        )

    def elaborate(self, platform) -> Module:
        """``following`` counts the bytes of the header, then those of the payload.

        Each byte waits for the buffer and then for a register; which is the last of its part is known as late.
        """
        m = Module()
        place = Signal(range(self._payload_bytes))
        following = Signal(len(self.count), init=1)
        in_payload = Signal()
        fetched = Signal()
        loaded = Signal()
        over = Signal()
        identify = Signal()
        size = Signal(len(self.count))
        last = Signal()
        last_part = Signal()
        header = Cat(self.command | ANSWER, self.sequence, self.status, Const(0, 6))
        assert len(header) == 8 * ANSWER_HEADER.size
        identity = [Const(byte, 8) for byte in self._identity]
        identity[2:4] = self.last_sequence[:8], self.last_sequence[8:]
        own = Mux(in_payload, Array(identity)[place[: exact_log2(IDENTITY.size)]], header.word_select(place[:2], 8))
        stored = in_payload & ~identify
        # What the buffer gives comes late in a cycle, so this register has no reset, which would take a LUT.
        data = Signal(8, reset_less=True)
        m.d.sync += data.eq(late_mux(m, stored, self.buffer_data, own, width=8, name="choice"))
        m.d.comb += [
            identify.eq(self.command == Command.IDENTIFY),
            self.buffer_addr.eq(place),
            self.o.valid.eq(loaded),
            self.o.p.data.eq(data),
            self.o.p.last.eq(last & last_part),
        ]
        m.d.sync += [
            fetched.eq(self.send),
            loaded.eq(fetched & ~over),
            size.eq(Mux(in_payload, Mux(identify, IDENTITY.size, self.count), ANSWER_HEADER.size)),
            last.eq(following == size),
            last_part.eq(in_payload | ~(identify | self.has_data)),
        ]
        with m.If(~self.send):
            m.d.sync += [over.eq(0), in_payload.eq(0)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [place.eq(following), following.eq(following + 1), fetched.eq(0), loaded.eq(0), over.eq(self.o.p.last)]
            with m.If(last):
                m.d.sync += [place.eq(0), following.eq(1), in_payload.eq(1)]
        return m
