"""An instruction put together from its beats, beside who needs it.

The fetch sends every beat to all queues, a few wires; were the whole instruction sent, its hundreds would lie between all engines.
"""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.control.fetch import beat_layout
from tercel.hw.local_register import local

_BITS_MOVED = 192
"""Bits that one register moves: few enough to lie together."""


def assembly_beats(config: Config, *, instruction_bits: int) -> int:
    """Beats that hold the low ``instruction_bits``."""
    return -(-instruction_bits // (8 * config.memory_width))


class Assembly(Component):
    """The low bits of the instruction whose beats came last.

    The instruction is complete in the cycle after its last beat's bits and stays until the next one's first. Those that need as many
    beats of it share one.

    Parameters
    ----------
    config
        ``memory_width`` is used.
    instruction_bits
        Bits from the lowest on that are put together.

    Members
    -------
    beat : In(beat_layout(config))
        The fetch's beats.
    instruction : Out(instruction_bits)
        The instruction.
    """

    def __init__(self, config: Config, *, instruction_bits: int) -> None:
        self._config = config
        self._beat_bits = 8 * config.memory_width
        self._beats = assembly_beats(config, instruction_bits=instruction_bits)
        super().__init__({"beat": In(beat_layout(config)), "instruction": Out(instruction_bits)})

    def elaborate(self, platform) -> Module:
        """A shift register that stands still at beats it does not need."""
        m = Module()
        beat = self.beat
        shifted = Signal(self._beats * self._beat_bits, reset_less=True)
        m.d.comb += self.instruction.eq(shifted)
        moved = Cat(shifted[self._beat_bits :], beat.data)
        for first in range(0, len(shifted), _BITS_MOVED):
            with m.If(local(m, beat.valid & (beat.number < self._beats), name=f"shift_{first}")):
                m.d.sync += shifted[first : first + _BITS_MOVED].eq(moved[first : first + _BITS_MOVED])
        return m
