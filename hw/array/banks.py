"""Which pixel of a tile lies in which bank: the arithmetic and the tables behind the feeder's addresses and crossbar."""

from math import gcd

from amaranth.hdl import Cat, Shape, Value

from tercel.hw.config import Config

MAX_STRIDE = 4


def sub_cycles(config: Config, *, stride: int) -> int:
    """Cycles in which the input pixels of one step are read: pixels that many apart lie in the same bank."""
    return gcd(stride, config.pixels)


def max_sub_cycles(config: Config) -> int:
    """The same for the worst of the strides 1..4."""
    return max(sub_cycles(config, stride=stride) for stride in range(1, MAX_STRIDE + 1))


def sub_cycle_shape(config: Config) -> Shape:
    """Holds the number of a sub-cycle."""
    return Shape.cast(range(max(2, max_sub_cycles(config))))


def sub_cycle_of(config: Config, *, stride: int, pixel: int) -> int:
    """Sub-cycle that reads ``pixel`` of the tile."""
    return pixel * sub_cycles(config, stride=stride) // config.pixels


def pixel_at(config: Config, *, stride: int, sub_cycle: int, distance: int) -> int | None:
    """The tile's pixel that ``sub_cycle`` reads from the bank ``distance`` banks (0..P-1, cyclic) after pixel 0's, if any."""
    for pixel in range(config.pixels):
        if pixel * stride % config.pixels == distance and sub_cycle_of(config, stride=stride, pixel=pixel) == sub_cycle:
            return pixel
    return None


def wrapping_banks(step: Value, *, pixels: int, steps: int = 1) -> Value:
    """A bit for each bank: whether the last of ``steps`` steps of ``step`` banks (0..P-1) from there wraps round. At least two bits."""

    def wraps(bank: int, size: int) -> bool:
        return (bank + (steps - 1) * size) % pixels + size >= pixels

    return Cat(step.matches(*(size for size in range(pixels) if wraps(bank, size))) for bank in range(max(2, pixels)))
