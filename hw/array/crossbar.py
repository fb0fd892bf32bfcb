"""From banks to rows: each row of the array gets its pixel's word, wherever it lies."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.bank_address import LATENCY as ADDRESS_LATENCY
from tercel.hw.array.banks import MAX_STRIDE, max_sub_cycles, sub_cycle_of, sub_cycle_shape, sub_cycles
from tercel.hw.array.feed import act_layout
from tercel.hw.array.loops import ARRAY_FIELDS
from tercel.hw.array.pointer import POINTER
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.local_register import local
from tercel.hw.wide_mux import WideMux

LATENCY = ADDRESS_LATENCY + 4


class Crossbar(Component):
    """Activations of one step from the words of the banks; one step (or sub-cycle, or residual word) per cycle.

    The inputs are those of :class:`BankAddress` in the same cycle, but ``inside``, its output ``ADDRESS_LATENCY`` cycles later, and
    ``data``, which the banks give one cycle after that. ``acts`` follows by ``LATENCY`` cycles. After a step of several
    sub-cycles ``acts`` is complete with the last of them.

    Members
    -------
    fields : In
        The instruction, from the fifth cycle after its first input to the seventh after the last.
    bank, out_bank : In
        Banks of pixel 0 of the input and of the output: row r computes pixel (r - out_bank) mod P.
    stride : In(2), sub_cycle : In, residual : In(1)
        As in :class:`BankAddress`.
    tail : In(1)
        Last channel group: only lanes up to ``last_lanes`` count, the others are 0.
    inside, data : In
        For each bank whether it was read, and its word.
    acts : Out
        Unsigned, 128 more than the code where codes are signed; ``z_in`` for pixels that were not read, in residual words anything.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "fields": In(ARRAY_FIELDS),
                "bank": In(POINTER["bank"].shape),
                "out_bank": In(POINTER["bank"].shape),
                "stride": In(2),
                "sub_cycle": In(sub_cycle_shape(config)),
                "residual": In(1),
                "tail": In(1),
                "inside": In(config.pixels),
                "data": In(data.ArrayLayout(8 * config.lanes, config.pixels)),
                "acts": Out(act_layout(config)),
            }
        )

    def elaborate(self, platform):
        """Selects are computed while the memories are read; data passes registers before and after the multiplexers."""
        m = Module()
        pixels, lanes = self.config.pixels, self.config.lanes

        # Row r reads bank (phase + r*stride) mod P, phase = bank - out_bank*stride.
        out_phase_1, phase_2 = (Signal(range(pixels), name=name, reset_less=True) for name in ("out_phase", "phase"))
        bank_1 = delayed(m, self.bank, 1, name="bank")
        with m.Switch(self.stride):
            for stride in range(1, MAX_STRIDE + 1):
                with m.Case(stride - 1), m.Switch(self.out_bank):
                    for out_bank in range(pixels):
                        with m.Case(out_bank):
                            m.d.sync += out_phase_1.eq(out_bank * stride % pixels)
        difference = Signal(range(-pixels, pixels))
        m.d.comb += difference.eq(bank_1 - out_phase_1)
        m.d.sync += phase_2.eq(Mux(difference < 0, difference + pixels, difference))
        phase_4 = delayed(m, phase_2, 2, name="phase")
        stride_4 = delayed(m, self.stride, 4, name="stride")

        bank_5 = [Signal(range(pixels), name=f"bank_of_row_{row}", reset_less=True) for row in range(pixels)]
        inside_5 = delayed(m, self.inside, 1, name="inside")
        with m.Switch(stride_4):
            for stride in range(1, MAX_STRIDE + 1):
                with m.Case(stride - 1), m.Switch(phase_4):
                    for phase in range(pixels):
                        with m.Case(phase):
                            m.d.sync += [bank_5[row].eq((phase + row * stride) % pixels) for row in range(pixels)]

        # One input more than there are banks: padding.
        select_6 = [Signal(range(pixels + 1), name=f"select_{row}", reset_less=True) for row in range(pixels)]
        for row in range(pixels):
            m.submodules[f"inside_{row}"] = chosen = WideMux(width=1, count=pixels)
            m.d.comb += [chosen.sel.eq(bank_5[row]), *(chosen.inputs[bank].eq(inside_5[bank]) for bank in range(pixels))]
            m.d.sync += select_6[row].eq(Mux(chosen.o, bank_5[row], pixels))
        data_6 = delayed(m, self.data, 1, name="data")
        take_6 = self._rows_of_sub_cycle(m)

        # The byte that stands for a pixel that was not read, for each row: its wire crosses all lanes. Bit 7 is turned over as in pixels.
        z_in = [local(m, self.fields.z_in ^ (self.fields.in_signed << 7), name=f"z_in_{row}") for row in range(pixels)]
        codes_7 = [Signal(8 * lanes, name=f"codes_{row}", reset_less=True) for row in range(pixels)]
        for row in range(pixels):
            m.submodules[f"word_{row}"] = word = WideMux(width=8 * lanes, count=pixels + 1)
            m.d.comb += [word.sel.eq(select_6[row]), word.inputs[pixels].eq(z_in[row].replicate(lanes))]
            m.d.comb += [word.inputs[bank].eq(data_6[bank]) for bank in range(pixels)]
            with m.If(take_6[row]):
                m.d.sync += codes_7[row].eq(word.o)

        residual_6 = delayed(m, self.residual, 6, name="residual")
        tail_6 = delayed(m, self.tail, 6, name="tail")
        signed_6 = Mux(residual_6, self.fields.res_signed, self.fields.in_signed)
        signed_7 = [local(m, signed_6, name=f"signed_{row}") for row in range(pixels)]
        acts = Signal(self.acts.shape(), reset_less=True)
        m.d.comb += self.acts.eq(acts)
        for lane in range(lanes):
            # The comparison has a cycle of its own: the fields are there in the fifth, and it counts in the sixth.
            beyond, unused = (Signal(name=f"{name}_{lane}", reset_less=True) for name in ("beyond", "unused"))
            m.d.sync += [beyond.eq(self.fields.last_lanes < lane), unused.eq(tail_6 & beyond)]
            for row in range(pixels):
                code = codes_7[row].word_select(lane, 8)
                m.d.sync += acts[row][lane].eq(Cat(code[:7], code[7] ^ signed_7[row]))
                with m.If(unused):
                    m.d.sync += acts[row][lane].eq(0)
        return m

    def _rows_of_sub_cycle(self, m: Module):
        """Rows whose pixel is read in the sub-cycle, 6 cycles after the inputs; all where no stride conflicts."""
        pixels = self.config.pixels
        rows = Signal(pixels, init=-1, reset_less=True)
        if max_sub_cycles(self.config) == 1:
            return rows
        out_bank_5 = delayed(m, self.out_bank, 5, name="out_bank")
        sub_cycle_5 = delayed(m, self.sub_cycle, 5, name="sub_cycle")
        stride_5 = delayed(m, self.stride, 5, name="take_stride")
        with m.Switch(stride_5):
            for stride in range(1, MAX_STRIDE + 1):
                with m.Case(stride - 1):
                    if sub_cycles(self.config, stride=stride) == 1:
                        m.d.sync += rows.eq(-1)
                        continue
                    with m.Switch(out_bank_5):
                        for out_bank in range(pixels):
                            with m.Case(out_bank):
                                served = [
                                    sub_cycle_of(self.config, stride=stride, pixel=(row - out_bank) % pixels)
                                    for row in range(pixels)
                                ]
                                m.d.sync += rows.eq(Cat(sub_cycle_5 == number for number in served))
        return rows
