"""One row's part of the drain: J requantizers and the word their results fill."""

from amaranth.hdl import Module, Mux, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.cell import SUM_BITS
from tercel.hw.array.drain_select import SumSelect, selection_layout
from tercel.hw.array.feed import DRAIN_LAYOUT
from tercel.hw.array.operands import operands_layout
from tercel.hw.array.slots import OUTPUT_BITS
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.isa import ADDR_BITS
from tercel.hw.requantize import ScaledRequantizer, requantizer_latency


def row_latency(config: Config) -> int:
    """Cycles from the operands of a slot to its codes."""
    return requantizer_latency(sum_bits=32, residual=True, thresholds=config.threshold_depth > 0)


class DrainRow(Component):
    """Sums to codes, a slot a cycle.

    Members
    -------
    acc, asum : In(N x signed(32)), In(signed(32))
        ``acc`` with ``select``, ``asum`` with ``operands``.
    select : In(selection_layout)
        A cycle before the operands.
    operands : In(operands_layout)
    r : In(signed(9))
        Residual code of a wide slot's output, with the operands.
    fields : In(DRAIN_LAYOUT)
        The instruction's; holds while slots of it are on the way.
    capture : In(K); write : In(1); addr : In(14); number : In(5)
        ``row_latency`` cycles after the operands: the bytes of the word that the slot's codes are; whether to write it now, as word
        ``number`` of the pixel whose word 0 is at ``addr``.
    write_en, write_addr, write_data : Out
        The write, a cycle later.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "acc": In(data.ArrayLayout(signed(SUM_BITS), config.outputs)),
                "asum": In(signed(SUM_BITS)),
                "select": In(selection_layout(config)),
                "operands": In(operands_layout(config)),
                "r": In(signed(9)),
                "fields": In(DRAIN_LAYOUT),
                "capture": In(config.lanes),
                "write": In(1),
                "addr": In(ADDR_BITS),
                "number": In(OUTPUT_BITS),
                "write_en": Out(1),
                "write_addr": Out(ADDR_BITS),
                "write_data": Out(8 * config.lanes),
            }
        )

    def elaborate(self, platform):
        """Lane 0 is wide, the others wait for it at the end."""
        m = Module()
        config, fields, operands = self.config, self.fields, self.operands
        m.submodules.select = select = SumSelect(config)
        m.d.comb += [select.acc.eq(self.acc), select.select.eq(self.select)]

        thresholds = config.threshold_depth > 0
        m.submodules.wide = wide = ScaledRequantizer(config, sum_bits=32, residual=True, thresholds=thresholds)
        m.d.comb += [
            *_common(wide, acc=select.wide, asum=self.asum, lane=operands.wide, fields=fields),
            wide.narrow.eq(fields.narrow),
            wide.r.eq(self.r),
            wide.factor.eq(operands.factor),
            wide.residual_enable.eq(fields.residual),
            wide.z_res.eq(fields.z_res),
        ]
        if thresholds:
            m.d.comb += [
                wide.threshold.eq(operands.threshold),
                wide.count_first.eq(operands.count_first),
                wide.count_enable.eq(fields.thresholds != 0),
            ]
        codes = [wide.y]
        for lane in range(1, config.drain_lanes):
            m.submodules[f"narrow_{lane}"] = narrow = ScaledRequantizer(config, sum_bits=18, residual=False, thresholds=False)
            m.d.comb += _common(narrow, acc=select.narrow[lane - 1], asum=self.asum, lane=operands.narrow[lane - 1], fields=fields)
            code = delayed(m, narrow.y, wide.latency - narrow.latency, name=f"code_{lane}")
            codes.append(Mux(fields.narrow, code, wide.y))

        m.d.sync += [self.write_en.eq(self.write), self.write_addr.eq(self.addr + self.number)]
        for byte in range(config.lanes):
            with m.If(self.capture[byte]):
                m.d.sync += self.write_data[8 * byte : 8 * byte + 8].eq(codes[byte % config.drain_lanes])
        return m


def _common(requantizer: ScaledRequantizer, *, acc, asum, lane, fields) -> list:
    return [
        requantizer.acc.eq(acc),
        requantizer.asum.eq(asum),
        requantizer.bias.eq(lane.bias),
        requantizer.scale.eq(lane.scale),
        *(getattr(requantizer, name).eq(fields[name]) for name in ("gain", "z_out", "lo", "hi")),
    ]
