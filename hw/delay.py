"""Pipeline registers: a value some cycles later."""

from itertools import pairwise

from amaranth.hdl import Module, Signal, Value

from tercel.hw.local_register import local


def delayed(m: Module, value, cycles: int, *, name: str, reset_less: bool = True, init=None):
    """``value`` as it was ``cycles`` clock cycles ago, in its own shape. No reset by default: a reset outlasts them."""
    value = value if hasattr(value, "shape") else Value.cast(value)
    for cycle in range(cycles):
        stage = Signal(value.shape(), name=f"{name}_{cycle + 1}", reset_less=reset_less, init=init)
        m.d.sync += stage.eq(value)
        value = stage
    return value


def delayed_arrivals(m: Module, value, arrives, cycles: int, *, interval: int, name: str):
    """``value`` as it was in a cycle with ``arrives``, from ``cycles`` (at least 1) clock cycles later on until the next one comes out.

    Arrivals are at least ``interval`` cycles apart, so a register is needed for every ``interval`` cycles, and not for every one.
    """
    value = value if hasattr(value, "shape") else Value.cast(value)
    moves = [*range(0, cycles - 1, interval), cycles - 1]
    for number, wait in enumerate([0, *(later - earlier for earlier, later in pairwise(moves))]):
        if wait:
            # A register of its own, as all bits of the value wait for it.
            arrives = local(m, delayed(m, arrives, wait - 1, name=f"{name}_arrives_{number}"), name=f"{name}_arrives_{number}")
        held = Signal(value.shape(), name=f"{name}_{number}", reset_less=True)
        with m.If(arrives):
            m.d.sync += held.eq(value)
        value = held
    return value
