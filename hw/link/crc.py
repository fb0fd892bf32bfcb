"""The frames' checksum, a bit a cycle: a byte takes longer than that on the wire."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.link.protocol import CRC_BYTES

_POLYNOMIAL = 0xEDB88320
"""IEEE 802.3, lowest bit first."""

_RESIDUE = 0xDEBB20E3
"""What the register holds after any bytes and their checksum."""


class SerialCrc(Component):
    """CRC-32 (IEEE 802.3) of a sequence of bytes.

    Members
    -------
    clear : In(1)
        Begin again; not while ``busy``, nor with ``add`` or ``drop``.
    add : In(1)
        Add ``data``; not while ``busy``.
    drop : In(1)
        Go on to the next byte of the checksum; not while ``busy``, and nothing can be added before the next ``clear``.
    data : In(8)
        A byte.
    busy : Out(1)
        For 8 cycles after ``add`` or ``drop``.
    byte : Out(8)
        The checksum's lowest byte, and after each ``drop`` its next one; when not busy.
    match : Out(1)
        The last 4 bytes added were the checksum of those before; when not busy.
    """

    def __init__(self) -> None:
        super().__init__({"clear": In(1), "add": In(1), "drop": In(1), "data": In(8), "busy": Out(1), "byte": Out(8), "match": Out(1)})

    def elaborate(self, platform) -> Module:
        """A shift register with feedback, the inverse of the checksum; bits go in in the order of the wire, lowest first."""
        m = Module()
        register = Signal(8 * CRC_BYTES, init=-1)
        shift = Signal(8)
        left = Signal(4)
        adding = Signal()
        feedback = (register[0] ^ shift[0]) & adding
        m.d.comb += [self.busy.eq(left != 0), self.byte.eq(~register), self.match.eq(register == _RESIDUE)]
        with m.If(self.busy):
            m.d.sync += [
                shift.eq(shift >> 1),
                left.eq(left - 1),
                register.eq(Cat(register[1:], 0) ^ Mux(feedback, _POLYNOMIAL, 0)),
            ]
        with m.If(self.add | self.drop):
            m.d.sync += [shift.eq(self.data), left.eq(8), adding.eq(self.add)]
        with m.If(self.clear):
            m.d.sync += register.eq(-1)
        return m
