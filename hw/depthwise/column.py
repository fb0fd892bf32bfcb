"""The column operation: what :mod:`loops` asks :mod:`fetch` to do in one cycle, and the part of it that travels on to the taps.

The window holds three columns of three rows. An operation moves it by one column (the new one, B, enters at the right) or by two
(A, then B), and may say that the window is then complete.
"""

from amaranth.hdl import Cat, Module, Value, signed, unsigned
from amaranth.lib import data

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.depthwise.pointer import POINTER


def taps_layout(config: Config) -> data.StructLayout:
    """What to do with a window.

    ``compute``: it is complete. ``first``, ``last``: of the windows summed into one word. ``rows``, ``columns``: kernel rows and
    columns that count. ``record``, ``parameter``: addresses of its weights and of the word's parameters.
    """
    bits = (config.record_depth - 1).bit_length()
    return data.StructLayout(
        {"compute": 1, "first": 1, "last": 1, "rows": 3, "columns": 3, "record": unsigned(bits), "parameter": unsigned(bits)}
    )


def row_of_window(m: Module, compute: Value) -> Value:
    """Which row of a window is multiplied where a cycle takes 3 taps: 0 in the cycle of ``compute``, then 1 and 2."""
    second = delayed(m, compute, 1, name="second_row")
    return Cat(second, ~(compute | second))


def column_layout(config: Config) -> data.StructLayout:
    """One column operation.

    ``two``: fetch A and B, else only B. ``need_a``, ``need_b``: some tap uses that column; else it reads as padding, unread.
    ``place``: the first column's, relative to the row pointers, channel group included; ``column`` its number.
    ``slot``, ``block``: entry of the row table; ``row_end``: the table's slot is free after this. ``byte``: matrix-vector only,
    the byte of the word that goes to kernel row 0 (row i takes byte + 3i).
    """
    return data.StructLayout(
        {
            "two": 1,
            "need_a": 1,
            "need_b": 1,
            "place": POINTER,
            "column": signed(16),
            "slot": 1,
            "block": 3,
            "row_end": 1,
            "byte": 4,
            "taps": taps_layout(config),
        }
    )


ROW_LAYOUT = data.StructLayout({"place": POINTER, "inside": 1})
"""One input row: its pointer (column ``x_start``, channel group 0) and whether it lies in the image."""
