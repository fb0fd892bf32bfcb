"""Which pixel of a tile lies in which bank: the arithmetic and the tables behind the feeder's addresses and crossbar."""

from collections.abc import Callable
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


def bank_sum(a: Value, b: Value, *, pixels: int) -> Value:
    """(a + b) mod P of two 4-bit banks in 0..P-1. A table, not an adder: a few LUTs are faster than a carry chain this short."""
    return Cat(_among(a, b, pixels, lambda total, bit=bit: total % pixels >> bit & 1) for bit in range(4))


def bank_carry(a: Value, b: Value, *, pixels: int) -> Value:
    """Whether a + b reaches P: the pixel lies one word column further."""
    return _among(a, b, pixels, lambda total: total >= pixels)


def _among(a: Value, b: Value, pixels: int, predicate: Callable[[int], int]) -> Value:
    codes = [first | second << 4 for first in range(pixels) for second in range(pixels) if predicate(first + second)]
    return Cat(a[:4], b[:4]).matches(*codes)
