"""Where output words go: results wait here for the scratchpad's write port and get their addresses."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from ..interfaces import word_write_layout
from ..isa import ADDR_BITS, Mode
from .plan import INSTRUCTION
from .pointer import add_pointers, wrap_address


class Placement(wiring.Component):
    """A queue of ``depth`` words and the walk over their places.

    ``word`` enters with ``word_valid``, without backpressure; each ``claim`` promises one word and may only come with ``credit``.
    ``begin`` starts an instruction, whose fields hold until ``finished``, the cycle in which its last word is accepted; that waits
    for ``may_finish``. A word past its scratchpad is not offered: ``range_fault`` instead, for good.
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
                "credit": Out(1),
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
        m.submodules.queue = queue = SyncFIFOBuffered(width=8 * config.lanes, depth=self._depth)
        free = Signal(range(self._depth + 1), init=self._depth)
        m.d.sync += free.eq(free + queue.r_en - self.claim)
        m.d.comb += [self.credit.eq(free != 0), queue.w_data.eq(self.word), queue.w_en.eq(self.word_valid)]

        vector = i.mode == Mode.MATRIX_VECTOR
        bank, addr, row_bank, row_addr = Signal(4), Signal(ADDR_BITS), Signal(4), Signal(ADDR_BITS)
        x, row, group = Signal(12), Signal(10), Signal(10)
        x_end, row_end, group_end = vector | (x == i.out_width), vector | (row == i.rows), group == i.groups
        running = Signal()

        # The next row's pointer takes two cycles, beside the words.
        sum_bank, sum_addr = Signal(4), Signal(ADDR_BITS)
        next_bank, next_addr = Signal(4), Signal(ADDR_BITS)
        fresh, summed, ready = Signal(), Signal(), Signal()
        total = add_pointers((row_bank, row_addr), (i.out_row_bank, i.out_row_addr), pixel=i.out_pixel, pixels=config.pixels)
        m.d.sync += [sum_bank.eq(total[0]), sum_addr.eq(total[1])]
        m.d.sync += [next_bank.eq(sum_bank), next_addr.eq(wrap_address(sum_addr, limit=i.out_limit, span=i.out_span))]
        m.d.sync += [fresh.eq(0), summed.eq(fresh), ready.eq((ready | summed) & ~fresh)]

        over = Mux(
            i.out_space,
            addr[exact_log2(config.window_depth) :].any(),
            addr[exact_log2(config.array_depth) :].any(),
        )
        last = x_end & row_end & group_end
        offer = running & queue.r_rdy & (~x_end | (ready & ~fresh & ~summed)) & (~last | self.may_finish)
        accept = self.write.valid & self.write.ready
        m.d.comb += [
            self.range_fault.eq(running & queue.r_rdy & over),
            self.write.valid.eq(offer & ~over),
            self.write.payload.space.eq(i.out_space),
            self.write.payload.bank.eq(bank),
            self.write.payload.addr.eq(addr),
            self.write.payload.data.eq(queue.r_data),
            queue.r_en.eq(accept),
            self.finished.eq(accept & last),
        ]
        pixel_bank, pixel_addr = (1, 0) if config.pixels > 1 else (0, i.out_pixel)
        across = add_pointers((bank, addr), (pixel_bank, pixel_addr), pixel=i.out_pixel, pixels=config.pixels)
        with m.If(accept):
            m.d.sync += [x.eq(x + 1), bank.eq(across[0]), addr.eq(across[1])]
            with m.If(x_end):
                m.d.sync += [fresh.eq(1), x.eq(0), row.eq(row + 1)]
                m.d.sync += [row_bank.eq(next_bank), row_addr.eq(next_addr), bank.eq(next_bank), addr.eq(next_addr + group)]
                with m.If(row_end):
                    m.d.sync += [row.eq(0), group.eq(group + 1)]
                    m.d.sync += [row_bank.eq(i.out_bank), row_addr.eq(i.out_addr), bank.eq(i.out_bank), addr.eq(i.out_addr + group + 1)]
        with m.If(self.begin):
            m.d.sync += [
                fresh.eq(1),
                x.eq(0),
                row.eq(0),
                group.eq(0),
                row_bank.eq(i.out_bank),
                row_addr.eq(i.out_addr),
                bank.eq(i.out_bank),
                addr.eq(i.out_addr),
                running.eq(1),
            ]
        with m.Elif(self.finished):
            m.d.sync += running.eq(0)
        return m
