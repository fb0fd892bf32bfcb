"""Multiplier and shift in the form the products' pipeline wants them."""

from amaranth.hdl import Cat, Const, Module, Mux, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config


def shift_layout(*, sum_bits: int) -> data.StructLayout:
    """A total shift e, in double steps: the product is that of 2*M for even e.

    With ``sum_bits`` 32, ``shift`` is e div 2. With 18, it is at most 15; ``more`` asks for one more double step, and ``nothing`` says
    that the result is 0 for every v.
    """
    if sum_bits == 32:
        return data.StructLayout({"shift": unsigned(5)})
    return data.StructLayout({"shift": unsigned(4), "more": unsigned(1), "nothing": unsigned(1)})


def scale_layout(config: Config, *, sum_bits: int) -> data.StructLayout:
    """A prepared multiplier M and total shift e.

    ``multiplier`` is 2*M for even e and M for odd e, so that ``v * multiplier`` shifted right by 2 * (e div 2) is floor(v*M / 2**(e-1)).
    """
    return data.StructLayout({"multiplier": unsigned(config.multiplier_bits + 1), "shift": shift_layout(sum_bits=sum_bits)})


def as_factor(value: Value) -> Value:
    """An unsigned value as a signed one of one bit more: what a signed DSP multiplies."""
    return Cat(value, Const(0, 1)).as_signed()


class Scale(Component):
    """Prepares a multiplier and a shift; combinational.

    Members
    -------
    multiplier : In(multiplier_bits)
    e : In(6)
        Total right shift, 1..63.
    o : Out(scale_layout)
    """

    def __init__(self, config: Config, *, sum_bits: int):
        self.sum_bits = sum_bits
        super().__init__({"multiplier": In(config.multiplier_bits), "e": In(6), "o": Out(scale_layout(config, sum_bits=sum_bits))})

    def elaborate(self, platform):
        """From e = 34 on, a product of 35 bits leaves only its sign, and the rounding bit makes it 0."""
        m = Module()
        steps = self.e[1:]
        shift = self.o.shift
        m.d.comb += [
            self.o.multiplier.eq(Mux(self.e[0], self.multiplier, Cat(Const(0, 1), self.multiplier))),
            shift.shift.eq(steps),
        ]
        if self.sum_bits == 18:
            m.d.comb += [shift.more.eq(steps == 16), shift.nothing.eq(steps > 16)]
            with m.If(steps[4]):
                m.d.comb += shift.shift.eq(15)
        return m
