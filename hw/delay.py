"""Pipeline registers: a value some cycles later."""

from amaranth.hdl import Module, Signal, Value


def delayed(m: Module, value, cycles: int, *, name: str, reset_less: bool = True):
    """``value`` as it was ``cycles`` clock cycles ago, in its own shape. Control bits want ``reset_less=False``."""
    value = value if hasattr(value, "shape") else Value.cast(value)
    for cycle in range(cycles):
        stage = Signal(value.shape(), name=f"{name}_{cycle + 1}", reset_less=reset_less)
        m.d.sync += stage.eq(value)
        value = stage
    return value
