"""The beats on their way to the chip: a ring that is read twice, first for rows to open, then for data to move."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.sdram.beat import BeatGeometry
from tercel.hw.up_down import up_down

DEPTH = 16
"""Beats in the ring; a LUT memory of the ECP5 has as many words."""


class BeatQueue(Component):
    """First in, first out, twice: a beat's location leaves 2 cycles after it came at the earliest, its transfer 2 cycles after ``opened``.

    One beat a cycle. ``i.ready`` comes from a register.

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
        The row of the oldest beat not yet opened is open, or will be when its data moves.
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
        load = {}
        for reader, behind, name, out in (
            ("located", "tail", "locations", self.location),
            ("head", "opened", "transfers", self.transfer),
        ):
            ring = Memory(shape=out.payload.shape(), depth=DEPTH, init=[])
            m.submodules[name] = ring
            write, read = ring.write_port(), ring.read_port(domain="comb")
            load[reader] = Signal(name=f"load_{name}")
            m.d.comb += [
                write.en.eq(take),
                write.addr.eq(pointer["tail"]),
                *(write.data[field].eq(self.i.p[field]) for field, _ in out.payload.shape()),
                read.addr.eq(pointer[reader]),
                load[reader].eq((pointer[reader] != pointer[behind]) & (~out.valid | out.ready)),
            ]
            payload = Signal.like(out.payload, name=f"{name}_payload", reset_less=True)
            m.d.comb += out.payload.eq(payload)
            with m.If(out.ready):
                m.d.sync += out.valid.eq(0)
            with m.If(load[reader]):
                m.d.sync += [out.valid.eq(1), payload.eq(read.data), pointer[reader].eq(pointer[reader] + 1)]

        inside = Signal(range(DEPTH + 1))
        up_down(m, inside, up=take, down=load["head"])
        m.d.comb += self.i.ready.eq(~inside[-1])
        return m
