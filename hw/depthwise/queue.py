"""A queue in block memory whose writers know that there is room."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out


class RoomyQueue(Component):
    """Words in order, 2 cycles or more after they were written; no backpressure, one word a cycle on both sides.

    Parameters
    ----------
    width
        Bits of a word.
    depth
        Words, a power of two; one more may wait at the output. The writer never has more in the queue.
    """

    def __init__(self, *, width: int, depth: int) -> None:
        self.width = width
        self.depth = depth
        super().__init__({"word": In(width), "word_valid": In(1), "o": Out(stream.Signature(width))})

    def elaborate(self, platform) -> Module:
        """The memory's output register is the output; it is read ahead whenever it is free."""
        m = Module()
        m.submodules.words = memory = Memory(shape=self.width, depth=self.depth, init=[], attrs={"ram_style": "block"})
        write, read = memory.write_port(), memory.read_port()
        level = Signal(range(self.depth + 1))
        fetch = Signal()
        m.d.comb += [
            write.data.eq(self.word),
            write.en.eq(self.word_valid),
            fetch.eq((level != 0) & (~self.o.valid | self.o.ready)),
            read.en.eq(fetch),
            self.o.payload.eq(read.data),
        ]
        m.d.sync += [
            write.addr.eq(write.addr + self.word_valid),
            read.addr.eq(read.addr + fetch),
            level.eq(level + self.word_valid - fetch),
        ]
        with m.If(fetch):
            m.d.sync += self.o.valid.eq(1)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
