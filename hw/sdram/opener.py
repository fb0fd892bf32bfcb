"""Opens the rows that beats need, ahead of their transfers."""

from amaranth.hdl import Const, Module, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.sdram.beat import BeatGeometry
from tercel.hw.sdram.holdoff import Holdoff
from tercel.hw.sdram.timing import SdramCycles


class RowOpener(Component):
    """Takes the locations in order; a beat whose row is open passes in the cycle it comes, one a cycle.

    For another row the bank is closed, as soon as the transfers of earlier beats allow it, and the row opened: the transfers of earlier
    beats in other banks go on meanwhile. Takes 2 cycles when the bank has no row open, ``rp`` + 2 when it has.

    Parameters
    ----------
    geometry
        Of the beats.
    cycles
        Of the chip.

    Members
    -------
    location : In(stream.Signature(geometry.location_layout))
        The beats.
    opened : Out(1)
        The beat passes.
    promise : Out(1)
        It is one that will move data, in bank ``bank``.
    open, closable : In(geometry.chip.banks)
        State of the banks.
    hold : In(1)
        Open nothing and pass nothing; to be asked for until ``idle``, and after.
    idle : Out(1)
        Nothing is half done.
    precharge, activate : Out(1)
        The command for bank ``bank`` in this cycle; it goes before all others.
    bank : Out(geometry.bank_bits), row : Out(geometry.row_bits)
        Of the beat, and of the commands.
    """

    def __init__(self, geometry: BeatGeometry, cycles: SdramCycles) -> None:
        self._geometry = geometry
        self._cycles = cycles
        super().__init__(
            {
                "location": In(stream.Signature(geometry.location_layout)),
                "opened": Out(1),
                "promise": Out(1),
                "open": In(geometry.chip.banks),
                "closable": In(geometry.chip.banks),
                "hold": In(1),
                "idle": Out(1),
                "precharge": Out(1),
                "activate": Out(1),
                "bank": Out(geometry.bank_bits),
                "row": Out(geometry.row_bits),
            }
        )

    def elaborate(self, platform) -> Module:
        """The open rows in a LUT memory, compared in the first of three states; commands come from the other two."""
        m = Module()
        geometry, cycles = self._geometry, self._cycles
        location = self.location.p
        rows = m.submodules.rows = Memory(shape=geometry.row_bits, depth=geometry.chip.banks, init=[])
        write, read = rows.write_port(), rows.read_port(domain="comb")
        m.submodules.rp = rp = Holdoff(cycles.rp - 1)
        m.submodules.rrd = rrd = Holdoff(cycles.rrd - 1)
        is_open = Signal()
        hit = Signal()
        m.d.comb += [
            self.bank.eq(location.bank),
            self.row.eq(location.row),
            read.addr.eq(location.bank),
            write.addr.eq(location.bank),
            write.data.eq(location.row),
            write.en.eq(self.activate),
            is_open.eq(self.open.bit_select(location.bank, 1)),
            hit.eq(is_open & (read.data == location.row)),
            rp.start.eq(self.precharge),
            rrd.start.eq(self.activate),
            self.location.ready.eq(self.opened),
            self.promise.eq(self.opened & ~location.bad),
        ]
        with m.FSM():
            with m.State("COMPARE"):
                m.d.comb += self.idle.eq(1)
                with m.If(self.location.valid & ~self.hold):
                    with m.If(location.bad | hit):
                        m.d.comb += self.opened.eq(1)
                    with m.Elif(is_open):
                        m.next = "CLOSE"
                    with m.Else():
                        m.next = "OPEN"
            with m.State("CLOSE"), m.If(self.closable.bit_select(location.bank, 1)):
                m.d.comb += self.precharge.eq(1)
                m.next = "OPEN"
            with m.State("OPEN"), m.If(~rp.busy & ~rrd.busy):
                m.d.comb += [self.activate.eq(1), self.opened.eq(Const(1))]
                m.next = "COMPARE"
        return m
