"""From column operations to bank reads: addresses, conflicts, range.

::

    cycle  0            1               2                         3        4        5             6            7
    column -> row table -> banks, inside -> addresses, shared banks -> range -> grant -> bank of each -> bank reads -> data

Every column has three words, one a row. Words of a bank that an earlier word of the same operation still needs wait a cycle:
that is a conflict, and the operations behind wait with it.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.depthwise.column import ROW_LAYOUT, column_layout, taps_layout
from tercel.hw.depthwise.plan import INSTRUCTION, PLAN_LAYOUT
from tercel.hw.depthwise.pointer import POINTER, PointerAdd, add_banks
from tercel.hw.interfaces import BankReadSignature
from tercel.hw.isa import ADDR_BITS
from tercel.hw.local_register import local
from tercel.hw.mux_add import MuxAdd

WORDS = 6
"""Words of an operation: A of rows 0..2, then B of rows 0..2."""
PAIRS = [(low, high) for high in range(WORDS) for low in range(high)]


def arrival_layout(config: Config) -> data.StructLayout:
    """What the window must know about the words read in one cycle.

    ``come``: the words that come, each from ``bank``, or as padding where that is P. ``head``: the
    first of an operation's cycles, in which the window moves: by two columns if ``two``. ``taps.compute`` is set in an operation's last.
    """
    return data.StructLayout(
        {
            "come": WORDS,
            "bank": data.ArrayLayout(range(config.pixels + 1), WORDS),
            "head": 1,
            "two": 1,
            "byte": 4,
            "taps": taps_layout(config),
        }
    )


class WindowFetch(wiring.Component):
    """One operation a cycle without conflicts; ``arrival`` leaves together with the ``read`` it belongs to.

    The data follow by one cycle. ``request`` is ``arrival.taps`` a cycle before. ``range_fault``: some word of the next operation lies past
    the scratchpad; nothing of it, and nothing after it, is read. ``frozen`` stops all reads.
    ``slot``, ``block``, ``row``: the row table; ``release``: a slot is free. ``conflict``: operations wait for a bank.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "instruction": In(INSTRUCTION),
                "plan": In(PLAN_LAYOUT),
                "column": In(stream.Signature(column_layout(config))),
                "slot": Out(1),
                "block": Out(3),
                "row": In(data.ArrayLayout(ROW_LAYOUT, 3)),
                "release": Out(1),
                "frozen": In(1),
                "range_fault": Out(1),
                "conflict": Out(1),
                "read": Out(BankReadSignature(config)),
                "request": Out(taps_layout(config)),
                "arrival": Out(arrival_layout(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Seven stages; the fifth holds back those before it."""
        m = Module()
        config, i, plan = self._config, self.instruction, self.plan
        pixels = config.pixels
        advance, next_advance = Signal(init=1, reset_less=True), Signal()
        m.d.sync += advance.eq(next_advance)
        # The loops are told by a register beside them.
        m.d.comb += self.column.ready.eq(local(m, next_advance, name="ready"))

        # Cycle 0 -> 1.
        valid_1, op_1 = Signal(), Signal(column_layout(config), reset_less=True)
        with m.If(advance):
            m.d.sync += [valid_1.eq(self.column.valid), op_1.eq(self.column.payload)]
        m.d.comb += [
            self.slot.eq(op_1.slot),
            self.block.eq(op_1.block),
            self.release.eq(advance & valid_1 & op_1.row_end),
        ]

        # 1 -> 2: the row pointers, and the place of column B, relative to them.
        valid_2, op_2, row_2 = Signal(reset_less=True), Signal.like(op_1, name="op_2"), Signal.like(self.row, reset_less=True)
        place_b, number_b = Signal(POINTER, reset_less=True), Signal(signed(16), reset_less=True)
        m.submodules.next = following = PointerAdd(config)
        m.d.comb += [following.a.eq(op_1.place), following.b.eq(plan.step)]
        with m.If(advance):
            m.d.sync += [valid_2.eq(valid_1), op_2.eq(op_1), row_2.eq(self.row)]
            m.d.sync += [place_b.eq(op_1.place), number_b.eq(op_1.column)]
            with m.If(op_1.two):
                m.d.sync += [place_b.eq(following.o), number_b.eq(op_1.column + i.dilation_x)]

        # 2 -> 3: the banks, whether each word is read, and both addresses a row pointer may lead to.
        valid_3, op_3 = Signal(reset_less=True), Signal.like(op_1, name="op_3")
        addr_a3, addr_b3 = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        row_low, row_high = (Signal(data.ArrayLayout(ADDR_BITS, 3), name=name, reset_less=True) for name in ("row_low", "row_high"))
        bank_3, carry_3 = Signal(data.ArrayLayout(range(pixels), WORDS), reset_less=True), Signal(WORDS, reset_less=True)
        want_3 = Signal(WORDS, reset_less=True)

        def inside(number) -> Signal:
            return plan.vector | (number >= 0) & (number < i.in_width)

        want_a = op_2.two & op_2.need_a & inside(op_2.column)
        want_b = op_2.need_b & inside(number_b)
        with m.If(advance):
            m.d.sync += [valid_3.eq(valid_2), op_3.eq(op_2), addr_a3.eq(op_2.place.addr), addr_b3.eq(place_b.addr)]
            for row in range(3):
                m.d.sync += [row_low[row].eq(row_2[row].place.addr), row_high[row].eq(row_2[row].place.addr + i.in_pixel)]
                for word, column_bank, want in ((row, op_2.place.bank, want_a), (3 + row, place_b.bank, want_b)):
                    bank, carry = add_banks(row_2[row].place.bank, column_bank, pixels=pixels)
                    m.d.sync += [
                        bank_3[word].eq(bank),
                        carry_3[word].eq(carry),
                        want_3[word].eq(valid_2 & want & row_2[row].inside & op_2.taps.rows[row]),
                    ]

        # 3 -> 4: addresses, and which words need the same bank.
        valid_4, op_4 = Signal(reset_less=True), Signal.like(op_1, name="op_4")
        bank_4, addr_4 = Signal.like(bank_3, name="bank_4"), Signal(data.ArrayLayout(ADDR_BITS, WORDS), reset_less=True)
        want_4 = Signal(WORDS, reset_less=True)
        pairs_4 = Signal(len(PAIRS), reset_less=True)
        with m.If(advance):
            m.d.sync += [valid_4.eq(valid_3), op_4.eq(op_3), bank_4.eq(bank_3), want_4.eq(want_3)]
            m.d.sync += pairs_4.eq(Cat(want_3[low] & want_3[high] & (bank_3[low] == bank_3[high]) for low, high in PAIRS))
        for word in range(WORDS):
            m.submodules[f"address_{word}"] = address = MuxAdd(ADDR_BITS)
            m.d.comb += [
                address.a.eq(addr_a3 if word < 3 else addr_b3),
                address.c.eq(row_low[word % 3]),
                address.d.eq(row_high[word % 3]),
                address.sel.eq(carry_3[word]),
            ]
            with m.If(advance):
                m.d.sync += addr_4[word].eq(address.o)

        # 4 -> 5: grant. Of the words that wait, those without a partner of lower number. Whether the operation will be done with that is
        # known a cycle before: advance, which enables all the stages above, is a register.
        op_5, bank_5, addr_5 = Signal.like(op_1, name="op_5"), Signal.like(bank_3, name="bank_5"), Signal.like(addr_4, name="addr_5")
        want_5 = Signal(WORDS, reset_less=True)
        pairs_5 = Signal(len(PAIRS), reset_less=True)
        valid_5, over, head = (Signal(name=name, reset_less=True) for name in ("valid_5", "over", "head"))
        depth_bits = exact_log2(config.window_depth)
        later = Signal(len(PAIRS))
        blocked, grant = Signal(WORDS), Signal(WORDS)
        m.d.comb += [
            blocked.eq(Cat(Cat(pairs_5[pair] for pair, (_, high) in enumerate(PAIRS) if high == word).any() for word in range(WORDS))),
            grant.eq(want_5 & ~blocked),
            later.eq(Cat(pairs_5[pair] & blocked[low] for pair, (low, _) in enumerate(PAIRS))),
            self.conflict.eq(~advance),
            self.range_fault.eq(over),
        ]
        with m.If(advance):
            m.d.sync += [valid_5.eq(valid_4), op_5.eq(op_4), bank_5.eq(bank_4), addr_5.eq(addr_4), want_5.eq(want_4), head.eq(1)]
            m.d.sync += over.eq(Cat(want_4[word] & addr_4[word][depth_bits:].any() for word in range(WORDS)).any())
            m.d.sync += pairs_5.eq(pairs_4)
            m.d.comb += next_advance.eq(~pairs_4.any())
        with m.Else():
            m.d.sync += [want_5.eq(blocked), head.eq(0), pairs_5.eq(later)]
            m.d.comb += next_advance.eq(~later.any())
        go = valid_5 & ~self.frozen & ~over

        # 5 -> 6: the read. 6 -> 7: the words' addresses at their banks, in registers in front of the memories.
        read_addr = Signal(data.ArrayLayout(depth_bits, WORDS), reset_less=True)
        read_bank = Signal(data.ArrayLayout(pixels, WORDS), reset_less=True)
        arrival = Signal(arrival_layout(config), reset_less=True)
        bank_en, bank_addr = Signal(pixels, reset_less=True), Signal(data.ArrayLayout(depth_bits, pixels), reset_less=True)
        m.d.comb += [self.arrival.eq(delayed(m, arrival, 1, name="arrival")), self.request.eq(arrival.taps), self.read.en.eq(bank_en)]
        for word in range(WORDS):
            here = go & grant[word]
            m.d.sync += [
                read_bank[word].eq(Cat(here & (bank_5[word] == bank) for bank in range(pixels))),
                arrival.bank[word].eq(Mux(want_5[word], bank_5[word], pixels)),
                arrival.come[word].eq(here | (go & head & ~want_5[word] & (op_5.two if word < 3 else 1))),
                read_addr[word].eq(addr_5[word]),
            ]
        m.d.sync += [
            arrival.head.eq(go & head),
            arrival.two.eq(op_5.two),
            arrival.byte.eq(op_5.byte),
            arrival.taps.eq(op_5.taps),
            arrival.taps.compute.eq(go & advance & op_5.taps.compute),
        ]
        for bank in range(pixels):
            chosen = [read_bank[word][bank] for word in range(WORDS)]
            m.d.sync += bank_en[bank].eq(Cat(chosen).any())
            terms = [Mux(chosen[word], read_addr[word], 0) for word in range(WORDS)]
            m.d.sync += bank_addr[bank].eq(terms[0] | terms[1] | terms[2] | terms[3] | terms[4] | terms[5])
            m.d.comb += [self.read.addr[bank].eq(bank_addr[bank]), self.read.addr_high[bank].eq(bank_addr[bank])]
        return m
