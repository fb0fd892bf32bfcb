"""The store engine's words, collected from the banks of both scratchpads."""

from amaranth.hdl import Cat, Module, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.interfaces import BANK_BITS
from tercel.hw.wide_mux import WideMux


class Collector(Component):
    """Selects the bank that was read for the store engine; latency 4 cycles from ``space`` and ``bank``.

    Parameters
    ----------
    config
        ``pixels``, ``lanes`` and ``depthwise`` are used.

    Members
    -------
    space, bank : In
        The word that is asked for.
    words : In
        What the banks of each scratchpad return, two cycles later.
    o : Out(8K)
        The word, another two cycles later.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        banks = data.ArrayLayout(unsigned(8 * config.lanes), config.pixels)
        super().__init__(
            {
                "space": In(1),
                "bank": In(BANK_BITS),
                "words": In(data.ArrayLayout(banks, 1 + config.depthwise)),
                "o": Out(8 * config.lanes),
            }
        )

    def elaborate(self, platform) -> Module:
        """Registers, which block RAMs have at their outputs on some FPGAs, and a multiplexer; banks fill a power of two of its inputs."""
        m = Module()
        pixels = self._config.pixels
        bank_bits = (pixels - 1).bit_length()
        # As the words arrive late, nothing but a wire is in front of the registers.
        scratchpads = [delayed(m, words, 1, name=f"words_{space}") for space, words in enumerate(self.words)]
        banks = [words[min(bank, pixels - 1)] for words in scratchpads for bank in range(1 << bank_bits)]
        word = banks[0]
        if len(banks) > 1:
            m.submodules.mux = mux = WideMux(width=8 * self._config.lanes, count=len(banks))
            m.d.comb += [
                *(port.eq(bank) for port, bank in zip(mux.inputs, banks, strict=True)),
                mux.sel.eq(delayed(m, Cat(self.bank[:bank_bits], self.space if self._config.depthwise else Cat()), 3, name="select")),
            ]
            word = mux.o
        m.d.comb += self.o.eq(delayed(m, word, 1, name="word"))
        return m
