"""ECP5 carry cells (CCU2C, Lattice TN-02205) with a LUT4 of our choice in front of each carry bit."""

from collections.abc import Sequence

from amaranth.hdl import Const, Instance, Module, Signal, Value

_PASSES = 0xFFFF
"""A LUT4 behind which the carry goes on, for a bit that no one reads."""

Bits = Sequence[Value]


def carry_chain(m: Module, *, init: int, a: Bits, b: Value, c: Bits, d: Bits, o: Value, carry: Value | None = None) -> None:
    """Drive ``o`` with propagate xor carry of one LUT4 a bit; combinational.

    Parameters
    ----------
    m
        Module that gets the cells.
    init
        LUT4 contents: bit (D, C, B, A) is the propagate term; with C = D = 0 the same LUT is the generate term, which counts where
        the propagate term is 0.
    a, c, d
        Bits of the inputs A, C and D, as many as ``o`` has.
    b
        Input B of all.
    o
        The result.
    carry
        Into the lowest bit; 0 if None.
    """
    width = len(o)
    carry = Const(0, 1) if carry is None else carry
    zero = Const(0, 1)
    for low in range(0, width, 2):
        high = low + 1 < width
        next_carry = Signal(name=f"carry_{low}")
        m.submodules[f"cell_{low}"] = Instance(
            "CCU2C",
            p_INIT0=Const(init, 16),
            p_INIT1=Const(init if high else _PASSES, 16),
            p_INJECT1_0="NO",
            p_INJECT1_1="NO",
            i_CIN=carry,
            i_A0=a[low],
            i_B0=b,
            i_C0=c[low],
            i_D0=d[low],
            i_A1=a[low + 1] if high else zero,
            i_B1=b,
            i_C1=c[low + 1] if high else zero,
            i_D1=d[low + 1] if high else zero,
            o_S0=o[low],
            o_S1=o[low + 1] if high else Signal(name="unused_sum"),
            o_COUT=next_carry,
        )
        carry = next_carry
