"""Multiplier and shift in the form the products' pipeline wants them."""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config


def shift_shape(*, sum_bits: int) -> Shape:
    """A total shift e without its lowest bit, as much of it as tells e from the others that there are (see :func:`exponents`)."""
    return unsigned(4 if sum_bits == 32 else 3)


def scale_layout(config: Config, *, sum_bits: int) -> data.StructLayout:
    """A prepared multiplier M and total shift e.

    ``multiplier`` is 2*M for even e and M for odd e, so that ``v * multiplier`` shifted right by 2 * (e div 2) is floor(v*M / 2**(e-1)).
    """
    return data.StructLayout({"multiplier": unsigned(config.multiplier_bits + 1), "shift": shift_shape(sum_bits=sum_bits)})


def as_factor(value: Value) -> Value:
    """An unsigned value as a signed one of one bit more: what a signed DSP multiplies."""
    return Cat(value, Const(0, 1)).as_signed()


class Scale(Component):
    """Prepares a multiplier and a shift; combinational.

    Members
    -------
    multiplier : In(multiplier_bits)
    e : In(5)
        Total right shift modulo 32.
    o : Out(scale_layout)
    """

    def __init__(self, config: Config, *, sum_bits: int):
        super().__init__({"multiplier": In(config.multiplier_bits), "e": In(5), "o": Out(scale_layout(config, sum_bits=sum_bits))})

    def elaborate(self, platform):
        """A multiplexer."""
        m = Module()
        m.d.comb += [
            self.o.multiplier.eq(Mux(self.e[0], self.multiplier, Cat(Const(0, 1), self.multiplier))),
            self.o.shift.eq(self.e[1:]),
        ]
        return m
