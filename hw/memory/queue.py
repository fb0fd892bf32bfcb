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
        free = Signal()
        fetch = Signal()
        m.d.comb += [
            stored.eq(write.addr != oldest),
            self.empty.eq(~stored & ~self.o.valid),
            # Whether an item comes, and whether one is stored, is known late, and moves only the ends of the ring: what is written where
            # nothing is stored is written over, and what is read there is not valid.
            write.en.eq(1),
            write.data.eq(self.i.payload),
            free.eq(~self.o.valid | self.o.ready),
            fetch.eq(stored & free),
            self.o.payload.eq(block_read(m, storage, en=free, addr=oldest, name="head")),
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
    flags
        Flags of an item.

    Members
    -------
    i : In(stream.Signature(shape)), o : Out(stream.Signature(shape))
        The two ends.
    i_flags : In(flags), o_flags : Out(flags)
        The flags of the item at either end; ``o_flags``, from a register, is 0 while there is none.
    moves : Out(1)
        No item is at ``o``, or the one there is taken. Most of what waits for a late ``o.ready`` can wait for this instead, so that
        it is not made of it once more.
    then_valid, then_ready : Out(1)
        What ``o.valid`` and ``i.ready`` become.
    following : Out(shape)
        The item that is at ``o`` in the next cycle, if there is one and ``moves`` is 1.
    """

    def __init__(self, shape, *, spare: bool = True, flags: int = 0) -> None:
        self._spare = spare
        item = stream.Signature(shape)
        super().__init__(
            {
                "i": In(item),
                "o": Out(item),
                "i_flags": In(flags),
                "o_flags": Out(flags),
                "moves": Out(1),
                "then_valid": Out(1),
                "then_ready": Out(1),
                "following": Out(shape),
            }
        )

    def elaborate(self, platform) -> Module:
        """The spare register takes the item that comes while the other one is held up."""
        m = Module()
        offered = Signal.like(self.i.payload, name="offered", reset_less=True)
        # Without a reset: while nothing is offered, they follow those of what comes, which is nothing while the reset lasts.
        flags = Signal.like(self.o_flags, name="flags", reset_less=True)
        coming_flags = Mux(self.i.valid, self.i_flags, 0)
        m.d.comb += [self.o.payload.eq(offered), self.o_flags.eq(flags), self.moves.eq(~self.o.valid | self.o.ready)]
        m.d.sync += self.o.valid.eq(self.then_valid)
        if not self._spare:
            m.d.comb += [
                self.i.ready.eq(~self.o.valid),
                self.following.eq(self.i.payload),
                self.then_valid.eq(Mux(self.o.valid, ~self.o.ready, self.i.valid)),
                self.then_ready.eq(~self.then_valid),
            ]
            with m.If(~self.o.valid):
                m.d.sync += [offered.eq(self.i.payload), flags.eq(coming_flags)]
            with m.Elif(self.o.ready):
                m.d.sync += flags.eq(0)
            return m
        spare = Signal.like(self.i.payload, name="spare", reset_less=True)
        spare_flags = Signal.like(self.o_flags, name="spare_flags", reset_less=True)
        spare_valid = Signal()
        m.d.comb += [
            self.i.ready.eq(~spare_valid),
            self.following.eq(Mux(spare_valid, spare, self.i.payload)),
            self.then_valid.eq(~self.moves | spare_valid | self.i.valid),
            self.then_ready.eq(self.moves | ~(spare_valid | self.i.valid)),
        ]
        m.d.sync += spare_valid.eq(~self.then_ready)
        with m.If(~spare_valid):
            m.d.sync += [spare.eq(self.i.payload), spare_flags.eq(coming_flags)]
        with m.If(self.moves):
            m.d.sync += [offered.eq(self.following), flags.eq(Mux(spare_valid, spare_flags, coming_flags))]
        return m
