"""A queue in block memory, and a relay of two registers."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.memory.block import block_memory, block_read


class Queue(Component):
    """First in, first out; an item leaves 2 cycles after it came at the earliest, one a cycle.

    Parameters
    ----------
    shape
        Of the items.
    depth
        A power of two. The producer must know that no more items than this are inside.

    Members
    -------
    i : In(stream.Signature(shape, always_ready=True)), o : Out(stream.Signature(shape))
        The two ends.
    empty : Out(1)
        No item is inside.
    """

    def __init__(self, shape, *, depth: int) -> None:
        self._shape = shape
        self._depth = depth
        super().__init__({"i": In(stream.Signature(shape, always_ready=True)), "o": Out(stream.Signature(shape)), "empty": Out(1)})

    def elaborate(self, platform) -> Module:
        """A ring whose oldest item moves into the memory's output register, which holds it until it is taken."""
        m = Module()
        m.submodules.storage = storage = block_memory(shape=self._shape, depth=self._depth, ram_style="block")
        write = storage.write_port()
        oldest = Signal.like(write.addr)
        # The ring itself is never full: its oldest item leaves at once when the output register is free.
        stored = Signal()
        fetch = Signal()
        m.d.comb += [
            stored.eq(write.addr != oldest),
            self.empty.eq(~stored & ~self.o.valid),
            write.en.eq(self.i.valid),
            write.data.eq(self.i.payload),
            fetch.eq(stored & (~self.o.valid | self.o.ready)),
            self.o.payload.eq(block_read(m, storage, en=fetch, addr=oldest, name="head")),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(fetch):
            m.d.sync += [self.o.valid.eq(1), oldest.eq(oldest + 1)]
        with m.If(self.i.valid):
            m.d.sync += write.addr.eq(write.addr + 1)
        return m


class Relay(Component):
    """Passes items on a cycle later, one a cycle; no path from ``o.ready`` to ``i.ready``.

    Parameters
    ----------
    shape
        Of the items.
    spare
        With a second register. Without it an item passes only every other cycle.

    Members
    -------
    i : In(stream.Signature(shape)), o : Out(stream.Signature(shape))
        The two ends.
    """

    def __init__(self, shape, *, spare: bool = True) -> None:
        self._spare = spare
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform) -> Module:
        """The spare register takes the item that comes while the other one is held up."""
        m = Module()
        if not self._spare:
            offered = Signal.like(self.i.payload, name="offered", reset_less=True)
            m.d.comb += [self.i.ready.eq(~self.o.valid), self.o.payload.eq(offered)]
            with m.If(~self.o.valid):
                m.d.sync += [self.o.valid.eq(self.i.valid), offered.eq(self.i.payload)]
            with m.Elif(self.o.ready):
                m.d.sync += self.o.valid.eq(0)
            return m
        spare, offered = (Signal.like(self.i.payload, name=name, reset_less=True) for name in ("spare", "offered"))
        spare_valid = Signal()
        m.d.comb += [self.i.ready.eq(~spare_valid), self.o.payload.eq(offered)]
        with m.If(~spare_valid):
            m.d.sync += spare.eq(self.i.payload)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [
                self.o.valid.eq(spare_valid | self.i.valid),
                offered.eq(Mux(spare_valid, spare, self.i.payload)),
                spare_valid.eq(0),
            ]
        with m.Elif(self.i.valid):
            m.d.sync += spare_valid.eq(1)
        return m
