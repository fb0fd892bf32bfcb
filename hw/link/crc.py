"""The frames' checksum, a bit a cycle: a byte takes longer than that on the wire."""

from amaranth.hdl import Module, Signal
from amaranth.lib.crc.catalog import CRC32_ETHERNET
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.link.protocol import CRC_BYTES


class SerialCrc(Component):
    """CRC-32 (IEEE 802.3) of a sequence of bytes.

    Members
    -------
    clear : In(1)
        Begin again; wins over ``valid``.
    valid : In(1)
        Add ``data``; not while ``busy``.
    data : In(8)
        A byte.
    busy : Out(1)
        For 8 cycles after ``valid``.
    crc : Out(32)
        Checksum of the bytes so far, when not busy.
    match : Out(1)
        The last 4 bytes were the checksum of those before; when not busy.
    """

    def __init__(self) -> None:
        super().__init__({"clear": In(1), "valid": In(1), "data": In(8), "busy": Out(1), "crc": Out(8 * CRC_BYTES), "match": Out(1)})

    def elaborate(self, platform) -> Module:
        """A shift register feeds the bits in the order of the wire, lowest first."""
        m = Module()
        m.submodules.serial = serial = CRC32_ETHERNET(data_width=1).create()
        shift = Signal(8)
        left = Signal(4)
        m.d.comb += [
            self.busy.eq(left != 0),
            serial.start.eq(self.clear),
            serial.valid.eq(self.busy),
            serial.data.eq(shift[0]),
            self.crc.eq(serial.crc),
            self.match.eq(serial.match_detected),
        ]
        with m.If(self.busy):
            m.d.sync += [shift.eq(shift >> 1), left.eq(left - 1)]
        with m.If(self.valid):
            m.d.sync += [shift.eq(self.data), left.eq(8)]
        with m.If(self.clear):
            m.d.comb += serial.valid.eq(0)
            m.d.sync += left.eq(0)
        return m
