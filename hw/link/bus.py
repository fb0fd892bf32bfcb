"""One access at a time to one of two Wishbone slaves."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.interfaces import WishboneSignature, beat_addr_bits

TIMEOUT_CYCLES = 1 << 17
"""More than the machine itself waits for the memory, so that it is the first to notice."""

CSR_BYTES = 4


class BusMaster(Component):
    """Puts one access on a bus and waits for its answer.

    Parameters
    ----------
    config
        ``memory_width`` is used.
    timeout_cycles
        A power of two: after so many cycles without an answer the access is given up and ``cyc`` falls.

    Members
    -------
    start : In(1)
        Begin an access; not while one is under way. The members below must hold until ``done``.
    in_memory : In(1)
        To ``memory``, not to ``csr``.
    address : In(32)
        In bytes.
    we : In(1), data_w : In(...)
        Of a write, in the highest bytes.
    done : Out(1)
        The access has ended: the cycle after its answer, 3 cycles after ``start`` at the earliest.
    data_r : Out(...)
        What was read, in the lowest bytes; in the cycle before ``done``.
    err, timeout : Out(1)
        With ``done``: it has ended because it was refused, or never answered; without both, well.
    memory, csr : Out(WishboneSignature(...))
        The buses: pipelined; slaves that stall until they acknowledge may be connected too. All bytes are selected.
    """

    def __init__(self, config: Config, *, timeout_cycles: int = TIMEOUT_CYCLES) -> None:
        self._timeout_cycles = timeout_cycles
        self._memory_width = config.memory_width
        self._bits = 8 * max(config.memory_width, CSR_BYTES)
        super().__init__(
            {
                "start": In(1),
                "in_memory": In(1),
                "address": In(32),
                "we": In(1),
                "data_w": In(self._bits),
                "done": Out(1),
                "data_r": Out(self._bits),
                "err": Out(1),
                "timeout": Out(1),
                "memory": Out(WishboneSignature(addr_width=beat_addr_bits(config), data_width=8 * config.memory_width)),
                "csr": Out(WishboneSignature(addr_width=10, data_width=8 * CSR_BYTES)),
            }
        )

    def elaborate(self, platform) -> Module:
        """``cyc`` for the whole access, ``stb`` until it is accepted. Answers come late in a cycle: how it ended is in registers."""
        m = Module()
        memory, csr = self.memory, self.csr
        waited = Signal(range(self._timeout_cycles))
        active = Signal()
        asking = Signal()
        answered = Signal()
        expired = Signal()
        ends = Signal()
        refused = Mux(self.in_memory, memory.err, csr.err)
        for bus, width, mine in ((memory, self._memory_width, self.in_memory), (csr, CSR_BYTES, ~self.in_memory)):
            m.d.comb += [
                bus.cyc.eq(active & mine),
                bus.stb.eq(asking & mine),
                bus.adr.eq(self.address[width.bit_length() - 1 :]),
                bus.we.eq(self.we),
                bus.dat_w.eq(self.data_w[-8 * width :]),
                bus.sel.eq(~0),
            ]
        m.d.comb += [
            self.data_r.eq(Mux(self.in_memory, memory.dat_r, csr.dat_r)),
            answered.eq(active & Mux(self.in_memory, memory.ack | memory.err, csr.ack | csr.err)),
            expired.eq(active & (waited == self._timeout_cycles - 1)),
            ends.eq(answered | expired),
        ]
        m.d.sync += [waited.eq(waited + 1), self.done.eq(ends), self.err.eq(refused), self.timeout.eq(~answered)]
        with m.If(~Mux(self.in_memory, memory.stall, csr.stall) | ends):
            m.d.sync += asking.eq(0)
        with m.If(ends):
            m.d.sync += active.eq(0)
        with m.If(self.start):
            m.d.sync += [active.eq(1), asking.eq(1), waited.eq(0)]
        return m
