"""Sums to output words: the parameters of their channels and K requantizers, or half as many."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tercel.hw.config import Config, unit_exponent
from tercel.hw.delay import delayed
from tercel.hw.depthwise.column import taps_layout
from tercel.hw.depthwise.plan import INSTRUCTION, PLAN_LAYOUT
from tercel.hw.depthwise.taps import TAPS_LATENCY
from tercel.hw.depthwise.weights import LANES_CLEARED
from tercel.hw.interfaces import LinearReadSignature, parameter_word
from tercel.hw.local_register import local
from tercel.hw.memory.space import RECORD_TAPS
from tercel.hw.requantize import LATENCY, Requantizer
from tercel.hw.rescale import CLAMP_LAYOUT, clamp_of


def requantizer_turns(config: Config) -> int:
    """Lanes that share a requantizer: 2 where words are never closer together than that."""
    return 1 if config.depthwise_taps == RECORD_TAPS else 2


class Results(wiring.Component):
    """``word`` follows ``sums`` by the requantizers' latency, and a cycle more where they take two turns.

    ``taps`` names the parameter word ``TAPS_LATENCY`` cycles before the sums; it is read for each window, as late as it can be: in time for
    ``bias`` to be the word's when its first products are accumulated (see :class:`~tercel.hw.depthwise.taps.Taps`). Maximum mode uses none.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "instruction": In(INSTRUCTION),
                "plan": In(PLAN_LAYOUT),
                "taps": In(taps_layout(config)),
                "parameter": Out(LinearReadSignature(16, parameter_word(config, config.lanes))),
                "bias": Out(data.ArrayLayout(signed(32), config.lanes)),
                "sums": In(data.ArrayLayout(signed(32), config.lanes)),
                "sums_valid": In(1),
                "word": Out(8 * config.lanes),
                "word_valid": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Parameter read and requantizers, each of which takes one lane or, one after the other, two."""
        m = Module()
        config, i, plan = self._config, self.instruction, self.plan
        turns = requantizer_turns(config)
        # Memory 2, a register 1; three rows of a window are accumulated one after the other.
        taps = delayed(m, self.taps, TAPS_LATENCY - 4 - (RECORD_TAPS // config.depthwise_taps - 1), name="taps")
        m.d.comb += [self.parameter.en.eq(taps.compute), self.parameter.addr.eq(taps.parameter)]
        parameters = Signal(parameter_word(config, config.lanes), reset_less=True)
        for first in range(0, config.lanes, LANES_CLEARED):
            maximum = local(m, plan.maximum, name=f"maximum_{first}")
            for lane in range(first, min(first + LANES_CLEARED, config.lanes)):
                with m.If(maximum):
                    m.d.sync += parameters[lane].eq(0)
                    if config.per_channel_multiplier:
                        m.d.sync += parameters[lane].multiplier.eq(1 << unit_exponent(config.multiplier_bits))
                with m.Else():
                    m.d.sync += parameters[lane].eq(self.parameter.data[lane])
        m.d.comb += [self.bias[lane].eq(parameters[lane].bias) for lane in range(config.lanes)]
        clamp = Signal(CLAMP_LAYOUT, reset_less=True)
        m.d.sync += clamp.eq(clamp_of(z_out=plan.z_out, lo=i.lo, hi=i.hi))
        # The second turn's lanes wait a cycle, as their sums are gone by then.
        second_sums = self.sums_valid if turns == 1 else delayed(m, self.sums_valid, 1, name="second")
        codes = []
        count = config.lanes // turns
        # What holds for an instruction, in registers beside each pair of requantizers.
        scale = Cat(plan.shift, plan.multiplier[: config.multiplier_bits])
        scales = [local(m, scale, name=f"scale_{pair}") for pair in range(-(-count // 2))]
        for lane in range(count):
            entry, v = parameters[lane], self.sums[lane]
            if turns > 1:
                # The parameters are looked at a cycle before the sums, and those of the second turn are gone in the next.
                waiting = delayed(m, parameters[count + lane], 1, name=f"entry_{lane}")
                entry = data.View(entry.shape(), Mux(self.sums_valid, waiting, entry))
                v = Mux(second_sums, delayed(m, self.sums[count + lane], 1, name=f"waiting_{lane}"), v)
            m.submodules[f"requantizer_{lane}"] = requantizer = Requantizer(config)
            e = Signal(5, name=f"e_{lane}", reset_less=True)
            shift, multiplier = scales[lane // 2][: len(plan.shift)], scales[lane // 2][len(plan.shift) :]
            m.d.sync += e.eq(shift + entry.shift)
            if config.per_channel_multiplier:
                multiplier = delayed(m, entry.multiplier, 1, name=f"multiplier_{lane}")
            m.d.comb += [
                requantizer.v.eq(v),
                requantizer.multiplier.eq(multiplier),
                requantizer.e.eq(e),
                requantizer.clamp.eq(clamp),
            ]
            codes.append(requantizer.y)
        word = codes if turns == 1 else [*(delayed(m, code, 1, name=f"first_{lane}") for lane, code in enumerate(codes)), *codes]
        m.d.comb += [
            self.word.eq(Cat(word)),
            self.word_valid.eq(delayed(m, second_sums, LATENCY, name="word_valid")),
        ]
        return m
