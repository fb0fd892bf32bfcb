"""Opens the rows that beats need, ahead of their transfers."""

from amaranth.hdl import Const, Module, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.sdram.beat import BeatGeometry
from tercel.hw.sdram.holdoff import Holdoff
from tercel.hw.sdram.timing import SdramCycles


class RowOpener(Component):
    """Takes the locations in order; a beat whose row is open passes in the cycle after, one a cycle.

    For another row the bank is closed, as soon as the transfers of earlier beats allow it, and the row opened: the transfers of earlier
    beats in other banks go on meanwhile. Takes a cycle more when the bank has no row open, ``rp`` + 1 more when it has.

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
    open : In(geometry.chip.banks), closable_next : In(geometry.chip.banks)
        State of the banks.
    hold : In(1)
        Open nothing and pass nothing; to be asked for until ``idle``, and after, until all banks are closed.
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
                "closable_next": In(geometry.chip.banks),
                "hold": In(1),
                "idle": Out(1),
                "precharge": Out(1),
                "activate": Out(1),
                "bank": Out(geometry.bank_bits),
                "row": Out(geometry.row_bits),
            }
        )

    def elaborate(self, platform) -> Module:
        """The row last asked for in each bank, in a LUT memory: it is the one that is open, if any is, once its beat has passed.

        So a beat is compared when it comes, beside the one before it, and the first of three states only looks at the result. Commands
        come from the other two.
        """
        m = Module()
        geometry, cycles = self._geometry, self._cycles
        coming = self.location.p
        rows = m.submodules.rows = Memory(shape=geometry.row_bits, depth=geometry.chip.banks, init=[])
        write, read = rows.write_port(), rows.read_port(domain="comb")
        m.submodules.rp = rp = Holdoff(cycles.rp - 1)
        m.submodules.rrd = rrd = Holdoff(cycles.rrd - 1)
        location = Signal.like(coming, reset_less=True)
        valid = Signal()
        same_row = Signal()
        is_open = Signal()
        closable = Signal()
        m.d.comb += [
            self.location.ready.eq(~valid | self.opened),
            self.bank.eq(location.bank),
            self.row.eq(location.row),
            read.addr.eq(coming.bank),
            write.addr.eq(coming.bank),
            write.data.eq(coming.row),
            write.en.eq(self.location.valid & self.location.ready & ~coming.bad),
            rp.start.eq(self.precharge),
            rrd.start.eq(self.activate),
            self.promise.eq(self.opened & ~location.bad),
        ]
        m.d.sync += closable.eq(self.closable_next.bit_select(location.bank, 1))
        with m.If(self.location.ready):
            m.d.sync += [
                valid.eq(self.location.valid),
                location.eq(coming),
                same_row.eq(read.data == coming.row),
                is_open.eq(self.open.bit_select(coming.bank, 1) | (self.activate & (coming.bank == location.bank))),
            ]
        with m.If(self.hold):
            m.d.sync += is_open.eq(0)
        with m.FSM():
            with m.State("COMPARE"):
                m.d.comb += self.idle.eq(1)
                with m.If(valid & ~self.hold):
                    with m.If(location.bad | (is_open & same_row)):
                        m.d.comb += self.opened.eq(1)
                    with m.Elif(is_open):
                        m.next = "CLOSE"
                    with m.Else():
                        m.next = "OPEN"
            with m.State("CLOSE"), m.If(closable):
                m.d.comb += self.precharge.eq(1)
                m.next = "OPEN"
            with m.State("OPEN"), m.If(~rp.busy & ~rrd.busy):
                m.d.comb += [self.activate.eq(1), self.opened.eq(Const(1))]
                m.next = "COMPARE"
        return m
