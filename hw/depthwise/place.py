"""Where output words go: results wait here for the scratchpad's write port and get their addresses."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from tercel.hw.config import Config
from tercel.hw.depthwise.countdown import Countdown
from tercel.hw.depthwise.plan import INSTRUCTION
from tercel.hw.depthwise.pointer import POINTER, PointerAdd, wrap_address
from tercel.hw.interfaces import BANK_BITS, one_bank, word_write_layout, wrap_limit
from tercel.hw.isa import ADDR_BITS, Mode
from tercel.hw.memory.queue import Queue, Relay
from tercel.hw.memory.space import RECORD_TAPS
from tercel.hw.mux_add import MuxAdd


class Placement(wiring.Component):
    """A queue of ``depth`` words and the walk over their places.

    ``word`` enters with ``word_valid``, without backpressure; each ``claim`` promises one word and may only come the cycle after
    ``credit``.
    ``begin`` starts an instruction, whose fields hold from the cycle before until ``finished``, the cycle after the one in which its last
    word is accepted, which is ``finishing``. ``write_next_bank`` is the ``next_bank`` of ``write``, see
    :class:`~tercel.hw.memory.scratchpad.Scratchpad`.
    A word past its scratchpad is not offered, nor any after it: ``range_fault`` instead, for good. ``write.ready`` reaches nothing but the
    relay's registers and ``finishing``.
    """

    def __init__(self, config: Config, *, depth: int) -> None:
        self._config = config
        self._depth = depth
        super().__init__(
            {
                "instruction": In(INSTRUCTION),
                "begin": In(1),
                "finishing": Out(1),
                "finished": Out(1),
                "credit": Out(1, init=1),
                "claim": In(1),
                "word": In(8 * config.lanes),
                "word_valid": In(1),
                "range_fault": Out(1),
                "write": Out(stream.Signature(word_write_layout(config))),
                "write_next_bank": Out(BANK_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        """Queue, credits and the walk over the output."""
        m = Module()
        config, i = self._config, self.instruction
        m.submodules.queue = queue = Queue(8 * config.lanes, depth=self._depth)
        # The words that come and go are counted a cycle late, the credit is a register, and so is what it allows: three words of room are
        # kept back for that.
        free = Signal(range(self._depth + 1), init=self._depth)
        accept, left, claimed = Signal(), Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [left.eq(accept), claimed.eq(self.claim), free.eq(free + left - claimed), self.credit.eq(free > 3)]
        m.d.comb += [queue.i.payload.eq(self.word), queue.i.valid.eq(self.word_valid)]

        vector = i.mode == Mode.MATRIX_VECTOR
        place, row_place, start = Signal(POINTER, reset_less=True), Signal(POINTER, reset_less=True), Signal(POINTER)
        m.d.comb += [start.bank.eq(i.out_bank), start.addr.eq(i.out_addr)]
        m.submodules.x = xs = Countdown(12)
        m.submodules.row = rows = Countdown(10)
        # The instruction is there a cycle before ``begin``.
        x_last, row_last = Signal(12, reset_less=True), Signal(10, reset_less=True)
        m.d.sync += [x_last.eq(Mux(vector, 0, i.out_width)), row_last.eq(Mux(vector, 0, i.rows))]
        m.submodules.group = groups = Countdown(10)
        m.d.comb += [
            xs.last.eq(x_last),
            rows.last.eq(row_last),
            groups.last.eq(i.groups),
            *(loop.start.eq(self.begin) for loop in (xs, rows, groups)),
        ]
        group = Signal(10, reset_less=True)
        running = Signal()

        # The next row's pointer takes two cycles, beside the words.
        summed_place, next_place = Signal(POINTER, reset_less=True), Signal(POINTER, reset_less=True)
        fresh, summed, ready = (Signal(name=name, reset_less=True) for name in ("fresh", "summed", "ready"))
        pointed = ready | summed
        # Known a cycle ahead: the next word's place is there.
        placed = Signal()
        m.d.sync += placed.eq(
            Mux(self.begin | accept, ~xs.then_end | (pointed & ~xs.end & ~self.begin), running & ~self.finished & (~xs.end | pointed))
        )
        row_far, limit = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS + 1, reset_less=True)
        m.submodules.down = down = PointerAdd(config)
        m.d.comb += [down.a.eq(row_place), down.b.bank.eq(i.out_row_bank), down.b.near.eq(i.out_row_addr), down.b.far.eq(row_far)]
        m.d.sync += [
            row_far.eq(i.out_row_addr + i.out_pixel),
            limit.eq(wrap_limit(i.out_limit)),
            summed_place.eq(down.o),
            next_place.bank.eq(summed_place.bank),
            next_place.addr.eq(wrap_address(summed_place.addr, limit=limit, span=i.out_span)),
        ]
        m.d.sync += [fresh.eq(0), summed.eq(fresh)]
        with m.If(summed):
            m.d.sync += ready.eq(1)

        over = Mux(
            i.out_space,
            place.addr[exact_log2(config.window_depth) :].any(),
            place.addr[exact_log2(config.array_depth) :].any(),
        )
        word_layout = word_write_layout(config)
        word_fields = ("bank", "banks", "addr", "data")
        layout = data.StructLayout({**{name: word_layout[name].shape for name in word_fields}, "last": 1, "over": 1})
        m.submodules.relay = relay = Relay(layout, spare=config.depthwise_taps == RECORD_TAPS, flags=word_layout["spaces"].width)
        m.d.comb += [
            relay.i_flags.eq(Mux(over, 0, Cat(~i.out_space, i.out_space))),
            relay.i.p.bank.eq(place.bank),
            relay.i.p.banks.eq(one_bank(config, place.bank)),
            relay.i.p.addr.eq(place.addr),
            relay.i.p.data.eq(queue.o.payload),
            relay.i.p.last.eq(xs.end & rows.end & groups.end),
            relay.i.p.over.eq(over),
            relay.i.valid.eq(placed & queue.o.valid),
            accept.eq(relay.i.valid & relay.i.ready),
            queue.o.ready.eq(accept),
            xs.step.eq(accept),
            rows.step.eq(accept & xs.end),
            groups.step.eq(accept & xs.end & rows.end),
            self.write.valid.eq(relay.o_flags.any()),
            self.write.p.spaces.eq(relay.o_flags),
            *(self.write.p[name].eq(relay.o.p[name]) for name in word_fields),
            relay.o.ready.eq(self.write.valid & self.write.ready),
            self.write_next_bank.eq(relay.following.bank),
        ]
        m.d.comb += self.finishing.eq(relay.o.valid & relay.moves & relay.o.p.last)
        m.d.sync += [self.finished.eq(self.finishing), self.range_fault.eq(relay.o.valid & relay.o.p.over)]
        m.submodules.line = line = MuxAdd(ADDR_BITS)
        m.d.comb += [
            line.a.eq(Mux(rows.end, group + 1, group)),
            line.c.eq(next_place.addr),
            line.d.eq(start.addr),
            line.sel.eq(rows.end),
        ]
        with m.If(accept):
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
