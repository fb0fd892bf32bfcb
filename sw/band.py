"""Cuts a layer's output into bands whose tensors lie in the scratchpads together, and gives each tensor of a band its place."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tercel.hw.config import Config
from tercel.hw.isa import ADDR_BITS
from tercel.sw.emitter import Slots
from tercel.sw.layer_spec import LayerError, LayerSpec, check
from tercel.sw.tensor_layout import Placement, ceil_div

_ROWS_LIMIT = 1024
_WIDTH_LIMIT = 4095
_SPACES = ("array_depth", "window_depth")


@dataclass(frozen=True, kw_only=True)
class Band:
    """Output rows (and, in flat layers, columns), and the input that they need; ``input_rows`` is 0 where all of it is padding."""

    row: int
    rows: int
    column: int
    columns: int
    input_row: int
    input_rows: int
    input_column: int
    input_columns: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the tensors of a layer lie in the scratchpads, apart from the addresses.

    ``words`` are channel groups of a pixel. ``first_bank`` is the bank of every tensor's first pixel. With a ``rotation`` of more than 0
    the rows of a tensor lie in a circular buffer and begin ``rotation`` rows into it.
    """

    input_space: int
    input_pitch: int
    input_words: int
    output_space: int
    output_words: int
    residual: bool = False
    first_bank: int = 0
    rotation: int = 0


@dataclass
class BandPlan:
    """The bands of a layer in order, and where their tensors go."""

    config: Config
    layout: Layout
    bands: list[Band]
    input_slots: Slots
    output_slots: Slots
    residual_slots: Slots
    circular_input: bool
    output_pitch: int
    _taken: dict[str, int] = field(default_factory=dict)

    def input_place(self, band: Band) -> tuple[Placement, list[int]]:
        """Where the band's input goes, and the instructions that must land before it is overwritten."""
        base, users = self.input_slots.take()
        self._taken["input"] = base
        layout = self.layout
        return self._placement(
            space=layout.input_space,
            base=base,
            pitch=layout.input_pitch,
            pixel=layout.input_words,
            rows=max(band.input_rows, 1),
            first_row=band.input_row,
            circular=self.circular_input,
        ), users

    def output_place(self, band: Band) -> tuple[Placement, list[int]]:
        """Where the band's output goes, as :meth:`input_place`."""
        base, users = self.output_slots.take()
        self._taken["output"] = base
        return self._output_placement(band, base, self.layout.output_space), users

    def residual_place(self, band: Band) -> tuple[Placement, list[int]]:
        """Where the band's residual goes, as :meth:`input_place`."""
        base, users = self.residual_slots.take()
        self._taken["residual"] = base
        return self._output_placement(band, base, 0), users

    def release(self, *, readers: Iterable[int], stores: Iterable[int]) -> None:
        """Note who must land before the places taken last are used again."""
        readers = list(readers)
        self.input_slots.use(self._taken["input"], readers)
        self.output_slots.use(self._taken["output"], stores)
        if self.layout.residual:
            self.residual_slots.use(self._taken["residual"], readers)

    def _output_placement(self, band: Band, base: int, space: int) -> Placement:
        return self._placement(
            space=space,
            base=base,
            pitch=self.output_pitch,
            pixel=self.layout.output_words,
            rows=band.rows,
            first_row=band.row,
            circular=self.layout.rotation > 0,
        )

    def _placement(self, *, space: int, base: int, pitch: int, pixel: int, rows: int, first_row: int, circular: bool) -> Placement:
        banks = self.config.pixels
        circular = circular and rows > 1 and rows * pitch % banks == 0 and pitch >= banks
        circular = circular and base + Placement.words_needed(banks=banks, bank=0, pitch=pitch, pixel=pixel, rows=rows) < 1 << ADDR_BITS
        return Placement(
            banks=banks,
            space=space,
            base=base,
            bank=self.layout.first_bank,
            pitch=pitch,
            pixel=pixel,
            rows=rows,
            first_row=first_row,
            circular=circular,
            rotation=self.layout.rotation,
        )


def is_flat(spec: LayerSpec) -> bool:
    """Whether a layer's pixels may be taken as one long row: pointwise, without stride or padding."""
    return spec.kernel == (1, 1) and spec.stride == 1 and not any(spec.padding) and spec.input[0] == 1


