"""The store engine's words, collected from the banks of both scratchpads."""

from amaranth.hdl import Cat, Module, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.interfaces import BANK_BITS
from tercel.hw.wide_mux import WideMux

_NEIGHBOURS = 4
"""Words among which the first step selects."""


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
        """A multiplexer for every few neighbours, whose output is slow, and one behind them; banks fill a power of two of the inputs."""
        m = Module()
        pixels = self._config.pixels
        bank_bits = (pixels - 1).bit_length()
        banks = [scratchpad[bank] if bank < pixels else None for scratchpad in self.words for bank in range(1 << bank_bits)]
        select = delayed(m, Cat(self.bank[:bank_bits], self.space if self._config.depthwise else Cat()), 2, name="select")
        near_bits = min(len(select), exact_log2(_NEIGHBOURS))
        near = []
        for first in range(0, len(banks), 1 << near_bits):
            words = [word for word in banks[first : first + (1 << near_bits)] if word is not None]
            if words:
                near.append(delayed(m, self._choose(m, words, select[:near_bits], name=f"near_{first}"), 1, name=f"near_{first}"))
            else:
                near.append(near[-1])
        m.d.comb += self.o.eq(delayed(m, self._choose(m, near, delayed(m, select[near_bits:], 1, name="far"), name="far"), 1, name="word"))
        return m

    def _choose(self, m: Module, words: list, select: Value, *, name: str) -> Value:
        """``words[select]``; the last one above their number."""
        if len(words) == 1:
            return words[0]
        m.submodules[f"{name}_mux"] = mux = WideMux(width=8 * self._config.lanes, count=len(words))
        m.d.comb += [mux.sel.eq(select), *(port.eq(word) for port, word in zip(mux.inputs, words, strict=True))]
        return mux.o
