"""The generator's parameters: one frozen, validated :class:`Config`, and the configs people use by name.

Every width and depth in the gateware, the golden model and the cycle model is derived from a ``Config``; nothing reads a
parameter from anywhere else. The hash of a config is stored in programs and in the hardware, so that a program compiled
for one machine is refused by another.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal


def exponents(multiplier_bits: int, *, narrow: bool = False) -> range:
    """The total right shifts e = E + s of a requantizer with so wide a multiplier M; e is taken modulo their number.

    32 of them, 8..39 for 16 bits: v * M / 2**e from 2**8 v down to 2**-24 v, which makes a code of the largest sum of 32 bits. Narrow
    sums have 16, from about v down. They begin at multiples of 8 and of 4, so that bits of e select the steps of the shifters.
    """
    first, count = (multiplier_bits & ~3, 16) if narrow else (multiplier_bits - 4 & ~7, 32)
    return range(first, first + count)


def unit_exponent(multiplier_bits: int) -> int:
    """The smallest shift E that an instruction may have; with M = 2**E a sum stays as it is."""
    return max(1, exponents(multiplier_bits).start)


NARROW_BITS = 18
"""Bits of the sums that a requantizer takes J a cycle; others have 32."""


class ConfigError(ValueError):
    """A parameter outside its limits. The message names the parameter, the limit, the value and the way out."""


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that is fixed when the accelerator is elaborated.

    Parameters
    ----------
    name
        A label for reports; it is not part of :attr:`hash`.
    pixels
        Rows of the array, P in 1..16: output pixels computed at the same time, and banks of each scratchpad. A prime lets any
        stride that is no multiple of it read without bank conflicts.
    lanes
        K, one of 2, 4, 8, 16: input channels that one cell adds per cycle, and bytes of one scratchpad word.
    outputs
        N, a multiple of ``lanes`` up to 32: output channels computed at the same time.
    digit_set
        ``"radix4"``: digits -2..1, weights of 2, 4, 6 and 8 bits. ``"ternary"``: digits -1..1, ternary weights only.
    depthwise
        Whether the depthwise / pooling / matrix-vector engine (``lanes`` channels) and its window scratchpad exist.
    depthwise_taps
        Taps of a 3x3 window that the depthwise engine multiplies per cycle: 9, or 3 with a third of the multipliers and half of the
        requantizers.
    drain_lanes
        J, a divisor of ``lanes``: requantizers per pixel row. One is wide (32-bit sums), the others take 18-bit sums.
    multiplier_bits
        Width of the requantizer's multiplier M, 8..16.
    per_channel_multiplier
        Store M per output channel in the parameter memory instead of once per instruction.
    array_depth, window_depth
        Words per bank of the array's and of the window scratchpad; powers of two, 64..16384 (``window_depth`` 0 without ``depthwise``).
    weight_depth
        Weight words of K x N digits; a power of two, 64..65536.
    parameter_depth
        Words of J channels' bias, shift (and M); a power of two, 16..65536.
    record_depth
        Records of 9 x K weights of the depthwise engine, and words of K channels' parameters; a power of two, 16..65536, 0
        without ``depthwise``.
    threshold_depth
        16-bit thresholds; a power of two, 16..65536, or 0: no threshold mode.
    memory_width
        Bytes the memory port moves per cycle; a power of two, 1..``lanes``.
    """

    name: str = "custom"
    pixels: int = 7
    lanes: int = 8
    outputs: int = 8
    digit_set: Literal["radix4", "ternary"] = "radix4"
    depthwise: bool = True
    depthwise_taps: int = 9
    drain_lanes: int = 4
    multiplier_bits: int = 16
    per_channel_multiplier: bool = False
    array_depth: int = 2048
    window_depth: int = 1024
    weight_depth: int = 8192
    parameter_depth: int = 512
    record_depth: int = 512
    threshold_depth: int = 1024
    memory_width: int = 8

    def __post_init__(self) -> None:
        def check(condition: bool, argument: str, limit: str, way_out: str) -> None:
            if not condition:
                raise ConfigError(f"{argument} must be {limit}, not {getattr(self, argument)!r} ({way_out})")

        for field in fields(self):
            if field.type is int or field.type is bool:
                value = getattr(self, field.name)
                if type(value) is not field.type:
                    raise ConfigError(
                        f"{field.name} must be {'a whole number' if field.type is int else 'true or false'}, not {value!r} "
                        f"(write it without quotes)"
                    )

        check(1 <= self.pixels <= 16, "pixels", "in 1..16", "a prime such as 7 avoids bank conflicts")
        check(self.lanes in (2, 4, 8, 16), "lanes", "2, 4, 8 or 16", "a scratchpad word holds one byte per lane")
        check(
            0 < self.outputs <= 32 and self.outputs % self.lanes == 0,
            "outputs",
            f"a multiple of lanes={self.lanes} up to 32",
            "a finished tile fills whole scratchpad words",
        )
        check(self.digit_set in ("radix4", "ternary"), "digit_set", "'radix4' or 'ternary'", "radix4 runs every weight width")
        if self.depthwise:
            check(self.depthwise_taps in (3, 9), "depthwise_taps", "3 or 9", "a row of the 3x3 window, or all of it")
        else:
            check(self.depthwise_taps == 9, "depthwise_taps", "9", "depthwise=False leaves that engine out")
        check(
            self.drain_lanes > 0 and self.lanes % self.drain_lanes == 0,
            "drain_lanes",
            f"a divisor of lanes={self.lanes}",
            "a row writes one scratchpad word of lanes codes a cycle",
        )
        check(8 <= self.multiplier_bits <= 16, "multiplier_bits", "in 8..16", "16 changes the fewest codes")
        self._check_depth("array_depth", 64, 16384, needed=True)
        self._check_depth("window_depth", 64, 16384, needed=self.depthwise)
        self._check_depth("weight_depth", 64, 65536, needed=True)
        self._check_depth("parameter_depth", 16, 65536, needed=True)
        self._check_depth("record_depth", 16, 65536, needed=self.depthwise)
        if self.threshold_depth:
            self._check_depth("threshold_depth", 16, 65536, needed=True)
        check(
            _power_of_two(self.memory_width) and self.memory_width <= self.lanes,
            "memory_width",
            f"a power of two up to lanes={self.lanes}",
            "a memory beat fills at most one scratchpad word",
        )

    def _check_depth(self, argument: str, low: int, high: int, *, needed: bool) -> None:
        value = getattr(self, argument)
        if not needed:
            if value != 0:
                raise ConfigError(f"{argument} must be 0, not {value!r} (depthwise=False leaves that memory out)")
        elif not (_power_of_two(value) and low <= value <= high):
            raise ConfigError(f"{argument} must be a power of two in {low}..{high}, not {value!r} (memories are built whole)")

    # Derived numbers. P, K, N and J are the letters of the design documents.

    @property
    def words_per_tile(self) -> int:
        """Scratchpad words that one pixel of one output tile fills: N / K."""
        return self.outputs // self.lanes

    @property
    def drain_groups(self) -> int:
        """Cycles in which J requantizers per row serve N outputs: N / J."""
        return self.outputs // self.drain_lanes

    @property
    def array_lanes(self) -> int:
        """Multiply-accumulate lanes of the array: P x N x K."""
        return self.pixels * self.outputs * self.lanes

    @property
    def depthwise_lanes(self) -> int:
        """Multiply-accumulate lanes of the depthwise engine: 9 x K or 3 x K, or 0."""
        return self.depthwise_taps * self.lanes if self.depthwise else 0

    @property
    def max_digits(self) -> int:
        """Digit planes a weight may have."""
        return 4 if self.digit_set == "radix4" else 1

    @property
    def weight_word_bytes(self) -> int:
        """Bytes of one weight word in external memory: K x N 2-bit digits, rounded up to whole memory beats."""
        return self._whole_beats(self.lanes * self.outputs // 4)

    @property
    def parameter_word_bytes(self) -> int:
        """Bytes of one parameter word in external memory: 8 for each of J channels, rounded up to whole memory beats."""
        return self._whole_beats(8 * self.drain_lanes)

    @property
    def depthwise_parameter_word_bytes(self) -> int:
        """Bytes of one parameter word of the depthwise engine in external memory: 8 for each of K channels."""
        return 8 * self.lanes

    @property
    def threshold_word_bytes(self) -> int:
        """Bytes of one threshold in external memory: 2, rounded up to whole memory beats."""
        return self._whole_beats(2)

    def _whole_beats(self, count: int) -> int:
        return -(-count // self.memory_width) * self.memory_width

    @property
    def hash(self) -> int:
        """32-bit identity of everything but the name; stored in programs and readable from the hardware."""
        values = asdict(self)
        del values["name"]
        return int.from_bytes(hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()[:4], "big")


TINY = Config(
    name="tiny",
    pixels=2,
    lanes=4,
    outputs=4,
    depthwise=False,
    drain_lanes=1,
    array_depth=256,
    window_depth=0,
    weight_depth=512,
    parameter_depth=64,
    record_depth=0,
    threshold_depth=0,
    memory_width=2,
)
"""For an iCE40 UP5K: 32 lanes, no depthwise engine, no thresholds."""

NANO = replace(TINY, name="nano", array_depth=2048, weight_depth=2048, parameter_depth=256)
"""For a Gowin 20k part: the lanes of ``tiny``, and memories for small networks."""

SMALL = Config(
    name="small",
    pixels=3,
    lanes=4,
    outputs=8,
    depthwise_taps=3,
    drain_lanes=1,
    array_depth=2048,
    window_depth=1024,
    weight_depth=2048,
    parameter_depth=512,
    record_depth=256,
    threshold_depth=256,
    memory_width=2,
)
"""For an ECP5-25F: 96 + 12 lanes."""

BASE = Config(name="base")
"""For an ECP5-85F: 448 + 72 lanes."""

LARGE = Config(name="large", outputs=16, weight_depth=4096, parameter_depth=1024)
"""896 + 72 lanes, for parts with a wide memory; after synthesis it takes no more than an ECP5-85F has."""

CONFIGS = {config.name: config for config in (TINY, NANO, SMALL, BASE, LARGE)}


def named_config(name: str) -> Config:
    """The config people call by ``name``; :class:`ConfigError` lists the names when there is none."""
    try:
        return CONFIGS[name]
    except KeyError:
        raise ConfigError(f"config must be one of {', '.join(CONFIGS)}, not {name!r} (or build a Config of your own)") from None
