"""Tensors in the scratchpads whose rows come and go.

Row ``y`` of a ring begins ``y * pitch`` pixels behind row 0, modulo ``lines`` lines of ``banks`` pixels. Rows that follow one another
so keep the distance ``pitch``, whatever that is modulo the banks, and a row that begins in the last line runs on behind the ring.
"""

from dataclasses import dataclass, field
from math import gcd

from tercel.sw.tensor_layout import Placement, ceil_div


@dataclass(frozen=True, kw_only=True)
class StripPlacement(Placement):
    """Some rows of a :class:`RowBuffer`; those from ``wrap_position`` pixels behind the base on lie ``wrap_lines`` lines further up."""

    wrap_position: int = 0
    wrap_lines: int = 0

    def limit(self, *, column: int) -> tuple[int, int]:
        """As :meth:`Placement.limit`."""
        if not self.wrap_lines:
            return 0, 0
        return self.base + (self.wrap_position + column) // self.banks * self.pixel, self.wrap_lines * self.pixel


@dataclass(frozen=True, kw_only=True)
class RowBuffer:
    """Room for a tensor or for some of its rows.

    Parameters
    ----------
    banks, space, pitch, pixel
        As in :class:`~tercel.sw.tensor_layout.Placement`.
    width
        Columns that hold data.
    rows
        Rows that it holds at the same time.
    ring
        Whether the tensor has more rows than that.
    margin
        Columns to the left of column 0 that pointers name.
    copies
        More than 1: slices of the tensor's channels, of ``pixel`` words each, that lie one after the other.
    """

    banks: int
    space: int
    pitch: int
    pixel: int
    width: int
    rows: int
    ring: bool
    margin: int = 0
    copies: int = 1
    lines: int = field(init=False)
    words: int = field(init=False)

    def __post_init__(self) -> None:
        lines = ceil_div(self.rows * self.pitch, self.banks)
        if self.ring:
            around = lines * self.banks
            end = around - gcd(self.pitch, around) + self.width
        else:
            end = (self.rows - 1) * self.pitch + self.width
        object.__setattr__(self, "lines", lines)
        object.__setattr__(self, "words", self.copies * ceil_div(end, self.banks) * self.pixel)

    @property
    def first_base(self) -> int:
        """The lowest base: pointers of a ring must not go below 0, because they are compared with its end."""
        return ceil_div(self.margin, self.banks) * self.pixel if self.ring else 0

    def view(self, base: int, *, row: int, rows: int) -> StripPlacement:
        """``rows`` rows from ``row`` on, which may lie outside the image, of the buffer at ``base``."""
        position, wrap = row * self.pitch, 0
        if self.ring:
            around = self.lines * self.banks
            turn, position = divmod(position, around)
            first_above = ceil_div((turn + 1) * around, self.pitch)
            if first_above < row + rows:
                wrap = first_above * self.pitch - turn * around
        return StripPlacement(
            banks=self.banks,
            space=self.space,
            base=base,
            bank=position,
            pitch=self.pitch,
            pixel=self.pixel,
            rows=rows,
            first_row=row,
            wrap_position=wrap,
            wrap_lines=self.lines if wrap else 0,
        )
