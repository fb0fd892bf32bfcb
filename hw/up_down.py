"""A counter that goes up and down, from LUTs: for few bits a carry chain for each direction costs more than twice as much."""

from amaranth.hdl import Module, Signal


def up_down(m: Module, counter: Signal, *, up, down) -> None:
    """Add 1 to ``counter`` in every cycle with ``up`` alone, subtract 1 in every one with ``down`` alone; modulo its size."""
    rise, fall = up & ~down, down & ~up
    for bit in counter:
        m.d.sync += bit.eq(bit ^ (rise | fall))
        rise, fall = rise & bit, fall & ~bit
