"""The system that goes into a bitstream: accelerator, memory and host link, with pads for ports."""

from dataclasses import dataclass

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from tercel.hw.config import Config
from tercel.hw.interfaces import beat_addr_bits
from tercel.hw.link.link import PAYLOAD_BYTES, Link
from tercel.hw.link.uart import DIVIDER_MIN
from tercel.hw.npu import Npu
from tercel.hw.on_chip_memory import OnChipMemory
from tercel.hw.sdram.controller import SdramController
from tercel.hw.sdram.pins import SdramPinsSignature
from tercel.hw.sdram.timing import SdramChip

BAUD_ERROR_MAX = 0.02
"""Of the line's rate, either way; the other half of what a receiver bears is for the host."""


class SocError(ValueError):
    """A system that cannot be built. The message names the parameter, the limit, the value and the way out."""


@dataclass(frozen=True, kw_only=True)
class OnChip:
    """Memory of the FPGA itself: ``size`` bytes, a power of two."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1024 or self.size & (self.size - 1):
            raise SocError(f"size must be a power of two from 1024 on, not {self.size} (bytes of memory on the FPGA)")


class Soc(Component):
    """Accelerator, memory controller and link in one clock domain.

    Parameters
    ----------
    config
        The accelerator.
    memory
        The chip behind ``sdram``, or memory on the FPGA itself.
    clock_hz
        Of the ``sync`` domain.
    baud
        Of the line; a whole fraction of ``clock_hz``, to 2 %.
    pin_latency
        Registers between ``sdram`` and the chip, see :class:`~tercel.hw.sdram.controller.SdramController`.
    payload_bytes
        Most bytes in one message of the link, a power of two.

    Members
    -------
    rx : In(1), tx : Out(1)
        The line, asynchronous, seen from here.
    sdram : Out(SdramPinsSignature(chip))
        The chip's pins; missing with memory on the FPGA.
    ready : Out(1)
        The memory can be used.
    interrupt : Out(1)
        The accelerator is done or has faulted.

    Raises
    ------
    SocError
        The line's rate cannot be reached.
    SdramError
        The chip does not suit.
    """

    def __init__(
        self,
        config: Config,
        *,
        memory: SdramChip | OnChip,
        clock_hz: int,
        baud: int,
        pin_latency: int = 0,
        payload_bytes: int = PAYLOAD_BYTES,
    ) -> None:
        divider = round(clock_hz / baud)
        if divider < DIVIDER_MIN or abs(clock_hz / divider / baud - 1) > BAUD_ERROR_MAX:
            near = round(clock_hz / max(divider, DIVIDER_MIN))
            raise SocError(f"baud must be a whole fraction of {clock_hz} Hz, 1/{DIVIDER_MIN} at most, not {baud} (the nearest is {near})")
        width, addr_width = config.memory_width, beat_addr_bits(config)
        if isinstance(memory, SdramChip):
            self._memory: Component = SdramController(
                memory, clock_mhz=clock_hz / 1e6, memory_width=width, addr_width=addr_width, pin_latency=pin_latency
            )
            pins, size = {"sdram": Out(SdramPinsSignature(memory))}, memory.bytes
        else:
            self._memory = OnChipMemory(size=memory.size, memory_width=width, addr_width=addr_width)
            pins, size = {}, memory.size
        self._npu = Npu(config)
        self._link = Link(config, memory_bytes=size, clock_hz=clock_hz, divider=divider, payload_bytes=payload_bytes)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), **pins, "ready": Out(1), "interrupt": Out(1)})

    def elaborate(self, platform) -> Module:
        """Connections."""
        m = Module()
        m.submodules.npu = npu = self._npu
        m.submodules.memory = memory = self._memory
        m.submodules.link = link = self._link
        connect(m, link.csr, npu.csr)
        connect(m, npu.memory, memory.npu)
        connect(m, link.memory, memory.host)
        if isinstance(memory, SdramController):
            connect(m, memory.pins, flipped(self.sdram))
        m.d.comb += [
            link.rx.eq(self.rx),
            self.tx.eq(link.tx),
            self.ready.eq(memory.ready),
            self.interrupt.eq(npu.interrupt),
        ]
        return m
