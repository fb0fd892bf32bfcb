"""The beats on their way to the chip: a ring that is read twice, first for rows to open, then for data to move."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.delay import delayed
from tercel.hw.sdram.beat import BeatGeometry
from tercel.hw.up_down import up_down

DEPTH = 16
"""Beats in the ring; a LUT memory of the ECP5 has as many words."""


class BeatQueue(Component):
    """First in, first out, twice: a beat's location leaves a cycle after it came at the earliest, its transfer 2 cycles after ``opened``.

    One beat a cycle. ``i.ready`` and ``transfer`` come from registers, ``location`` comes from a LUT memory.

    Parameters
    ----------
    geometry
        Of the beats.

    Members
    -------
    i : In(stream.Signature(geometry.request_layout))
        Beats.
    location : Out(stream.Signature(geometry.location_layout))
        Where they lie.
    opened : In(1)
        The row of the oldest beat not yet opened, whose location has left or leaves in this cycle, will be open when its data moves.
    transfer : Out(stream.Signature(geometry.transfer_layout))
        The beats that were opened.
    """

    def __init__(self, geometry: BeatGeometry) -> None:
        self._geometry = geometry
        super().__init__(
            {
                "i": In(stream.Signature(geometry.request_layout)),
                "location": Out(stream.Signature(geometry.location_layout)),
                "opened": In(1),
                "transfer": Out(stream.Signature(geometry.transfer_layout)),
            }
        )

    def elaborate(self, platform) -> Module:
        """One memory for each reader; four pointers, a bit longer than an address so that equal ones mean empty."""
        m = Module()
        pointer = {name: Signal(range(2 * DEPTH), name=name) for name in ("tail", "located", "opened", "head")}
        take = self.i.valid & self.i.ready
        with m.If(take):
            m.d.sync += pointer["tail"].eq(pointer["tail"] + 1)
        with m.If(self.opened):
            m.d.sync += pointer["opened"].eq(pointer["opened"] + 1)
        data = {}
        for reader, name, layout in (
            ("located", "locations", self.location.payload.shape()),
            ("head", "transfers", self.transfer.payload.shape()),
        ):
            ring = Memory(shape=layout, depth=DEPTH, init=[])
            m.submodules[name] = ring
            write, read = ring.write_port(), ring.read_port(domain="comb")
            data[reader] = read.data
            m.d.comb += [
                write.en.eq(take),
                write.addr.eq(pointer["tail"]),
                *(write.data[field].eq(self.i.p[field]) for field, _ in layout),
                read.addr.eq(pointer[reader]),
            ]

        m.d.comb += [self.location.valid.eq(pointer["located"] != pointer["tail"]), self.location.payload.eq(data["located"])]
        with m.If(self.location.valid & self.location.ready):
            m.d.sync += pointer["located"].eq(pointer["located"] + 1)

        load = Signal()
        transfer = Signal.like(self.transfer.payload, reset_less=True)
        m.d.comb += [
            load.eq((pointer["head"] != pointer["opened"]) & (~self.transfer.valid | self.transfer.ready)),
            self.transfer.payload.eq(transfer),
        ]
        with m.If(self.transfer.ready):
            m.d.sync += self.transfer.valid.eq(0)
        with m.If(load):
            m.d.sync += [self.transfer.valid.eq(1), transfer.eq(data["head"]), pointer["head"].eq(pointer["head"] + 1)]

        # Beats come and leave late in a cycle: they are counted in the next one, and only the last free place is watched in this one.
        inside = Signal(range(DEPTH + 1))
        took, loaded = delayed(m, take, 1, name="took", reset_less=False), delayed(m, load, 1, name="loaded", reset_less=False)
        up_down(m, inside, up=took, down=loaded)
        one_free = Signal()
        full = Signal()
        m.d.comb += [
            one_free.eq(
                ((inside == DEPTH - 2) & took & ~loaded)
                | ((inside == DEPTH - 1) & (took == loaded))
                | ((inside == DEPTH) & ~took & loaded)
            ),
            self.i.ready.eq(~full),
        ]
        m.d.sync += full.eq((full | (one_free & take)) & ~load)
        return m