def _bands(spec: LayerSpec, *, height: int, columns: int) -> list[Band]:
    out_height, out_width, _ = spec.output
    bands = []
    for row in range(0, out_height, height):
        rows = min(height, out_height - row)
        first = row * spec.stride - spec.padding[0]
        last = first + (rows - 1) * spec.stride + (spec.kernel[0] - 1) * spec.dilation[0]
        start, end = max(first, 0), min(last + 1, spec.input[0])
        for column in range(0, out_width, columns):
            whole = columns >= out_width
            bands.append(
                Band(
                    row=row,
                    rows=rows,
                    column=column,
                    columns=min(columns, out_width - column),
                    input_row=start if end > start else 0,
                    input_rows=max(end - start, 0),
                    input_column=0 if whole else column,
                    input_columns=spec.input[1] if whole else min(columns, out_width - column),
                )
            )
    return bands


def plan_bands(spec: LayerSpec, config: Config, layout: Layout) -> BandPlan:
    """The fewest bands of about equal size that leave room for two of each; for one where two of a single row do not fit.

    :class:`~tercel.sw.layer_spec.LayerError` if a single row (flat layers: ``pixels`` pixels) does not fit at all.
    """
    out_height, out_width, _ = spec.output
    flat = is_flat(spec)
    if not flat:
        widest = max(spec.input[1], out_width)
        check(widest <= _WIDTH_LIMIT, "input", f"at most {_WIDTH_LIMIT} pixels wide", widest, "cut it into columns")
    check(spec.input[0] <= _WIDTH_LIMIT, "input", f"at most {_WIDTH_LIMIT} rows high", spec.input[0], "cut it into bands")
    banks = config.pixels
    depths = (config.array_depth, config.window_depth)
    output_pitch = ceil_div(out_width, banks) * banks if layout.rotation else out_width
    margin = ceil_div(spec.padding[1], banks) * layout.input_words if layout.rotation else 0
    units = ceil_div(out_width, banks) if flat else out_height
    unit_limit = min(units, _WIDTH_LIMIT // banks if flat else _ROWS_LIMIT)

    def sizes(count: int) -> tuple[int, int]:
        """Words per bank of the input and of the output of a band of ``count`` units."""
        if flat:
            inputs = outputs = min(count * banks, out_width)
        else:
            rows = min((count - 1) * spec.stride + (spec.kernel[0] - 1) * spec.dilation[0] + 1, spec.input[0])
            inputs, outputs = rows * layout.input_pitch, count * output_pitch
        first = layout.first_bank
        return ceil_div(first + inputs, banks) * layout.input_words, ceil_div(first + outputs, banks) * layout.output_words

    def used(count: int, slots: int) -> tuple[int, int]:
        inputs, outputs = sizes(count)
        words = [0, 0]
        words[layout.input_space] += slots * inputs + margin
        words[layout.output_space] += slots * outputs
        words[0] += slots * outputs if layout.residual else 0
        return words[0], words[1]

    def largest(slots: int) -> int:
        """Most units for which ``slots`` bands fit, or 0."""
        low, high = 0, unit_limit
        while low < high:
            middle = (low + high + 1) // 2
            if all(words <= depth for words, depth in zip(used(middle, slots), depths, strict=True)):
                low = middle
            else:
                high = middle - 1
        return low

    slots, count = 1, largest(1)
    if count == 0:
        words = used(1, 1)
        space = 0 if words[0] > depths[0] else 1
        raise LayerError(
            f"input must need at most {_SPACES[space]}={depths[space]} words a bank for one "
            f"{'tile of pixels' if flat else 'output row'}, not {words[space]} "
            f"(take a config with more {_SPACES[space]}, or fewer channels or columns)"
        )
    if count < units and largest(2):
        slots, count = 2, largest(2)
    count = ceil_div(units, ceil_div(units, count))
    bands = _bands(spec, height=1 if flat else count, columns=min(count * banks, out_width) if flat else out_width)
    inputs, outputs = sizes(count)
    ends = [0, 0]

    def slots_of(space: int, words: int, extra: int = 0) -> Slots:
        first = ends[space] + extra
        ends[space] = first + slots * words
        return Slots([first + index * words for index in range(slots)])

    return BandPlan(
        config=config,
        layout=layout,
        bands=bands,
        input_slots=slots_of(layout.input_space, inputs, margin),
        output_slots=slots_of(layout.output_space, outputs),
        residual_slots=slots_of(0, outputs if layout.residual else 0),
        circular_input=layout.rotation > 0 and max(spec.stride, spec.dilation[0]) <= min(band.input_rows for band in bands),
        output_pitch=output_pitch,
    )
