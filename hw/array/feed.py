"""What the feeder gives to the systolic array and the drain: one signature, all members at the time of row 0."""

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from tercel.hw.config import Config
from tercel.hw.isa import ADDR_BITS

RESIDUAL_WORD_BITS = 5


def drain_interval(config: Config, *, narrow: bool, thresholds: int) -> int:
    """D: the fewest cycles between the ``last`` of two tiles of one instruction (``thresholds`` in 0..15)."""
    return config.drain_groups if narrow else config.outputs * max(1, thresholds)


DRAIN_LAYOUT = data.StructLayout(
    {
        "gain": unsigned(1),
        "narrow": unsigned(1),
        "multiplier": unsigned(16),
        "shift": unsigned(6),
        "z_out": signed(9),
        "lo": signed(9),
        "hi": signed(9),
        "thresholds": unsigned(4),
        "threshold_shared": unsigned(1),
        "residual": unsigned(1),
        "res_multiplier": unsigned(16),
        "res_shift": unsigned(5),
        "z_res": unsigned(8),
    }
)
"""The fields of an ARRAY instruction that only the drain uses, as encoded in the instruction (``gain`` is g - 1)."""


def tile_layout(config: Config) -> data.StructLayout:
    """Where the outputs of a tile go and how they are requantized.

    ``valid``, ``addr``: by row (= bank written): whether the row's output pixel exists, and the address of its word 0 of this output
    group; word j is at ``addr`` + j. All the words of valid pixels are inside the scratchpad ``space``.
    ``parameter_addr``: the first of the G parameter words of the output group.
    ``threshold_addr``: the first threshold of the output group's channel 0; channel n has its own at + 16*n unless ``threshold_shared``.
    ``end``: last tile of instruction ``index``, which gives tokens to ``post``.
    """
    return data.StructLayout(
        {
            "valid": unsigned(config.pixels),
            "addr": data.ArrayLayout(unsigned(ADDR_BITS), config.pixels),
            "space": unsigned(1),
            "parameter_addr": unsigned(16),
            "threshold_addr": unsigned(16),
            "end": unsigned(1),
            "index": unsigned(16),
            "post": unsigned(4),
            "config": DRAIN_LAYOUT,
        }
    )


def act_layout(config: Config) -> data.ArrayLayout:
    """The activations of one step: row p, lane k, unsigned: 128 more than the code where codes are signed."""
    return data.ArrayLayout(data.ArrayLayout(unsigned(8), config.lanes), config.pixels)


def weight_shape(config: Config) -> Shape:
    """A weight word: the 2-bit digit of output n, lane k at bit 2*(n*K + k)."""
    return unsigned(2 * config.lanes * config.outputs)


class FeedSignature(wiring.Signature):
    """The feeder's output (directions as seen from the feeder). No backpressure; every cycle is a step, a residual word or nothing.

    A tile is: its steps but the last; with residual, N/K residual words; the last step. Nothing else than idle cycles lies between.

    Members
    -------
    acts
        Row p of the array gets ``acts[p]``; it belongs to pixel (p - out_bank) mod P of the tile.
    weights
        The weight word of the step.
    step
        A multiply-accumulate step.
    shift
        With ``step``: first step of a plane other than the top, the accumulator is shifted left by 2 before the sum is added.
    sum
        With ``step``: step of the top plane, the activations count in asum.
    offset
        Factor of the sum of activations; valid with ``step``, the same for all steps of an instruction.
    last
        Only with ``step``: last step of the tile. The sums, this step included, are the tile's; the next step starts from 0.
    residual
        Never with ``step``: ``acts`` are the residual codes of channels ``residual_word``*K ... of the output group.
    residual_word
        0 .. N/K - 1 in this order. They may come right behind the ``last`` of the tile before, while its own are still in use.
    tile
        Valid with ``last``; ``config``, ``index`` and ``post`` change only with the first ``last`` of an instruction and hold until that
        of the next.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "acts": Out(act_layout(config)),
                "weights": Out(weight_shape(config)),
                "step": Out(1),
                "shift": Out(1),
                "sum": Out(1),
                "offset": Out(signed(10)),
                "last": Out(1),
                "residual": Out(1),
                "residual_word": Out(RESIDUAL_WORD_BITS),
                "tile": Out(tile_layout(config)),
            }
        )
