"""The data pins, and the two widths on either side of them."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.sdram.beat import BeatGeometry


class DataPins(Component):
    """Cuts a beat into the words of its burst, lowest first, and puts a burst together again; picks its lane of a wider word.

    The first word is on the pins in the cycle after ``write``, together with the command; between bursts no byte is masked.

    Parameters
    ----------
    geometry
        Of the beats.

    Members
    -------
    start : In(1)
        A burst begins: no other does for ``geometry.words`` cycles.
    write : In(1)
        With ``start``: it is one of ``data``, masked by ``sel`` and, in a wider chip, by ``lane_in``.
    data : In(8 * geometry.memory_width), sel : In(geometry.memory_width), lane_in : In(...)
        Of a write.
    mask_all : In(1)
        Mask all bytes.
    dqm, dq_o, dq_oe : Out(...), dq_i : In(...)
        The pins.
    lane_out : In(...)
        Of the beat that ends.
    read : Out(8 * geometry.memory_width)
        What came in over the last ``geometry.words`` cycles, from the cycle before on.
    """

    def __init__(self, geometry: BeatGeometry) -> None:
        self._geometry = geometry
        width, lane_bits = geometry.chip.width, (geometry.lanes - 1).bit_length()
        super().__init__(
            {
                "start": In(1),
                "write": In(1),
                "data": In(8 * geometry.memory_width),
                "sel": In(geometry.memory_width),
                "lane_in": In(lane_bits),
                "mask_all": In(1),
                "dqm": Out(width, init=(1 << width) - 1),
                "dq_o": Out(8 * width),
                "dq_oe": Out(1),
                "dq_i": In(8 * width),
                "lane_out": In(lane_bits),
                "read": Out(8 * geometry.memory_width),
            }
        )

    def elaborate(self, platform) -> Module:
        """A shift register for each direction."""
        m = Module()
        geometry = self._geometry
        words, lanes, bits = geometry.words, geometry.lanes, 8 * geometry.chip.width
        width = geometry.chip.width

        data = Cat(self.data for _ in range(lanes))
        other = [(self.lane_in != lane).replicate(geometry.memory_width) if lanes > 1 else 0 for lane in range(lanes)]
        mask = Cat(~self.sel | masked for masked in other)
        rest = [(Signal(bits, name=f"data_{i}", reset_less=True), Signal(width, name=f"mask_{i}")) for i in range(1, words)]
        behind = [*rest, (Signal(bits, name="data_end"), Signal(width, name="mask_end"))]
        for i, (word, masked) in enumerate([(self.dq_o, self.dqm), *rest]):
            m.d.sync += [word.eq(behind[i][0]), masked.eq(behind[i][1])]
            with m.If(self.start):
                m.d.sync += word.eq(data[i * bits : (i + 1) * bits])
            with m.If(self.start & self.write):
                m.d.sync += masked.eq(mask[i * width : (i + 1) * width])
        with m.If(self.mask_all):
            m.d.sync += self.dqm.eq(~0)
        driven = Signal(words)
        m.d.sync += driven.eq(driven >> 1)
        with m.If(self.start & self.write):
            m.d.sync += driven.eq(~0)
        m.d.comb += self.dq_oe.eq(driven[0])

        came = [Signal(bits, name=f"came_{i}", reset_less=True) for i in range(words)]
        m.d.sync += came[-1].eq(self.dq_i)
        for earlier, later in pairwise(came):
            m.d.sync += earlier.eq(later)
        beat_bits = 8 * geometry.memory_width
        m.d.comb += self.read.eq(Cat(*came) if lanes == 1 else came[0].word_select(self.lane_out, beat_bits))
        return m
