"""The address generator of LOAD and STORE: one instruction in, its memory beats out, each with the on-chip word it belongs to."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, exact_log2

from tercel.hw.config import Config
from tercel.hw.interfaces import BANK_BITS, beat_addr_bits
from tercel.hw.isa import ADDR_BITS, LAYOUTS, Fault, Opcode, Space
from tercel.hw.load_add import LoadAdd
from tercel.hw.load_increment import LoadIncrement
from tercel.hw.memory.space import RECORD_TAPS, depth, word_beats, word_bytes
from tercel.hw.mux_add import MuxAdd
from tercel.hw.table import table

MOVE_LAYOUT = LAYOUTS[Opcode.LOAD]
"""The fields of LOAD and of STORE, which are the same."""


def beat_layout(config: Config) -> data.StructLayout:
    """One beat: its memory address ``adr`` in beats, and the on-chip word it belongs to.

    ``first`` and ``last`` mark the beats of a word, ``end`` the beats of an instruction's last word. ``bank`` is the tap for records
    and means nothing for other linear spaces. ``fault`` (only with ``first``) is ``MEMORY_RANGE`` or ``SCRATCHPAD_RANGE``
    if the word must not be moved.
    """
    return data.StructLayout(
        {
            "adr": unsigned(beat_addr_bits(config)),
            "first": unsigned(1),
            "last": unsigned(1),
            "end": unsigned(1),
            "fault": unsigned(4),
            "space": unsigned(3),
            "bank": unsigned(BANK_BITS),
            "addr": unsigned(16),
        }
    )


class Walk(Component):
    """Walks rows, pixels and groups of a LOAD or STORE and checks every word before its first beat is offered.

    The first beat is offered 3 cycles after the start was taken, then one a cycle; there are 2 idle cycles between two instructions.
    A scratchpad row but the last takes at least 4 cycles, in which the next row's pointer is made. The walk goes on behind a word with
    a fault: its consumer must stop.

    Parameters
    ----------
    config
        Word sizes and depths.
    spaces
        The spaces that instructions may name.

    Members
    -------
    start : In(stream.Signature(MOVE_LAYOUT))
        An instruction that passed the static checks.
    region_base, region_end : In(32)
        Byte addresses: memory words lie at or above ``region_base`` and end at or below ``region_end``. Constant during a walk.
    o : Out(stream.Signature(beat_layout(config)))
        The beats in the order of the walk.
    """

    def __init__(self, config: Config, *, spaces: Sequence[Space]) -> None:
        self._config = config
        self._spaces = tuple(spaces)
        super().__init__(
            {
                "start": In(stream.Signature(MOVE_LAYOUT)),
                "region_base": In(32),
                "region_end": In(32),
                "o": Out(stream.Signature(beat_layout(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        """Address registers (row successor, pixel, word, beat), then one register stage with the checks."""
        m = Module()
        config = self._config
        fields = Signal(MOVE_LAYOUT, reset_less=True)
        linear = Signal(reset_less=True)
        record = Signal(reset_less=True)

        free = Signal(init=1)
        setup = Signal()
        running = Signal()
        offered = Signal()
        move = Signal()
        row_end, end, finish = (Signal(name=name) for name in ("row_end", "end", "finish"))
        m.d.comb += [
            self.start.ready.eq(free),
            move.eq(offered & (~self.o.valid | self.o.ready)),
        ]
        # A register of its own: every bit of the instruction depends on it.
        m.d.sync += [setup.eq(free & self.start.valid), free.eq(Mux(free, ~self.start.valid, finish))]
        with m.If(setup):
            m.d.sync += running.eq(1)
        with m.If(free):
            space = self.start.p.space
            m.d.sync += [
                fields.eq(self.start.payload),
                linear.eq(self._is_linear(space)),
                record.eq((space == Space.RECORD) if Space.RECORD in self._spaces else 0),
            ]

        word_beats_most = max(word_beats(config, space=space) for space in self._spaces)
        beats = Signal(max(2, bits_for(word_beats_most - 1)))
        last_beat, last_group, last_pixel, last_row = (
            Signal(name=name, init=1) for name in ("last_beat", "last_group", "last_pixel", "last_row")
        )
        # A row may end: the next one's pointer is ready, or is not needed. A register, as everything waits for it.
        row_open = Signal(reset_less=True)
        take_row = Signal()
        next_row_made = Signal()
        more = Signal()
        m.d.comb += [
            row_end.eq(last_beat & last_group & last_pixel),
            end.eq(last_group & last_pixel & last_row),
            more.eq(~(last_beat & end)),
            finish.eq(move & ~more),
            take_row.eq(setup | (move & row_end)),
            offered.eq(running & (row_open | ~row_end)),
        ]
        with m.If(finish):
            m.d.sync += running.eq(0)
        with m.Switch(fields.space):
            for space in self._spaces:
                with m.Case(space):
                    m.d.comb += beats.eq(word_beats(config, space=space) - 1)
        if word_beats_most > 1:
            self._countdown(m, "beat", beats, last=last_beat, setup=setup, step=move & more)
        else:
            m.d.comb += last_beat.eq(1)
        # ``move`` comes late, behind all the rest.
        for name, count, last, steps in (
            ("group", fields.groups, last_group, last_beat),
            ("pixel", fields.pixels, last_pixel, last_beat & last_group),
        ):
            self._countdown(m, name, count, last=last, setup=setup, step=move & (steps & more))
        then_last_row = self._countdown(m, "row", fields.rows, last=last_row, setup=setup, step=move & (row_end & more))
        with m.If(next_row_made):
            m.d.sync += row_open.eq(1)
        with m.If(take_row):
            m.d.sync += row_open.eq(linear | then_last_row)

        adr = self._memory_address(m, take_row=take_row, memory_row=fields.memory_row, setup=setup, move=move, row_end=row_end)
        bank, addr = self._word_pointer(
            m, fields, platform, linear=linear, record=record, setup=setup, take_row=take_row, move_word=move & last_beat,
            last_group=last_group, row_end=row_end, next_row_made=next_row_made,
        )  # fmt: skip

        first = Signal()
        with m.If(setup | move):
            m.d.sync += first.eq(setup | last_beat)
        below, above, past = self._checks(m, fields.space, adr=adr, addr=addr, linear=linear, setup=setup)
        bad = Signal(3, reset_less=True)
        item = Signal(self.o.payload.shape(), reset_less=True)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [
                self.o.valid.eq(offered),
                item.adr.eq(adr),
                item.first.eq(first),
                item.last.eq(last_beat),
                item.end.eq(end),
                item.space.eq(fields.space),
                item.bank.eq(bank),
                item.addr.eq(addr),
                bad.eq(Cat(below & first, above & first, past & first)),
            ]
        m.d.comb += self.o.payload.eq(item)
        m.d.comb += self.o.p.fault.eq(Mux(bad[:2].any(), Fault.MEMORY_RANGE, Mux(bad[2], Fault.SCRATCHPAD_RANGE, Fault.NONE)))
        return m

    def _is_linear(self, space) -> Value:
        return space >= Space.WEIGHT if max(self._spaces) >= Space.WEIGHT else Const(0)

    @staticmethod
    def _countdown(m: Module, name: str, count, *, last, setup, step) -> Signal:
        """A counter of the steps that remain; ``last``, a register, while there are none, and then the next step starts it again.

        It is 0 whenever it is loaded, so that loading is an addition and takes no multiplexer. Returns what ``last`` becomes with
        ``setup`` or ``step``.
        """
        left = Signal(len(count), name=f"{name}_left")
        m.submodules[f"{name}_counter"] = adder = MuxAdd(len(count))
        then_last = Signal(name=f"then_last_{name}")
        m.d.comb += [adder.a.eq(left), adder.c.eq(~0), adder.d.eq(count), adder.sel.eq(last), then_last.eq(adder.o == 0)]
        with m.If(setup | step):
            m.d.sync += [left.eq(adder.o), last.eq(then_last)]
        return then_last

    def _memory_address(self, m: Module, *, take_row, memory_row, setup, move, row_end) -> Signal:
        """The address of a beat. The next row's address is kept ready; between instructions it follows the one that is offered."""
        low = exact_log2(self._config.memory_width)
        adr = Signal(beat_addr_bits(self._config), reset_less=True)
        next_row = Signal(len(adr), reset_less=True)
        m.submodules.next_row_adder = adder = LoadAdd(len(adr))
        m.d.comb += [
            adder.a.eq(next_row),
            adder.b.eq(memory_row[low:]),
            adder.value.eq(self.start.p.memory_addr[low:]),
            adder.load.eq(self.start.ready),
        ]
        with m.If(take_row | self.start.ready):
            m.d.sync += next_row.eq(adder.o)
        m.submodules.adr_increment = increment = LoadIncrement(len(adr))
        # ``move`` comes late: it decides only whether the address changes.
        m.d.comb += [increment.a.eq(adr), increment.value.eq(next_row), increment.load.eq(setup | row_end)]
        with m.If(setup | move):
            m.d.sync += adr.eq(increment.o)
        return adr

    def _word_pointer(self, m, fields, platform, *, linear, record, setup, take_row, move_word, last_group, row_end, next_row_made):
        """Bank (tap) and address of a word. The next row's pointer is made in three steps while a row is walked."""
        pixels = self._config.pixels
        row_bank = Signal(BANK_BITS, reset_less=True)
        row_addr = Signal(16, reset_less=True)
        bank_sum = Signal(BANK_BITS + 1, reset_less=True)
        step = Signal(2)
        m.submodules.row_adder = row_adder = MuxAdd(ADDR_BITS)
        carry = Signal()
        m.d.comb += [
            carry.eq(table(bank_sum, lambda value: value >= pixels)),
            next_row_made.eq(step == 2),
            row_adder.a.eq(row_addr),
            row_adder.c.eq(fields.spad_row_addr),
            row_adder.d.eq(fields.spad_pixel),
            row_adder.sel.eq(step == 1),
        ]
        with m.Switch(step):
            with m.Case(0):
                m.d.sync += [bank_sum.eq(row_bank + fields.spad_row_bank), row_addr.eq(row_adder.o), step.eq(1)]
            with m.Case(1):
                m.d.sync += [row_bank.eq(table(bank_sum, lambda value: value % pixels, width=BANK_BITS)), step.eq(2)]
                with m.If(carry):
                    m.d.sync += row_addr.eq(row_adder.o)
            with m.Case(2):
                with m.If((fields.spad_limit != 0) & (row_addr[:ADDR_BITS] >= fields.spad_limit)):
                    m.d.sync += row_addr.eq(row_addr[:ADDR_BITS] - fields.spad_span)
                m.d.sync += step.eq(3)
        with m.If(take_row):
            m.d.sync += step.eq(0)
        with m.If(self.start.ready):
            start = self.start.payload
            m.d.sync += [
                row_bank.eq(Mux(start.space == Space.RECORD, 0, start.spad_bank) if Space.RECORD in self._spaces else start.spad_bank),
                row_addr.eq(Mux(self._is_linear(start.space), start.addr_linear, start.spad_addr)),
                step.eq(3),
            ]

        bank = Signal(BANK_BITS, reset_less=True)
        addr = Signal(16, reset_less=True)
        pixel_addr = Signal(ADDR_BITS, reset_less=True)
        wrap = Signal()
        within = Signal()
        step_bank = Signal()
        m.submodules.word_adder = word_adder = MuxAdd(16)
        next_addr = word_adder.o
        m.d.comb += [
            wrap.eq(bank == Mux(record, RECORD_TAPS - 1, pixels - 1)),
            within.eq(linear | ~last_group),
            step_bank.eq(record | ~within),
            word_adder.a.eq(Mux(within, addr, pixel_addr)),
            word_adder.c.eq(Mux(record, wrap, within)),
            word_adder.d.eq(fields.spad_pixel),
            word_adder.sel.eq(wrap & ~within),
        ]
        with m.If(setup | move_word):
            with m.If(setup | (row_end & ~linear)):
                m.d.sync += [bank.eq(row_bank), addr.eq(row_addr), pixel_addr.eq(row_addr)]
            with m.Else():
                m.d.sync += addr.eq(next_addr)
                with m.If(step_bank):
                    m.d.sync += bank.eq(Mux(wrap, 0, table(bank, lambda value: value + 1, width=BANK_BITS)))
                with m.If(~within):
                    m.d.sync += pixel_addr.eq(next_addr)
        return bank, addr

    def _checks(self, m: Module, space, *, adr, addr, linear, setup):
        """Whether the word at ``adr``, ``addr`` lies below its region, above it, or past the depth of its scratchpad."""
        config = self._config
        low = exact_log2(config.memory_width)
        sizes = {each: word_bytes(config, space=each) for each in self._spaces}
        below = Cat(0, adr) < Cat(self.region_base[:low].any(), self.region_base[low:])
        if max(sizes.values()) == config.memory_width:
            above = adr >= self.region_end[low:]
        else:
            size = Signal(range(max(sizes.values()) + 1))
            with m.Switch(space):
                for each, number in sizes.items():
                    with m.Case(each):
                        m.d.comb += size.eq(number)
            # The highest address at which a word still ends inside, and a borrow if there is none.
            highest = Signal(33, reset_less=True)
            with m.If(setup):
                m.d.sync += highest.eq(self.region_end - size)
            above = (adr > highest[low:32]) | highest[32]
        past = Signal()
        with m.Switch(space):
            for each in (Space.ARRAY, Space.WINDOW):
                words = depth(config, space=each)
                if each in self._spaces:
                    with m.Case(each):
                        m.d.comb += past.eq(addr[exact_log2(words) : ADDR_BITS].any())
        return below, above, past
