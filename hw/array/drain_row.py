"""One row's part of the drain: sums, products and codes of J lanes, and the word the codes fill."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.cell import SUM_BITS
from tercel.hw.array.drain_select import selection_layout
from tercel.hw.array.operands import operands_layout, static_layout, wide_cycle
from tercel.hw.array.row_products import NARROW_LATENCY, WIDE_BITS, RowProducts, narrow_product_bits
from tercel.hw.array.row_sums import LATENCY as SUMS_LATENCY
from tercel.hw.array.row_sums import RowSums
from tercel.hw.array.slots import OUTPUT_BITS
from tercel.hw.config import NARROW_BITS, Config
from tercel.hw.delay import delayed
from tercel.hw.isa import ADDR_BITS
from tercel.hw.rescale import Rescale, rescale_latency


def row_latency(config: Config) -> int:
    """Cycles from the selection of a slot's sums to its codes."""
    return wide_cycle(config) + rescale_latency(sum_bits=32)


class DrainRow(Component):
    """Sums to codes, a slot a cycle.

    Members
    -------
    acc : In(N x signed(32)); select : In(selection_layout)
        The sums, and what the slot wants of them.
    asum : In(signed(32)); r : In(8)
        A cycle later: the sum of activations, and the residual code of a wide slot's output.
    operands : In(operands_layout)
        In the cycles given there.
    static : In(static_layout)
        Holds while slots of its instruction are on the way.
    capture : In(K); addr : In(14); number : In(5)
        ``row_latency`` cycles after ``acc``: the bytes of the word that the slot's codes are; it is word ``number`` of the pixel whose
        word 0 is at ``addr``.
    write_addr, write_data : Out
        Where that word goes and what has been captured of it, a cycle later.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "acc": In(data.ArrayLayout(signed(SUM_BITS), config.outputs)),
                "asum": In(signed(SUM_BITS)),
                "select": In(selection_layout(config)),
                "operands": In(operands_layout(config)),
                "r": In(8),
                "static": In(static_layout()),
                "capture": In(config.lanes),
                "addr": In(ADDR_BITS),
                "number": In(OUTPUT_BITS),
                "write_addr": Out(ADDR_BITS),
                "write_data": Out(8 * config.lanes),
            }
        )

    def elaborate(self, platform):
        """Lane 0 also does the wide slots; the others wait for it at the end."""
        m = Module()
        config, static, operands = self.config, self.static, self.operands
        m.submodules.sums = sums = RowSums(config)
        m.submodules.products = products = RowProducts(config)
        difference = Signal(signed(9), reset_less=True)
        m.d.sync += difference.eq(self.r - static.z_res)
        m.d.comb += [
            sums.acc.eq(self.acc),
            sums.select.eq(self.select),
            sums.bias.eq(operands.bias),
            sums.asum.eq(self.asum),
            sums.odd.eq(operands.odd),
            sums.odd_wide.eq(operands.odd_wide),
            sums.gain.eq(static.gain),
            sums.narrow.eq(static.narrow),
            sums.difference.eq(difference),
            products.wide.eq(sums.wide),
            products.narrow_sums.eq(sums.narrow_sums),
            products.difference.eq(difference),
            products.factors.eq(operands.factors),
            products.amount.eq(operands.amount),
            products.coarse.eq(operands.coarse),
            products.narrow.eq(static.narrow),
            products.residual.eq(static.residual),
        ]

        m.submodules.wide = wide = Rescale(
            product_bits=WIDE_BITS,
            sum_bits=32,
            multiplier_bits=config.multiplier_bits,
            thresholds=config.threshold_depth > 0,
        )
        m.d.comb += [wide.product.eq(products.product), wide.shift.eq(operands.shift), wide.clamp.eq(static.clamp)]
        if config.threshold_depth:
            m.d.comb += [
                wide.limit.eq(operands.limit),
                wide.never.eq(operands.never),
                wide.more.eq(operands.more),
                wide.counting.eq(static.counting),
            ]
        codes = [wide.y]
        for lane in range(1, config.drain_lanes):
            m.submodules[f"narrow_{lane}"] = narrow = Rescale(
                product_bits=narrow_product_bits(config), sum_bits=NARROW_BITS, multiplier_bits=config.multiplier_bits
            )
            m.d.comb += [
                narrow.product.eq(products.narrow_products[lane]),
                narrow.shift.eq(operands.narrow_shifts[lane - 1]),
                narrow.clamp.eq(static.clamp),
            ]
            early = row_latency(config) - SUMS_LATENCY - NARROW_LATENCY - rescale_latency(sum_bits=NARROW_BITS)
            codes.append(Mux(static.narrow, delayed(m, narrow.y, early, name=f"code_{lane}"), wide.y))

        addr = self.addr + self.number if config.words_per_tile > 1 else self.addr
        word = Signal(8 * config.lanes, reset_less=True)
        m.d.comb += [self.write_addr.eq(delayed(m, addr[:ADDR_BITS], 1, name="addr")), self.write_data.eq(word)]
        for byte in range(config.lanes):
            with m.If(self.capture[byte]):
                m.d.sync += word[8 * byte : 8 * byte + 8].eq(codes[byte % config.drain_lanes])
        return m
