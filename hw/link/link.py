"""The host link: a serial line in, the two buses of the machine out.

::

    rx -> UartReceiver -> FrameReceiver -> RequestReceiver -> Executor -> csr, memory
                                                 |  buffer  |   |
    tx <- UartTransmitter <- FrameTransmitter <- AnswerSender <-+

One request at a time: while one is carried out and answered nothing is received.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.interfaces import WishboneSignature, beat_addr_bits
from tercel.hw.link.answer import AnswerSender
from tercel.hw.link.bus import CSR_BYTES, TIMEOUT_CYCLES
from tercel.hw.link.crc import SerialCrc
from tercel.hw.link.executor import Executor
from tercel.hw.link.frame import FrameReceiver, FrameTransmitter
from tercel.hw.link.protocol import IDENTITY, PROTOCOL_VERSION
from tercel.hw.link.request import RequestReceiver
from tercel.hw.link.uart import UartReceiver, UartTransmitter
from tercel.hw.memory.block import block_memory, block_read

PAYLOAD_BYTES = 2048
"""One block of ECP5 or Gowin memory."""


class Link(Component):
    """Reads and writes registers and memory for a host at the other end of a serial line; see :mod:`tercel.hw.link.protocol`.

    Parameters
    ----------
    config
        The machine; its hash tells a host which programs run here.
    memory_bytes
        Size of the memory; for the host, nothing is checked against it.
    clock_hz
        For the host.
    divider
        Clock cycles a bit on the line.
    payload_bytes
        Size of the buffer, a power of two, 32..32768.
    timeout_cycles
        After which an access to a bus is given up; a power of two.

    Members
    -------
    rx : In(1), tx : Out(1)
        The line, seen from here.
    csr, memory
        The registers and the memory port, one access at a time.
    """

    def __init__(
        self,
        config: Config,
        *,
        memory_bytes: int,
        clock_hz: int,
        divider: int,
        payload_bytes: int = PAYLOAD_BYTES,
        timeout_cycles: int = TIMEOUT_CYCLES,
    ) -> None:
        if not 32 <= payload_bytes <= 1 << 15 or payload_bytes & (payload_bytes - 1):
            raise ValueError(f"payload_bytes must be a power of two in 32..32768, not {payload_bytes} (one block of memory is enough)")
        self._config = config
        self._divider = divider
        self._payload_bytes = payload_bytes
        self._timeout_cycles = timeout_cycles
        sizes = exact_log2(config.memory_width) | exact_log2(payload_bytes) << 4
        self._identity = IDENTITY.pack(PROTOCOL_VERSION, sizes, 0, config.hash, memory_bytes, clock_hz)
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "csr": Out(WishboneSignature(addr_width=10, data_width=8 * CSR_BYTES)),
                "memory": Out(WishboneSignature(addr_width=beat_addr_bits(config), data_width=8 * config.memory_width)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Connections; the buffer and the CRC, which go from receiving to carrying out to answering."""
        m = Module()
        m.submodules.uart_receiver = uart_receiver = UartReceiver(divider=self._divider)
        m.submodules.frame_receiver = frame_receiver = FrameReceiver()
        m.submodules.request = request = RequestReceiver(payload_bytes=self._payload_bytes)
        m.submodules.executor = executor = Executor(self._config, payload_bytes=self._payload_bytes, timeout_cycles=self._timeout_cycles)
        m.submodules.crc = crc = SerialCrc()
        m.submodules.answer = answer = AnswerSender(payload_bytes=self._payload_bytes, identity=self._identity)
        m.submodules.frame_transmitter = frame_transmitter = FrameTransmitter()
        m.submodules.uart_transmitter = uart_transmitter = UartTransmitter(divider=self._divider)
        m.submodules.buffer = buffer = block_memory(shape=8, depth=self._payload_bytes, ram_style="block")
        write = buffer.write_port()
        read = block_read(m, buffer, en=1, addr=Mux(executor.answer, answer.buffer_addr, executor.buffer_addr), name="buffer_byte")

        # What has come or gone, and whether its checksum is right, waits a cycle for those who look at all of it; bytes are 40 apart or
        # more.
        begins, valid, ends, matches = (Signal(name=name) for name in ("begins", "valid", "ends", "matches"))
        received = Signal(8, reset_less=True)
        m.d.sync += [
            begins.eq(frame_receiver.begin),
            valid.eq(frame_receiver.valid),
            ends.eq(frame_receiver.end),
            received.eq(frame_receiver.data),
            matches.eq(crc.match),
            executor.answered.eq(frame_transmitter.sent),
        ]
        connect(m, uart_receiver.o, frame_receiver.i)
        connect(m, answer.o, frame_transmitter.i)
        connect(m, frame_transmitter.o, uart_transmitter.i)
        connect(m, executor.csr, flipped(self.csr))
        connect(m, executor.memory, flipped(self.memory))
        m.d.comb += [
            uart_receiver.pin.eq(self.rx),
            self.tx.eq(uart_transmitter.pin),
            frame_receiver.enable.eq(~executor.busy),
            frame_receiver.crc_match.eq(matches),
            frame_transmitter.crc_busy.eq(crc.busy),
            frame_transmitter.crc_byte.eq(crc.byte),
            crc.clear.eq(begins | frame_transmitter.crc_clear),
            crc.add.eq(valid | frame_transmitter.crc_add),
            crc.drop.eq(frame_transmitter.crc_drop),
            crc.data.eq(Mux(executor.busy, answer.o.p.data, received)),
            request.begin.eq(begins),
            request.valid.eq(valid),
            request.data.eq(received),
            request.end.eq(ends),
            executor.request.eq(request.request),
            executor.header.eq(request.header),
            executor.length.eq(request.length),
            executor.buffer_data_r.eq(read),
            answer.command.eq(request.header.command),
            answer.sequence.eq(request.header.sequence),
            answer.status.eq(executor.status),
            answer.has_data.eq(executor.has_data),
            answer.count.eq(request.header.count),
            answer.last_sequence.eq(executor.last_sequence),
            answer.send.eq(executor.answer),
            answer.buffer_data.eq(read),
            write.en.eq(request.write_en | executor.buffer_write),
            write.addr.eq(Mux(executor.busy, executor.buffer_addr, request.write_addr)),
            write.data.eq(Mux(executor.busy, executor.buffer_data_w, request.write_data)),
        ]
        return m
