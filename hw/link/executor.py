"""Carries requests out."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.interfaces import WishboneSignature, beat_addr_bits
from tercel.hw.late_mux import late_mux
from tercel.hw.link.bus import CSR_BYTES, TIMEOUT_CYCLES, BusMaster
from tercel.hw.link.protocol import Command, Status
from tercel.hw.link.request import HEADER_LAYOUT


class Executor(Component):
    """Decides whether a request is carried out, does it, and says what to answer.

    Takes 2 cycles a byte to write or one a byte to read, and 4 cycles and an access of the bus a word.

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
        Held: send an answer, with ``status`` and, with ``has_data``, as many bytes of the buffer as were asked for; IDENTIFY has its own.
    answered : In(1)
        It was sent in the cycle before.
    buffer_addr, buffer_write, buffer_data_w, buffer_data_r
        The buffer; what is read comes a cycle later.
    memory, csr
        The buses.
    """

    def __init__(self, config: Config, *, payload_bytes: int, timeout_cycles: int = TIMEOUT_CYCLES) -> None:
        self._config = config
        self._payload_bytes = payload_bytes
        self._timeout_cycles = timeout_cycles
        addr_bits = exact_log2(payload_bytes)
        super().__init__(
            {
                "request": In(1),
                "header": In(HEADER_LAYOUT),
                "length": In(addr_bits + 1),
                "busy": Out(1),
                "last_sequence": Out(16),
                "answer": Out(1),
                "status": Out(2),
                "has_data": Out(1),
                "answered": In(1),
                "buffer_addr": Out(addr_bits),
                "buffer_write": Out(1),
                "buffer_data_w": Out(8),
                "buffer_data_r": In(8),
                "memory": Out(WishboneSignature(addr_width=beat_addr_bits(config), data_width=8 * config.memory_width)),
                "csr": Out(WishboneSignature(addr_width=10, data_width=8 * CSR_BYTES)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Check; then byte by byte through a word register, word by word over the bus."""
        m = Module()
        header = self.header
        width = self._config.memory_width
        addr_bits = exact_log2(self._payload_bytes)
        command = header.command
        in_memory = command[2]
        writes = command[0]
        last_byte = Mux(in_memory, width - 1, CSR_BYTES - 1)

        m.submodules.master = master = BusMaster(self._config, timeout_cycles=self._timeout_cycles)
        connect(m, master.memory, flipped(self.memory))
        connect(m, master.csr, flipped(self.csr))
        word = Signal.like(master.data_w, reset_less=True)
        address = Signal(32, reset_less=True)
        done_bytes = Signal(len(self.length))
        byte = Signal(range(max(width, CSR_BYTES)))
        m.d.comb += [
            master.in_memory.eq(in_memory),
            master.we.eq(writes),
            master.address.eq(address),
            master.data_w.eq(word),
            self.buffer_addr.eq(done_bytes),
            self.buffer_data_w.eq(word),
        ]

        # What the header says; it is there long before the frame ends.
        known = Signal()
        unaligned = Signal()
        too_many = Signal()
        bad = Signal()
        new = Signal()
        repeated = Signal()
        ahead = Signal(16, reset_less=True)
        m.d.comb += [
            known.eq((command[3:] == 0) & (command[1] ^ in_memory)),
            unaligned.eq(((header.address | header.count) & last_byte).any()),
            # More than the buffer's size, which is a power of two, without a subtraction.
            too_many.eq((header.count >> addr_bits != 0) & (header.count != self._payload_bytes)),
        ]
        m.d.sync += [
            ahead.eq(header.sequence - self.last_sequence),
            bad.eq(~known | unaligned | (header.count == 0) | too_many | (self.length != Mux(writes, header.count, 0))),
            new.eq(ahead == 1),
            repeated.eq(ahead == 0),
        ]
        status = Signal(Status)
        identify = command == Command.IDENTIFY
        m.d.comb += [self.status.eq(Mux(identify, Status.OK, status)), self.has_data.eq(~writes & (status == Status.OK))]

        shift = Signal()
        collect = Signal()
        # What the buffer gives comes late in a cycle.
        newest = late_mux(m, shift, self.buffer_data_r, master.data_r[-8:], width=8, name="newest_byte")
        with m.If(shift | collect):
            m.d.sync += word.eq(Cat(Mux(shift, word[8:], master.data_r[:-8]), newest))
        with m.If(shift):
            m.d.sync += byte.eq(byte + 1)
            with m.If(byte == last_byte):
                m.d.sync += byte.eq(0)

        with m.FSM() as states:
            m.d.comb += self.busy.eq(~states.ongoing("IDLE"))
            with m.State("IDLE"), m.If(self.request):
                m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.sync += done_bytes.eq(0)
                m.next = "IDLE"
                with m.If(identify):
                    m.next = "ANSWER"
                with m.Elif(new | repeated):
                    m.d.sync += self.last_sequence.eq(header.sequence)
                    m.next = "ANSWER"
                    with m.If(new | ~writes):
                        m.d.sync += status.eq(Mux(bad, Status.BAD_REQUEST, Status.OK))
                        with m.If(~bad):
                            m.next = "NEXT"
            with m.State("NEXT"):
                m.d.sync += address.eq(header.address + done_bytes)
                with m.If(done_bytes == header.count):
                    m.next = "ANSWER"
                with m.Elif(writes):
                    m.next = "FETCH"
                with m.Else():
                    m.next = "ACCESS"
            with m.State("FETCH"):
                m.d.sync += done_bytes.eq(done_bytes + 1)
                m.next = "COLLECT"
            with m.State("COLLECT"):
                m.d.comb += shift.eq(1)
                m.next = "FETCH"
                with m.If(byte == last_byte):
                    m.next = "ACCESS"
            with m.State("ACCESS"):
                m.d.comb += master.start.eq(1)
                m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += collect.eq(~writes & ~master.done)
                with m.If(master.done):
                    m.next = "SPREAD"
                    with m.If(writes):
                        m.next = "NEXT"
                    with m.If(master.err | master.timeout):
                        m.d.sync += status.eq(Mux(master.err, Status.BUS_ERROR, Status.BUS_TIMEOUT))
                        m.next = "ANSWER"
            with m.State("SPREAD"):
                m.d.comb += [self.buffer_write.eq(1), shift.eq(1)]
                m.d.sync += done_bytes.eq(done_bytes + 1)
                with m.If(byte == last_byte):
                    m.next = "NEXT"
            with m.State("ANSWER"):
                m.d.comb += self.answer.eq(1)
                with m.If(self.answered):
                    m.next = "IDLE"
        return m
