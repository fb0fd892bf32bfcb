"""Frames out of and into bytes; see :mod:`tercel.hw.link.protocol`."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.link.protocol import CRC_BYTES, ESCAPE, FLAG, FLIP
from tercel.hw.link.uart import RECEIVED_LAYOUT

MESSAGE_LAYOUT = data.StructLayout({"data": unsigned(8), "last": unsigned(1)})
"""A byte of a message to send."""


class FrameReceiver(Component):
    """The bytes of each frame, and at its end whether it was whole.

    Bytes must come at least 9 cycles apart. Each leaves in the cycle in which it came, ``end`` is in the cycle of the closing FLAG.

    Members
    -------
    i : In(stream.Signature(RECEIVED_LAYOUT, always_ready=True))
        From the line.
    enable : In(1)
        Else nothing is received until the FLAG after it has become 1 again.
    begin : Out(1)
        A FLAG: a frame may begin.
    valid : Out(1)
        ``data`` is the next byte of the frame, CRC included.
    data : Out(8)
        That byte.
    crc_match : In(1)
        The bytes so far end with their CRC.
    end : Out(1)
        A frame with a right CRC and without any error has ended.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "i": In(stream.Signature(RECEIVED_LAYOUT, always_ready=True)),
                "enable": In(1),
                "begin": Out(1),
                "valid": Out(1),
                "data": Out(8),
                "crc_match": In(1),
                "end": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """A frame is open from a FLAG to the first thing that is wrong."""
        m = Module()
        byte = self.i.p.data
        is_open = Signal()
        escaped = Signal()
        sound = Signal()
        m.d.comb += [
            sound.eq(self.i.valid & ~self.i.p.error & self.enable),
            self.data.eq(byte ^ Mux(escaped, FLIP, 0)),
        ]
        with m.If(sound & (byte == FLAG)):
            m.d.comb += [self.begin.eq(1), self.end.eq(is_open & ~escaped & self.crc_match)]
            m.d.sync += [is_open.eq(1), escaped.eq(0)]
        with m.Elif(sound & is_open):
            with m.If(byte == ESCAPE):
                m.d.sync += [escaped.eq(1), is_open.eq(~escaped)]
            with m.Else():
                m.d.comb += self.valid.eq(1)
                m.d.sync += escaped.eq(0)
        with m.Elif(self.i.valid | ~self.enable):
            m.d.sync += is_open.eq(0)
        return m


class FrameTransmitter(Component):
    """Sends messages as frames.

    A byte is taken at most every 11 cycles.

    Members
    -------
    i : In(stream.Signature(MESSAGE_LAYOUT))
        Messages of at least one byte.
    o : Out(stream.Signature(8))
        To the line.
    crc_clear, crc_add, crc_drop : Out(1)
        For :class:`~tercel.hw.link.crc.SerialCrc`; what it adds is the payload of ``i``.
    crc_busy : In(1), crc_byte : In(8)
        From it.
    sent : Out(1)
        The last byte of a frame is taken in this cycle.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "i": In(stream.Signature(MESSAGE_LAYOUT)),
                "o": Out(stream.Signature(8)),
                "crc_clear": Out(1),
                "crc_add": Out(1),
                "crc_drop": Out(1),
                "crc_busy": In(1),
                "crc_byte": In(8),
                "sent": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """FLAG, message, the CRC's bytes, FLAG; a byte that needs it leaves as two.

        A byte passes two registers, since the line is slow: the one that was picked, and what leaves for it.
        """
        m = Module()
        crc_index = Signal(range(CRC_BYTES))
        escaped = Signal()
        is_there = Signal()
        in_crc = Signal()
        at_border = Signal()
        byte = Signal(8, reset_less=True)
        picked = Signal()
        escape = Signal()
        special = Signal()
        leaves = Signal()
        taken = Signal()
        m.d.comb += [
            escape.eq(((byte == FLAG) | (byte == ESCAPE)) & ~escaped & ~at_border),
            leaves.eq(self.o.valid & self.o.ready),
            taken.eq(leaves & ~special),
        ]
        m.d.sync += [
            byte.eq(Mux(in_crc, self.crc_byte, self.i.p.data)),
            picked.eq(is_there & ~self.crc_busy & ~leaves),
            self.o.valid.eq(picked & ~leaves),
            special.eq(escape),
            self.o.payload.eq(Mux(at_border, FLAG, Mux(escape, ESCAPE, byte ^ Mux(escaped, FLIP, 0)))),
        ]
        with m.If(leaves):
            m.d.sync += escaped.eq(special)

        with m.FSM():
            with m.State("BEGIN"):
                m.d.comb += [is_there.eq(self.i.valid), at_border.eq(1)]
                with m.If(taken):
                    m.d.comb += self.crc_clear.eq(1)
                    m.next = "MESSAGE"
            with m.State("MESSAGE"):
                m.d.comb += [is_there.eq(self.i.valid), self.i.ready.eq(taken), self.crc_add.eq(taken)]
                with m.If(taken & self.i.p.last):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [is_there.eq(1), in_crc.eq(1)]
                with m.If(taken):
                    m.d.comb += self.crc_drop.eq(1)
                    m.d.sync += crc_index.eq(crc_index + 1)
                    with m.If(crc_index == CRC_BYTES - 1):
                        m.next = "END"
            with m.State("END"):
                m.d.comb += [is_there.eq(1), at_border.eq(1)]
                with m.If(taken):
                    m.d.comb += self.sent.eq(1)
                    m.next = "BEGIN"
        return m
