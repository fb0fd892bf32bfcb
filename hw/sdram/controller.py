"""The SDRAM controller: two memory ports on one chip."""

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.interfaces import WishboneSignature
from tercel.hw.sdram.pins import SdramPinsSignature
from tercel.hw.sdram.timing import SdramChip


class SdramController(Component):
    """Serves the accelerator's memory port and, in the gaps, a second one of the same kind.

    Answers come in the order of each port's requests. A port that lets ``cyc`` fall gives up what it has outstanding: it gets no
    answers for that any more (whether such a write is made is not said), and is stalled until all of it has gone by.

    Parameters
    ----------
    chip
        On the pins.
    clock_mhz
        Of the ``sync`` domain, in which controller and chip run; at most what the chip allows.
    memory_width
        Bytes of a beat: a power of two, 1..16, and at most 8 times the chip's width.
    addr_width
        Bits of ``adr``, which counts beats.
    pin_latency
        Cycles by which registers of the board between ``pins`` and the chip delay a word read: those on the command's way out
        and those on the data's way back, added. Command and data going out must be delayed alike.

    Members
    -------
    npu : In(WishboneSignature(addr_width=addr_width, data_width=8 * memory_width))
        Goes first. ``err`` answers a beat past the end of the chip.
    host : In(WishboneSignature(addr_width=addr_width, data_width=8 * memory_width))
        Goes when ``npu`` asks for nothing, or after it has waited for 15 beats of it.
    pins : Out(SdramPinsSignature(chip))
        The chip.
    ready : Out(1)
        The chip is initialised (both ports may ask earlier and wait).
    """

    def __init__(self, chip: SdramChip, *, clock_mhz: float, memory_width: int, addr_width: int, pin_latency: int = 0) -> None:
        self._chip = chip
        super().__init__(
            {
                "npu": In(WishboneSignature(addr_width=addr_width, data_width=8 * memory_width)),
                "host": In(WishboneSignature(addr_width=addr_width, data_width=8 * memory_width)),
                "pins": Out(SdramPinsSignature(chip)),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Ports, controller, chip."""
        return Module()
