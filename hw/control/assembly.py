"""An instruction put together from its beats, beside who needs it.

The fetch sends every beat to all queues, a few wires; were the whole instruction sent, its hundreds would lie between all engines.
"""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.control.fetch import beat_layout


class Assembly(Component):
    """The low bits of the instruction whose beats came last.

    The instruction is complete in the cycle after its last beat's bits and stays until the next one's first. Synthesis makes one of those
    that put together as many bits.

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
        self._beats = -(-instruction_bits // self._beat_bits)
        super().__init__({"beat": In(beat_layout(config)), "instruction": Out(instruction_bits)})

    def elaborate(self, platform) -> Module:
        """A shift register that stands still at beats it does not need."""
        m = Module()
        beat = self.beat
        shifted = Signal(self._beats * self._beat_bits, reset_less=True)
        shift = Signal(reset_less=True)
        m.d.comb += self.instruction.eq(shifted)
        m.d.sync += shift.eq(beat.valid & (beat.number < self._beats))
        with m.If(shift):
            m.d.sync += shifted.eq(shifted[self._beat_bits :] | beat.data << len(shifted) - self._beat_bits)
        return m
