"""Carries requests out."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.interfaces import WishboneSignature, beat_addr_bits
from tercel.hw.link.bus import TIMEOUT_CYCLES, BusMaster
from tercel.hw.link.protocol import Command, Status
from tercel.hw.link.request import HEADER_LAYOUT

CSR_BYTES = 4


class Executor(Component):
    """Decides whether a request is carried out, does it, and says what to answer.

    Takes 2 cycles a byte to write or one a byte to read, and 2 cycles and an access of the bus a word.

    Parameters
    ----------
    config
        ``memory_width`` is used.
    payload_bytes
        Size of the buffer, a power of two.
    timeout_cycles
        See :class:`~tercel.hw.link.bus.BusMaster`.

    Members
    -------
    request, header, length
        From :class:`~tercel.hw.link.request.RequestReceiver`; the latter two hold from the cycle before ``request`` until ``busy`` falls.
    busy : Out(1)
        From the cycle after ``request`` until the answer has been sent or is not wanted.
    last_sequence : Out(16)
        Number of the last request carried out.
    answer : Out(1)
        Held: send an answer, with ``status`` and ``count`` bytes of payload; IDENTIFY has its own.
    answered : In(1)
        It has been sent.
    buffer_addr, buffer_write, buffer_data_w, buffer_data_r
        The buffer; what is read comes a cycle later.
    memory, csr
        The buses.
    """

    def __init__(self, config: Config, *, payload_bytes: int, timeout_cycles: int = TIMEOUT_CYCLES) -> None:
        self._config = config
        self._payload_bytes = payload_bytes
        self._timeout_cycles = timeout_cycles
        count_bits = exact_log2(payload_bytes) + 1
        super().__init__(
            {
                "request": In(1),
                "header": In(HEADER_LAYOUT),
                "length": In(count_bits),
                "busy": Out(1),
                "last_sequence": Out(16),
                "answer": Out(1),
                "status": Out(2),
                "count": Out(count_bits),
                "answered": In(1),
                "buffer_addr": Out(count_bits - 1),
                "buffer_write": Out(1),
                "buffer_data_w": Out(8),
                "buffer_data_r": In(8),
                "memory": Out(WishboneSignature(addr_width=beat_addr_bits(config), data_width=8 * config.memory_width)),
                "csr": Out(WishboneSignature(addr_width=10, data_width=32)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Check; then byte by byte through a word register, word by word over the bus."""
        m = Module()
        header = self.header
        width = self._config.memory_width
        word = Signal(8 * max(width, CSR_BYTES), reset_less=True)
        address = Signal(32)
        left = Signal(len(self.count))
        byte = Signal(range(max(width, CSR_BYTES)))
        buffer_addr = self.buffer_addr

        m.submodules.memory_master = memory = BusMaster(
            addr_width=beat_addr_bits(self._config), data_width=8 * width, timeout_cycles=self._timeout_cycles
        )
        m.submodules.csr_master = csr = BusMaster(addr_width=10, data_width=32, timeout_cycles=self._timeout_cycles)
        connect(m, memory.bus, flipped(self.memory))
        connect(m, csr.bus, flipped(self.csr))

        command = header.command
        in_memory = command[2]
        writes = command[0]
        m.d.comb += [
            memory.adr.eq(address[exact_log2(width) :]),
            csr.adr.eq(address[exact_log2(CSR_BYTES) :]),
            memory.we.eq(writes),
            csr.we.eq(writes),
            memory.dat_w.eq(word[-8 * width :]),
            csr.dat_w.eq(word[-8 * CSR_BYTES :]),
            self.buffer_data_w.eq(word),
        ]

        # What the header says; it is there long before the frame ends.
        last_byte = Mux(in_memory, width - 1, CSR_BYTES - 1)
        known = Signal()
        aligned = Signal()
        bad = Signal()
        new = Signal()
        repeated = Signal()
        stored_status = Signal(Status)
        m.d.comb += [
            known.eq((command[3:] == 0) & (command[1] ^ in_memory)),
            aligned.eq(((header.address | header.count)[: exact_log2(max(width, CSR_BYTES))] & last_byte) == 0),
        ]
        m.d.sync += [
            bad.eq(
                ~known
                | ~aligned
                | (header.count == 0)
                | (header.count > self._payload_bytes)
                | (self.length != Mux(writes, header.count, 0))
            ),
            new.eq(header.sequence == (self.last_sequence + 1)[:16]),
            repeated.eq(header.sequence == self.last_sequence),
        ]
        identify = command == Command.IDENTIFY
        m.d.comb += self.status.eq(Mux(identify, Status.OK, stored_status))
        shift = Signal()
        with m.If(shift):
            m.d.sync += word.eq(Cat(word[8:], self.buffer_data_r))

        with m.FSM() as states:
            m.d.comb += self.busy.eq(~states.ongoing("IDLE"))
            with m.State("IDLE"), m.If(self.request):
                m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.sync += [address.eq(header.address), left.eq(header.count), buffer_addr.eq(0), byte.eq(0), self.count.eq(0)]
                m.next = "IDLE"
                with m.If(identify):
                    m.next = "ANSWER"
                with m.Elif(new | repeated):
                    m.d.sync += self.last_sequence.eq(header.sequence)
                    with m.If(repeated & writes):
                        m.next = "ANSWER"
                    with m.Elif(bad):
                        m.d.sync += stored_status.eq(Status.BAD_REQUEST)
                        m.next = "ANSWER"
                    with m.Else():
                        m.d.sync += stored_status.eq(Status.OK)
                        m.next = "ACCESS"
                        with m.If(writes):
                            m.next = "FETCH"
            with m.State("FETCH"):
                m.d.sync += buffer_addr.eq(buffer_addr + 1)
                m.next = "COLLECT"
            with m.State("COLLECT"):
                m.d.comb += shift.eq(1)
                m.d.sync += byte.eq(byte + 1)
                m.next = "FETCH"
                with m.If(byte == last_byte):
                    m.next = "ACCESS"
            with m.State("ACCESS"):
                m.d.comb += [memory.start.eq(in_memory), csr.start.eq(~in_memory)]
                m.d.sync += [byte.eq(0), left.eq(left - Mux(in_memory, width, CSR_BYTES))]
                m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(~writes):
                    m.d.sync += word.eq(Mux(in_memory, memory.dat_r, csr.dat_r))
                with m.If(memory.done | csr.done):
                    m.d.sync += address.eq(address + Mux(in_memory, width, CSR_BYTES))
                    with m.If(memory.err | csr.err):
                        m.d.sync += [stored_status.eq(Status.BUS_ERROR), self.count.eq(0)]
                        m.next = "ANSWER"
                    with m.Elif(memory.timeout | csr.timeout):
                        m.d.sync += [stored_status.eq(Status.BUS_TIMEOUT), self.count.eq(0)]
                        m.next = "ANSWER"
                    with m.Elif(~writes):
                        m.next = "SPREAD"
                    with m.Elif(left == 0):
                        m.next = "ANSWER"
                    with m.Else():
                        m.next = "FETCH"
            with m.State("SPREAD"):
                m.d.comb += [self.buffer_write.eq(1), shift.eq(1)]
                m.d.sync += [buffer_addr.eq(buffer_addr + 1), byte.eq(byte + 1), self.count.eq(header.count)]
                with m.If(byte == last_byte):
                    m.d.sync += byte.eq(0)
                    m.next = "ACCESS"
                    with m.If(left == 0):
                        m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += self.answer.eq(1)
                with m.If(self.answered):
                    m.next = "IDLE"
        return m
