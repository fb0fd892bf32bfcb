"""Asynchronous serial bytes: 8 data bits, lowest first, no parity, one stop bit."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out

DIVIDER_MIN = 4
"""Clock cycles a bit: the receiver samples in the middle of one, and finds its start to one cycle."""

RECEIVED_LAYOUT = data.StructLayout({"data": unsigned(8), "error": unsigned(1)})
"""A byte, or (``error``) a place where the stop bit was missing and ``data`` means nothing."""

_FRAME_BITS = 10


def check_divider(divider: int) -> None:
    """``ValueError`` if a bit of ``divider`` cycles cannot be received."""
    if divider < DIVIDER_MIN:
        raise ValueError(f"divider must be at least {DIVIDER_MIN}, not {divider} (take a lower baud rate or a faster clock)")


class UartReceiver(Component):
    """Bytes from a pin. ``o.valid`` is 1 for one cycle, half a bit before the end of the stop bit; a byte that is not taken then is lost.

    Baud rates that differ by up to 4 % are understood (for a divider of 16 or more). After a missing stop bit the receiver waits for
    a high level before it looks for the next start bit, so that a broken line gives one error and no bytes.

    Parameters
    ----------
    divider
        Clock cycles a bit, at least DIVIDER_MIN.

    Members
    -------
    pin : In(1)
        Asynchronous.
    o : Out(stream.Signature(RECEIVED_LAYOUT, always_ready=True))
        What was received.
    """

    def __init__(self, *, divider: int) -> None:
        check_divider(divider)
        self._divider = divider
        super().__init__({"pin": In(1, init=1), "o": Out(stream.Signature(RECEIVED_LAYOUT, always_ready=True))})

    def elaborate(self, platform) -> Module:
        """Ten samples a byte, the first in the middle of the start bit."""
        m = Module()
        level = Signal(init=1)
        m.submodules += FFSynchronizer(self.pin, level, init=1)
        wait = Signal(range(self._divider))
        waited = Signal()
        bits = Signal(range(_FRAME_BITS))
        samples = Signal(8, reset_less=True)
        received = self.o.p
        m.d.sync += [self.o.valid.eq(0), waited.eq(0)]
        m.d.comb += received.data.eq(samples)

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [wait.eq(self._divider // 2 - 1), bits.eq(0)]
                with m.If(~level):
                    m.next = "BITS"
            with m.State("BITS"):
                m.d.sync += [wait.eq(wait - 1), waited.eq(wait == 1)]
                with m.If(waited):
                    m.d.sync += [wait.eq(self._divider - 1), bits.eq(bits + 1)]
                    with m.If((bits == 0) & level):
                        m.next = "IDLE"  # a spike, no start bit
                    with m.If(bits == _FRAME_BITS - 1):
                        m.d.sync += [received.error.eq(~level), self.o.valid.eq(1)]
                        m.next = "END"
                    with m.Else():
                        m.d.sync += samples.eq(Cat(samples[1:], level))
            with m.State("END"), m.If(level):
                m.next = "IDLE"
        return m


class UartTransmitter(Component):
    """Bytes to a pin, one every 10 bits when they come fast enough.

    Parameters
    ----------
    divider
        Clock cycles a bit, at least DIVIDER_MIN.

    Members
    -------
    i : In(stream.Signature(8))
        The bytes; one is taken when the one before has left. ``ready`` comes from a register.
    pin : Out(1)
        High when nothing is sent.
    """

    def __init__(self, *, divider: int) -> None:
        check_divider(divider)
        self._divider = divider
        super().__init__({"i": In(stream.Signature(8)), "pin": Out(1, init=1)})

    def elaborate(self, platform) -> Module:
        """A shift register with a start bit below and ones above the byte."""
        m = Module()
        shift = Signal(_FRAME_BITS - 1, init=-1)
        wait = Signal(range(self._divider))
        bits = Signal(range(_FRAME_BITS + 1))
        ready = Signal(init=1)
        m.d.comb += [self.i.ready.eq(ready), self.pin.eq(shift[0])]
        with m.If(~ready):
            m.d.sync += wait.eq(wait - 1)
            with m.If(wait == 0):
                m.d.sync += [shift.eq(Cat(shift[1:], 1)), bits.eq(bits - 1), wait.eq(self._divider - 1), ready.eq(bits == 1)]
        with m.Elif(self.i.valid):
            m.d.sync += [ready.eq(0), shift.eq(Cat(0, self.i.payload)), bits.eq(_FRAME_BITS), wait.eq(self._divider - 1)]
        return m
