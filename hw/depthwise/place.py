"""Where output words go: results wait here for the scratchpad's write port and get their addresses."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.depthwise.countdown import Countdown
from tercel.hw.depthwise.plan import INSTRUCTION
from tercel.hw.depthwise.pointer import POINTER, PointerAdd, wrap_address
from tercel.hw.interfaces import word_write_layout
from tercel.hw.isa import ADDR_BITS, Mode
from tercel.hw.memory.queue import Queue
from tercel.hw.mux_add import MuxAdd


class Placement(wiring.Component):
    """A queue of ``depth`` words and the walk over their places.

    ``word`` enters with ``word_valid``, without backpressure; each ``claim`` promises one word and may only come with ``credit``.
    ``begin`` starts an instruction, whose fields hold until ``finished``, the cycle in which its last word is accepted; that waits
    for a cycle after one with ``may_finish``. A word past its scratchpad is not offered: ``range_fault`` instead, for good.
    """

    def __init__(self, config: Config, *, depth: int) -> None:
        self._config = config
        self._depth = depth
        super().__init__(
            {
                "instruction": In(INSTRUCTION),
                "begin": In(1),
                "may_finish": In(1),
                "finished": Out(1),
                "credit": Out(1, init=1),
                "claim": In(1),
                "word": In(8 * config.lanes),
                "word_valid": In(1),
                "range_fault": Out(1),
                "write": Out(stream.Signature(word_write_layout(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        """Queue, credits and the walk over the output."""
        m = Module()
        config, i = self._config, self.instruction
        m.submodules.queue = queue = Queue(8 * config.lanes, depth=self._depth)
        # The credit is a register, a cycle old: one word of room is kept back for it.
        free = Signal(range(self._depth + 1), init=self._depth)
        m.d.sync += [free.eq(free + queue.o.ready - self.claim), self.credit.eq(free > 1)]
        m.d.comb += [queue.i.payload.eq(self.word), queue.i.valid.eq(self.word_valid)]

        vector = i.mode == Mode.MATRIX_VECTOR
        place, row_place, start = Signal(POINTER, reset_less=True), Signal(POINTER, reset_less=True), Signal(POINTER)
        m.d.comb += [start.bank.eq(i.out_bank), start.addr.eq(i.out_addr)]
        m.submodules.x = xs = Countdown(12)
        m.submodules.row = rows = Countdown(10)
        m.submodules.group = groups = Countdown(10)
        m.d.comb += [
            xs.last.eq(Mux(vector, 0, i.out_width)),
            rows.last.eq(Mux(vector, 0, i.rows)),
            groups.last.eq(i.groups),
            *(loop.start.eq(self.begin) for loop in (xs, rows, groups)),
        ]
        group = Signal(10, reset_less=True)
        running = Signal()

        # The next row's pointer takes two cycles, beside the words.
        summed_place, next_place = Signal(POINTER, reset_less=True), Signal(POINTER, reset_less=True)
        fresh, summed, ready = Signal(), Signal(), Signal()
        m.submodules.down = down = PointerAdd(config)
        m.d.comb += [down.a.eq(row_place), down.b.bank.eq(i.out_row_bank), down.b.addr.eq(i.out_row_addr), down.pixel.eq(i.out_pixel)]
        m.d.sync += [
            summed_place.eq(down.o),
            next_place.bank.eq(summed_place.bank),
            next_place.addr.eq(wrap_address(summed_place.addr, limit=i.out_limit, span=i.out_span)),
        ]
        m.d.sync += [fresh.eq(0), summed.eq(fresh)]
        with m.If(summed):
            m.d.sync += ready.eq(1)

        over = Mux(
            i.out_space,
            place.addr[exact_log2(config.window_depth) :].any(),
            place.addr[exact_log2(config.array_depth) :].any(),
        )
        last = xs.end & rows.end & groups.end
        # The word on offer.
        offered, offered_over, offered_last = Signal(), Signal(), Signal()
        word = Signal(self.write.payload.shape(), reset_less=True)
        m.d.comb += self.write.payload.eq(word)
        accept = Signal()
        m.d.comb += [
            self.range_fault.eq(offered & offered_over),
            self.finished.eq(self.write.valid & self.write.ready & offered_last),
            accept.eq(running & queue.o.valid & (~xs.end | ready) & (~offered | (self.write.valid & self.write.ready))),
            queue.o.ready.eq(accept),
            xs.step.eq(accept),
            rows.step.eq(accept & xs.end),
            groups.step.eq(accept & xs.end & rows.end),
        ]
        m.submodules.line = line = MuxAdd(ADDR_BITS)
        m.d.comb += [
            line.a.eq(Mux(rows.end, group + 1, group)),
            line.c.eq(next_place.addr),
            line.d.eq(start.addr),
            line.sel.eq(rows.end),
        ]
        # A copy near the write port, where much waits for it.
        m.d.sync += word.space.eq(i.out_space)
        with m.If(offered & ~offered_over & self.may_finish):
            m.d.sync += self.write.valid.eq(1)
        with m.If(self.write.valid & self.write.ready):
            m.d.sync += [offered.eq(0), self.write.valid.eq(0)]
        with m.If(accept):
            m.d.sync += [
                offered.eq(1),
                self.write.valid.eq(~over & (~last | self.may_finish)),
                offered_over.eq(over),
                offered_last.eq(last),
                word.bank.eq(place.bank),
                word.addr.eq(place.addr),
                word.data.eq(queue.o.payload),
            ]
            with m.If(place.bank == config.pixels - 1):
                m.d.sync += [place.bank.eq(0), place.addr.eq(place.addr + i.out_pixel)]
            with m.Else():
                m.d.sync += place.bank.eq(place.bank + 1)
            with m.If(xs.end):
                m.d.sync += [fresh.eq(1), ready.eq(0), row_place.eq(next_place)]
                m.d.sync += [place.bank.eq(next_place.bank), place.addr.eq(line.o)]
                with m.If(rows.end):
                    m.d.sync += [group.eq(group + 1), row_place.eq(start), place.bank.eq(start.bank)]
        with m.If(self.begin):
            m.d.sync += [
                fresh.eq(1),
                ready.eq(0),
                group.eq(0),
                row_place.eq(start),
                place.eq(start),
                running.eq(1),
            ]
        with m.Elif(self.finished):
            m.d.sync += running.eq(0)
        return m
