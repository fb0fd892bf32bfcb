"""The linear memories: weights, parameters, records, thresholds. LOAD writes them, the engines read them."""

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.interfaces import LinearReadSignature, LinearWriteSignature, parameter_word
from tercel.hw.isa import Space
from tercel.hw.local_register import local
from tercel.hw.memory.block import block_bits, block_memory, block_read
from tercel.hw.memory.space import ENTRY_BYTES, RECORD_ROW_BITS, RECORD_TAPS, depth, part_bytes, word_bytes
from tercel.hw.table import table

BLOCKS_PER_COPY = 16
"""Blocks of memory that share a register of their addresses."""

READ_COPIES = {Space.WEIGHT: BLOCKS_PER_COPY, Space.DEPTHWISE_PARAMETER: 4}
"""Blocks that share a register of what is read, in the memories that have their own, in front of them."""


def linear_shape(config: Config, *, space: Space):
    """What a read of a linear memory returns.

    Weights: K*N fields of 2 bits, field (n, k) at bit 2*(n*K+k). Parameters: :func:`parameter_word` of J or K channels. Records: 9 tap
    words of 8K bits; 3 of them where the engine takes 3 a cycle. Thresholds: one signed 16-bit number.
    """
    return {
        Space.WEIGHT: unsigned(2 * config.lanes * config.outputs),
        Space.PARAMETER: parameter_word(config, config.drain_lanes),
        Space.RECORD: data.ArrayLayout(unsigned(8 * config.lanes), config.depthwise_taps),
        Space.DEPTHWISE_PARAMETER: parameter_word(config, config.lanes),
        Space.THRESHOLD: signed(16),
    }[space]


def linear_read_signature(config: Config, *, space: Space) -> LinearReadSignature:
    """The read port of a linear memory; its address has log2 of the depth bits, below them the row of records read in rows."""
    rows = space == Space.RECORD and config.depthwise_taps < RECORD_TAPS
    return LinearReadSignature(exact_log2(depth(config, space=space)) + RECORD_ROW_BITS * rows, linear_shape(config, space=space))


class LinearMemory(Component):
    """One linear memory, stored without the padding of its format in external memory.

    Parameters
    ----------
    config
        Word sizes and depths.
    space
        A linear space that the config has.

    Members
    -------
    read : In(linear_read_signature(config, space=space))
        Latency 1, data held until the next read; depthwise parameters, which are read afar, 2; weights, read in every cycle, 2. A read of
        a word in the cycle of its write, a cycle later with latency 1, may return anything.
    write : In(LinearWriteSignature(config))
        Words that name another space are left alone; the low bits of ``addr`` count. A word or part is in its memory 2 cycles later.
    """

    def __init__(self, config: Config, *, space: Space) -> None:
        self._config = config
        self._space = space
        self._depth = depth(config, space=space)
        self._shape = linear_shape(config, space=space)
        super().__init__(
            {
                "read": In(linear_read_signature(config, space=space)),
                "write": In(LinearWriteSignature(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        """One memory, or one for each tap of a record or part of a word, behind registers of what is to be written."""
        m = Module()
        config = self._config
        size = part_bytes(config, space=self._space)
        useful = self._useful(self.write.data[len(self.write.data) - 8 * size :])
        mine = self.write.en & (self.write.space == self._space)
        # Their memories lie far from the others, which share a register.
        if self._space == Space.DEPTHWISE_PARAMETER:
            word = local(m, useful, name="word_written")
        else:
            word = delayed(m, useful, 1, name="word_written")

        read = Cat(self.read.en, self.read.addr)
        if self._space == Space.RECORD:
            addr = delayed(m, self._write_addr(), 1, name="write_addr")
            taps = config.depthwise_taps
            for index in range(taps):
                memory = m.submodules[f"tap_{index}"] = self._memory(unsigned(8 * config.lanes))
                en = Signal(name=f"write_en_{index}")
                m.d.sync += en.eq(mine & table(self.write.tap, lambda tap, index=index: tap % taps == index))
                self._connect(m, memory, self.read.data[index], read=read, en=en, addr=addr, word=word)
            return m

        # Yosys would stack shallow blocks of an ECP5 and select among their outputs; blocks as deep as the memory need no logic.
        width = block_bits(platform, depth=self._depth, word_bits=len(word))
        parts = word_bytes(config, space=self._space) // size
        write_en = Cat(mine & (self.write.part == part) for part in range(parts))
        read_data = Value.cast(self.read.data)
        blocks = [(part, low) for part in range(parts) for low in range(0, len(word), width)]
        for number, (part, low) in enumerate(blocks):
            if number % BLOCKS_PER_COPY == 0:
                write = local(m, Cat(write_en, self._write_addr()), name=f"write_{number}")
            if self._space in READ_COPIES and number % READ_COPIES[self._space] == 0:
                read = local(m, Cat(self.read.en, self.read.addr), name=f"read_{number}")
            bits = word[low : low + width]
            memory = m.submodules[f"memory_{number}"] = self._memory(unsigned(len(bits)))
            self._connect(
                m,
                memory,
                read_data[part * len(word) + low :][: len(bits)],
                read=read,
                en=write[part],
                addr=write[parts:][: len(self.read.addr)],
                word=bits,
            )
        return m

    def _memory(self, shape) -> Memory:
        return block_memory(shape=shape, depth=1 << len(self.read.addr))

    def _useful(self, word: Value) -> Value:
        """The bits that are stored, in their order, of a memory word or part of one."""
        if self._space not in (Space.PARAMETER, Space.DEPTHWISE_PARAMETER):
            return word
        bits = []
        for channel in range(min(self._shape.length, len(word) // (8 * ENTRY_BYTES))):
            entry = word.word_select(channel, 8 * ENTRY_BYTES)
            bits += [entry[:32], entry[32:36]]
            if self._config.per_channel_multiplier:
                bits.append(entry[48 : 48 + self._config.multiplier_bits])
        return Cat(bits)

    def _write_addr(self) -> Value:
        config = self._config
        if self._space == Space.RECORD and config.depthwise_taps < RECORD_TAPS:
            return Cat(table(self.write.tap, lambda tap: tap // config.depthwise_taps, width=RECORD_ROW_BITS), self.write.addr)
        return self.write.addr

    def _connect(self, m: Module, memory: Memory, read_data, *, read, en, addr, word) -> None:
        read_en = Const(1) if self._space == Space.WEIGHT else read[0]
        word_read = block_read(m, memory, en=read_en, addr=read[1:], name="word")
        write_port = memory.write_port()
        m.d.comb += [
            Value.cast(read_data).eq(Value.cast(word_read)),
            write_port.en.eq(en),
            write_port.addr.eq(addr),
            Value.cast(write_port.data).eq(word),
        ]
