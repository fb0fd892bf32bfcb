"""Pointwise layers whose rows follow one another without a gap run as one long row, so that only the last tile is not full."""

from dataclasses import replace

from tercel.hw.config import Config
from tercel.sw.band import Band
from tercel.sw.compiler.row_buffer import RowBuffer
from tercel.sw.layer_spec import LayerSpec

_WIDTH_LIMIT = 4095


def is_pointwise(spec: LayerSpec) -> bool:
    """Whether each output pixel needs the input pixel at its own place and nothing else."""
    return spec.kind in ("conv", "linear") and spec.kernel == (1, 1) and spec.stride == 1 and not any(spec.padding)


def has_gapless(spec: LayerSpec, buffers: list[RowBuffer], *, rows: int, config: Config) -> bool:
    """Whether ``rows`` rows of a layer with these buffers, none of which turns around within them, are one row and that is better."""
    width = spec.output[1]
    better = rows > 1 and width % config.pixels > 0 and rows * width <= _WIDTH_LIMIT
    return better and is_pointwise(spec) and all(buffer.pitch == width and not buffer.ring for buffer in buffers)


def flat_band(band: Band) -> Band:
    """All rows of a band as one."""
    return replace(band, rows=1, columns=band.rows * band.columns, input_columns=band.rows * band.input_columns)
