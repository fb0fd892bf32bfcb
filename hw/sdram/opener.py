"""Opens the rows that beats need, ahead of their transfers."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.sdram.beat import BeatGeometry
from tercel.hw.sdram.holdoff import Holdoff
from tercel.hw.sdram.timing import SdramCycles

_COMPARED_BITS = 4
"""Bits of a row that are compared in one piece."""


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

        So a beat is compared when it comes, beside the one before it, and is only looked at in the first of three states, a flag each.
        Commands come from the other two.
        """
        m = Module()
        geometry, cycles = self._geometry, self._cycles
        coming = self.location.p
        rows = m.submodules.rows = Memory(shape=geometry.row_bits, depth=geometry.chip.banks, init=[])
        write, read = rows.write_port(), rows.read_port(domain="comb")
        m.submodules.rp = rp = Holdoff(cycles.rp - 1)
        m.submodules.rrd = rrd = Holdoff(cycles.rrd - 1)
        location = Signal.like(coming, reset_less=True)
        comparing, closing, opening = Signal(), Signal(), Signal()
        # Parts of the row by themselves: a level of logic less.
        parts = range(0, geometry.row_bits, _COMPARED_BITS)
        same_row = Signal(len(parts))
        is_open = Signal()
        hit = Signal()
        closable = Signal()
        m.d.comb += [
            self.location.ready.eq(self.opened | ~(comparing | closing | opening)),
            self.bank.eq(location.bank),
            self.row.eq(location.row),
            read.addr.eq(coming.bank),
            write.addr.eq(coming.bank),
            write.data.eq(coming.row),
            write.en.eq(self.location.valid & self.location.ready & ~coming.bad),
            rp.start.eq(self.precharge),
            rrd.start.eq(self.activate),
            hit.eq(location.bad | (is_open & same_row.all())),
            self.idle.eq(~closing & ~opening),
            self.precharge.eq(closing & closable),
            self.activate.eq(opening & ~rp.busy & ~rrd.busy),
            self.opened.eq((comparing & ~self.hold & hit) | self.activate),
            self.promise.eq(self.opened & ~location.bad),
        ]
        # Nothing is promised in a bank that is to be closed, so the state of the next cycle is known.
        m.d.sync += closable.eq(self.closable_next.bit_select(location.bank, 1))
        with m.If(comparing & ~self.hold):
            m.d.sync += [comparing.eq(0), closing.eq(~hit & is_open), opening.eq(~hit & ~is_open)]
        with m.If(self.precharge):
            m.d.sync += [closing.eq(0), opening.eq(1)]
        with m.If(self.activate):
            m.d.sync += opening.eq(0)
        with m.If(self.location.ready):
            m.d.sync += [
                comparing.eq(self.location.valid),
                location.eq(coming),
                same_row.eq(Cat((read.data ^ coming.row)[first : first + _COMPARED_BITS] == 0 for first in parts)),
                is_open.eq(self.open.bit_select(coming.bank, 1) | (self.activate & (coming.bank == location.bank))),
            ]
        # No row stays open over a ``hold``.
        with m.If(self.hold):
            m.d.sync += is_open.eq(0)
        return m
