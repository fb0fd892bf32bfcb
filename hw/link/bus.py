"""One access at a time to a Wishbone slave."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.interfaces import WishboneSignature

TIMEOUT_CYCLES = 1 << 17
"""More than the machine itself waits for the memory, so that it is the first to notice."""


class BusMaster(Component):
    """Puts one access on the bus and waits for its answer.

    Parameters
    ----------
    addr_width, data_width
        Of the bus.
    timeout_cycles
        A power of two: after so many cycles without an answer the access is given up and ``cyc`` falls.

    Members
    -------
    start : In(1)
        Begin the access that ``adr``, ``we`` and ``dat_w`` of the bus show; not while one is under way. They must hold until ``done``.
    done : Out(1)
        The access has ended, 2 cycles after ``start`` at the earliest; ``dat_r`` of the bus is valid in this cycle only.
    err, timeout : Out(1)
        It has ended because it was refused, or never answered; without both, well.
    adr, we, dat_w, dat_r
        The access.
    bus : Out(WishboneSignature(...))
        Pipelined; slaves that stall until they acknowledge may be connected too. All bytes are selected.
    """

    def __init__(self, *, addr_width: int, data_width: int, timeout_cycles: int = TIMEOUT_CYCLES) -> None:
        self._timeout_cycles = timeout_cycles
        super().__init__(
            {
                "start": In(1),
                "done": Out(1),
                "err": Out(1),
                "timeout": Out(1),
                "adr": In(addr_width),
                "we": In(1),
                "dat_w": In(data_width),
                "dat_r": Out(data_width),
                "bus": Out(WishboneSignature(addr_width=addr_width, data_width=data_width)),
            }
        )

    def elaborate(self, platform) -> Module:
        """``cyc`` for the whole access, ``stb`` until it is accepted."""
        m = Module()
        bus = self.bus
        waited = Signal(range(self._timeout_cycles))
        answered = Signal()
        expired = Signal()
        m.d.comb += [
            bus.adr.eq(self.adr),
            bus.we.eq(self.we),
            bus.dat_w.eq(self.dat_w),
            bus.sel.eq(~0),
            self.dat_r.eq(bus.dat_r),
            answered.eq(bus.cyc & (bus.ack | bus.err)),
            expired.eq(bus.cyc & (waited == self._timeout_cycles - 1)),
            self.done.eq(answered | expired),
            self.err.eq(answered & bus.err),
            self.timeout.eq(expired & ~answered),
        ]
        m.d.sync += waited.eq(waited + 1)
        with m.If(~bus.stall | self.done):
            m.d.sync += bus.stb.eq(0)
        with m.If(self.done):
            m.d.sync += bus.cyc.eq(0)
        with m.If(self.start):
            m.d.sync += [bus.cyc.eq(1), bus.stb.eq(1), waited.eq(0)]
        return m
