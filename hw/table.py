"""Small functions as tables: a few LUTs where yosys would take a carry chain for a comparison or a sum."""

from collections.abc import Callable

from amaranth.hdl import Array, Const, Value


def table(value: Value, function: Callable[[int], int], *, width: int = 1) -> Value:
    """``function(value)`` modulo ``2**width``; worth it up to about six bits of ``value``."""
    return Array(Const(int(function(index)) % (1 << width), width) for index in range(1 << len(value)))[value]
