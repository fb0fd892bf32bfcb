"""Numbers that stay the same during an instruction, derived once from its fields."""

from amaranth.hdl import Array, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tercel.hw.config import Config, unit_exponent
from tercel.hw.depthwise.pointer import DELTA, POINTER, PointerAdd
from tercel.hw.isa import ADDR_BITS, LAYOUTS, Mode, Opcode

INSTRUCTION = LAYOUTS[Opcode.DEPTHWISE]

PLAN_LAYOUT = data.StructLayout(
    {
        "slide": 1,
        "pairs": 1,
        "pairs_later": 1,
        "maximum": 1,
        "vector": 1,
        "average": 1,
        "step": DELTA,
        "step_two": POINTER,
        "step_x": DELTA,
        "inner_last": 4,
        "block_last": 3,
        "rows_last": 3,
        "columns_last": 3,
        "x_last": 12,
        "row_last": 10,
        "multiplier": 16,
        "shift": 6,
        "z_out": signed(9),
        "pad": signed(9),
    }
)
"""``slide``: windows of neighbouring outputs overlap and are reused. ``pairs``: the first operation of a row or window has two columns;
``pairs_later``: so have a slide's later ones. ``step``, ``step_two``: delta of one column and, its ``far`` left out, of two;
``step_x``: of one output. ``inner_last``: column blocks (maximum: columns; vector: halves) less 1. ``block_last``: row blocks less 1.
``rows_last``, ``columns_last``: kernel rows and columns of the last blocks. ``x_last``, ``row_last``: loop ends.
``multiplier``, ``shift``, ``z_out``: as the requantizers take them. ``pad``: code of a tap outside the image."""


class Plan(wiring.Component):
    """Derives :data:`PLAN_LAYOUT` from an instruction; ``plan`` follows ``instruction`` by one cycle."""

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__({"instruction": In(INSTRUCTION), "plan": Out(PLAN_LAYOUT)})

    def elaborate(self, platform) -> Module:
        """All derivations side by side, registered."""
        m = Module()
        pixels = self._config.pixels
        i, plan = self.instruction, Signal(PLAN_LAYOUT, reset_less=True)
        m.d.comb += self.plan.eq(plan)
        unit = unit_exponent(self._config.multiplier_bits)
        maximum = i.mode == Mode.MAX
        vector = i.mode == Mode.MATRIX_VECTOR
        thirds = Array(Const(k // 3, 3) for k in range(16))
        masks = Array(Const((1, 3, 7)[k % 3], 3) for k in range(16))
        small = (i.kernel_width < 3) & (i.kernel_height < 3) & (i.stride < 2) & (i.dilation_x == 1)
        neighbour = ((i.in_kx_bank == 1) & (i.in_kx_addr == 0)) if pixels > 1 else (i.in_kx_addr == i.in_pixel)
        step_far = (i.in_kx_addr + i.in_pixel)[:ADDR_BITS]
        m.submodules.double = double = PointerAdd(self._config)
        m.d.comb += [
            double.a.bank.eq(i.in_kx_bank),
            double.a.addr.eq(i.in_kx_addr),
            double.b.bank.eq(i.in_kx_bank),
            double.b.near.eq(i.in_kx_addr),
            double.b.far.eq(step_far),
        ]
        stride_bank = Array(Const((s + 1) % pixels, 4) for s in range(4))
        stride_words = Array((i.in_pixel * ((s + 1) // pixels))[:ADDR_BITS] for s in range(4))

        # A vector's places are all in bank 0: ``far`` is never theirs.
        m.d.sync += [
            plan.slide.eq(small & neighbour & ~maximum & ~vector),
            plan.pairs.eq(~maximum & ~vector),
            plan.pairs_later.eq(small & neighbour & i.stride[0] & ~maximum & ~vector),
            plan.maximum.eq(maximum),
            plan.vector.eq(vector),
            plan.average.eq(i.mode == Mode.AVERAGE),
            plan.step.bank.eq(Mux(vector, 0, i.in_kx_bank)),
            plan.step.near.eq(Mux(vector, 0, i.in_kx_addr)),
            plan.step.far.eq(step_far),
            plan.step_two.eq(double.o),
            plan.step_x.bank.eq(Mux(vector, 0, stride_bank[i.stride])),
            plan.step_x.near.eq(Mux(vector, 1, stride_words[i.stride])),
            plan.step_x.far.eq(stride_words[i.stride] + i.in_pixel),
            plan.inner_last.eq(Mux(vector, max(1, self._config.lanes // 8) - 1, Mux(maximum, i.kernel_width, thirds[i.kernel_width]))),
            plan.block_last.eq(Mux(vector, 0, thirds[i.kernel_height])),
            plan.rows_last.eq(Mux(vector, 1, masks[i.kernel_height])),
            plan.columns_last.eq(masks[i.kernel_width]),
            plan.x_last.eq(Mux(vector, i.steps, i.out_width)),
            plan.row_last.eq(Mux(vector, 0, i.rows)),
            # The maximum passes the requantizers unchanged.
            plan.multiplier.eq(Mux(maximum, 1 << unit, i.multiplier)),
            plan.shift.eq(Mux(maximum, unit, i.shift)),
            plan.z_out.eq(Mux(maximum, 0, i.z_out)),
            plan.pad.eq(Mux(maximum, -256, i.z_in)),
        ]
        return m
