"""The address of every bank for one step: P pixels, anywhere in a row of the image, in one cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, exact_log2

from tercel.hw.array.banks import MAX_STRIDE, pixel_at, sub_cycle_shape, sub_cycles
from tercel.hw.array.loops import ARRAY_FIELDS
from tercel.hw.array.pointer import POINTER
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.isa import ADDR_BITS
from tercel.hw.local_register import local
from tercel.hw.mux_add import MuxAdd
from tercel.hw.wide_mux import WideMux

LATENCY = 4


class BankAddress(Component):
    """From the pointer of pixel 0 to one address a bank, with the bank's pixel checked against image and scratchpad.

    One step, sub-cycle of a step or residual word per cycle; the outputs follow the inputs by ``LATENCY`` cycles.

    Members
    -------
    fields : In
        The instruction of the inputs.
    travelling : In
        The same, from the cycle after the first input on, for at least ``LATENCY`` cycles after the last.
    access : In(1)
        The inputs hold something to read.
    bank, addr : In
        Pointer of pixel 0; pixel p is p*stride pixels further.
    before, row_inside : In
        Minus its column, and whether its row is inside the image; a residual needs neither.
    count : In
        Pixels 0..count-1 of the tile are valid; others are not read.
    stride : In(2)
        Pixels between two pixels of the tile, less 1.
    sub_cycle : In
        Of the step.
    residual : In(1)
        The residual tensor is read, not the input.
    inside : Out
        For each bank: it is read; 0 where no pixel, none that is valid or none inside the image lies in it.
    bank_addr, bank_addr_high : Out
        Its address, from two registers.
    fault : Out(1)
        Some address is at or past the depth (those banks' ``en`` is off, their ``inside`` is on).
    en : Out
        For each bank: it is read and its address is in range.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        pixels = config.pixels
        super().__init__(
            {
                "fields": In(ARRAY_FIELDS),
                "travelling": In(ARRAY_FIELDS),
                "access": In(1),
                "bank": In(POINTER["bank"].shape),
                "addr": In(ADDR_BITS),
                "before": In(signed(17)),
                "row_inside": In(1),
                "count": In(range(pixels + 1)),
                "stride": In(2),
                "sub_cycle": In(sub_cycle_shape(config)),
                "residual": In(1),
                "inside": Out(pixels),
                "en": Out(pixels),
                "bank_addr": Out(data.ArrayLayout(exact_log2(config.array_depth), pixels)),
                "bank_addr_high": Out(data.ArrayLayout(exact_log2(config.array_depth), pixels)),
                "fault": Out(1),
            }
        )

    def elaborate(self, platform):
        """Four stages: distances to the borders; saturated limits; masks and candidate addresses; choice by bank."""
        m = Module()
        pixels = self.config.pixels
        depth_bits = exact_log2(self.config.array_depth)
        fields = self.travelling
        # Columns from pixel 0, saturated: enough for the last pixel at the largest stride.
        reach_bits = bits_for(MAX_STRIDE * pixels)

        # Stage 1.
        access_2 = delayed(m, self.access, 2, name="access")
        bank_2, addr_2 = delayed(m, self.bank, 2, name="bank"), delayed(m, self.addr, 2, name="addr")
        stride_2, sub_cycle_2 = delayed(m, self.stride, 2, name="stride"), delayed(m, self.sub_cycle, 2, name="sub_cycle")
        residual_1, visible_1 = delayed(m, self.residual, 1, name="residual"), delayed(m, self.row_inside, 1, name="visible")
        before_1 = delayed(m, self.before, 1, name="before")
        room_1, cap_1 = Signal(signed(17), reset_less=True), Signal(reach_bits, reset_less=True)
        m.d.sync += room_1.eq(self.before + self.fields.in_width)
        with m.Switch(self.stride):
            for stride in range(1, MAX_STRIDE + 1):
                with m.Case(stride - 1):
                    m.d.sync += cap_1.eq(sum(self.count << bit for bit in range(3) if stride >> bit & 1))

        # Stage 2: the pixels at columns low <= c < high from pixel 0 are read.
        residual_2 = delayed(m, residual_1, 1, name="residual_late")
        low_2, high_2 = Signal(reach_bits, reset_less=True), Signal(reach_bits, reset_less=True)
        # The comparison does not wait for the room to be limited: where it is less than the cap, only its sign matters.
        short, by_cap, by_room = Signal(), Signal(), Signal()
        m.d.comb += [
            short.eq(room_1 < cap_1),
            by_cap.eq(residual_1 | (visible_1 & ~short)),
            by_room.eq(~residual_1 & visible_1 & short & ~room_1[-1]),
        ]
        m.d.sync += [
            low_2.eq(Mux(residual_1, 0, self._saturated(before_1, reach_bits))),
            high_2.eq(Mux(by_cap, cap_1, Mux(by_room, room_1[:reach_bits], 0))),
        ]

        # Stage 3: by distance from the bank of pixel 0, whether its pixel is read and how many times it went round the banks.
        rounds_max = (pixels - 1) * (MAX_STRIDE + 1) // pixels
        rounds_shape = range(rounds_max + 1)
        mask_2 = Signal(pixels)
        with m.Switch(stride_2):
            for stride in range(1, MAX_STRIDE + 1):
                with m.Case(stride - 1), m.Switch(sub_cycle_2):
                    for sub_cycle in range(sub_cycles(self.config, stride=stride)):
                        with m.Case(sub_cycle):
                            for distance in range(pixels):
                                pixel = pixel_at(self.config, stride=stride, sub_cycle=sub_cycle, distance=distance)
                                if pixel is None:
                                    continue
                                column = Const(pixel * stride, reach_bits)
                                m.d.comb += mask_2[distance].eq((low_2 <= column) & (column < high_2))
        mask_3, bank_3 = Signal(pixels), delayed(m, bank_2, 1, name="bank_late")
        rounds_3 = [Signal(rounds_shape, name=f"bank_rounds_{bank}", reset_less=True) for bank in range(pixels)]
        m.d.sync += mask_3.eq(Mux(access_2, mask_2, 0))
        for bank in range(pixels):
            m.d.sync += rounds_3[bank].eq(self._rounds(bank=bank, first=bank_2, stride=stride_2, sub_cycle=sub_cycle_2))

        triple = Signal(ADDR_BITS, reset_less=True)
        m.d.sync += triple.eq(fields.in_pixel + (fields.in_pixel << 1))
        multiples = [
            Const(0, ADDR_BITS),
            None,
            fields.in_pixel << 1,
            triple,
            fields.in_pixel << 2,
        ]
        candidates = []
        for rounds, words in enumerate(multiples[: rounds_max + 1]):
            total = Signal(ADDR_BITS, name=f"total_{rounds}")
            candidate = Signal(depth_bits + 1, name=f"candidate_{rounds}", reset_less=True)
            if words is None:
                m.submodules.one_round = one_round = MuxAdd(ADDR_BITS)
                m.d.comb += [
                    one_round.a.eq(addr_2),
                    one_round.c.eq(fields.in_pixel),
                    one_round.d.eq(fields.res_pixel),
                    one_round.sel.eq(residual_2),
                    total.eq(one_round.o),
                ]
            else:
                m.d.comb += total.eq(addr_2 + words)
            # The top bit: at or past the depth.
            m.d.sync += candidate.eq(total[:depth_bits] | (total[depth_bits:].any() << depth_bits))
            candidates.append(candidate)

        # Stage 4.
        over, bank_addr = Signal(pixels, reset_less=True), Signal(self.bank_addr.shape(), reset_less=True)
        m.d.comb += self.bank_addr.eq(bank_addr)
        for bank in range(pixels):
            m.submodules[f"inside_{bank}"] = choice = WideMux(width=1, count=max(2, pixels))
            m.d.comb += choice.sel.eq(bank_3)
            m.d.comb += [choice.inputs[first].eq(mask_3[(bank - first) % pixels]) for first in range(pixels)]
            m.d.sync += self.inside[bank].eq(choice.o)
        for bank in range(pixels):
            # Four to one in two LUTs a bit, the fifth in one more.
            m.submodules[f"rounds_{bank}"] = choice = WideMux(width=depth_bits + 1, count=4)
            for rounds in range(4):
                m.d.comb += choice.inputs[rounds].eq(candidates[min(rounds, rounds_max)])
            m.d.comb += choice.sel.eq(rounds_3[bank])
            word = Mux(rounds_3[bank][2], candidates[4], choice.o) if rounds_max == MAX_STRIDE else choice.o
            m.d.sync += Cat(bank_addr[bank], over[bank]).eq(word)
            # A bank is wider than a wire can reach in a cycle.
            m.d.comb += self.bank_addr_high[bank].eq(local(m, word[:depth_bits], name=f"high_{bank}"))
        m.d.comb += [self.en.eq(self.inside & ~over), self.fault.eq((self.inside & over).any())]
        return m

    def _rounds(self, *, bank: int, first, stride, sub_cycle):
        """How many times the pixel read from ``bank`` went round the banks when pixel 0 lies in ``first``: a table of few LUTs a bit."""
        pixels = self.config.pixels
        codes: list[list[int]] = [[], [], []]
        select = Cat(first, stride, sub_cycle)
        for number in range(1, MAX_STRIDE + 1):
            for cycle in range(sub_cycles(self.config, stride=number)):
                for begin in range(pixels):
                    pixel = pixel_at(self.config, stride=number, sub_cycle=cycle, distance=(bank - begin) % pixels)
                    rounds = 0 if pixel is None else pixel * number // pixels + (bank < begin)
                    for bit, table in enumerate(codes):
                        if rounds >> bit & 1:
                            table.append(begin | (number - 1) << len(first) | cycle << len(first) + len(stride))
        return Cat(select.matches(*table) for table in codes)

    def _saturated(self, value, bits: int):
        """``value`` limited to 0..2**bits - 1."""
        return Mux(value < 0, 0, value[:bits] | value[bits:-1].any().replicate(bits))
