"""The systolic array: P rows of N cells.

::

    weights, control ---> row 0: | cell 0 | cell 1 | ... | cell N-1 | activation sum   <- acts of row 0
      one cycle later     row 1: |  ...                                                <- acts of row 1, delayed by 1
                          ...

Output-stationary: the sums stay, the activations of a pixel reach all the cells of its row at once, the weights and the control
go down the rows.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.array.cell import SUM_BITS, ActivationSum, Cell, tree_levels
from tercel.hw.array.feed import FeedSignature, act_layout
from tercel.hw.config import Config
from tercel.hw.delay import delayed
from tercel.hw.local_register import local

LANES_PER_COPY = 32
"""Of a row that share a register of its activations."""


def sums_layout(config: Config) -> data.ArrayLayout:
    """The sums of the last finished tile, row by row: ``acc`` of N outputs and, a cycle later, ``asum``."""
    row = data.StructLayout({"acc": data.ArrayLayout(signed(SUM_BITS), config.outputs), "asum": signed(SUM_BITS)})
    return data.ArrayLayout(row, config.pixels)


def sums_latency(config: Config) -> int:
    """Cycles from the ``last`` of a tile to ``acc`` of row 0: 2 + log2 K. Row p follows p cycles later, ``asum`` 1 more."""
    return 2 + tree_levels(config)


class SystolicArray(Component):
    """Sums of P x N outputs, one step a cycle. The sums of a tile stay until those of the next (see :func:`sums_latency`).

    Members
    -------
    feed : In(FeedSignature)
        The steps. ``residual`` and ``tile`` are not used here.
    sums : Out(sums_layout)
    acts : Out(act_layout)
        ``feed.acts`` as the rows get them: those of row p p + 1 cycles later.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__({"feed": In(FeedSignature(config)), "sums": Out(sums_layout(config)), "acts": Out(act_layout(config))})

    def elaborate(self, platform):
        """Each row takes its own registered copy of what it needs."""
        m = Module()
        config = self.config
        levels = tree_levels(config)
        weights = self.feed.weights
        if config.digit_set == "ternary":
            weights = Cat(Cat(low, low & high) for low, high in zip(weights[0::2], weights[1::2], strict=True))
        step = self.feed.step
        # Under reset a ``last`` goes down the rows, which clears the cells.
        control = Signal(3, init=0b100)
        m.d.sync += control.eq(Cat(step, step & self.feed.shift, step & self.feed.last))
        control = delayed(m, control, levels - 1, name="control", init=0b100)
        offset = delayed(m, Mux(step & self.feed.sum, self.feed.offset, 0), levels, name="offset")
        for row in range(config.pixels):
            weights = delayed(m, weights, 1, name=f"weights_{row}")
            control = delayed(m, control, 1, name=f"control_{row}", init=0b100)
            offset = delayed(m, offset, 1, name=f"offset_{row}")
            late = delayed(m, control, 1, name=f"control_late_{row}", init=0b100)
            acts = self._copies(m, delayed(m, self.feed.acts[row].as_value(), row, name=f"acts_{row}"), row)
            m.d.comb += self.acts[row].eq(acts[0])
            for output in range(config.outputs):
                m.submodules[f"cell_{row}_{output}"] = cell = Cell(config)
                first = 2 * config.lanes * output
                m.d.comb += [
                    cell.acts.eq(acts[output * len(acts) // config.outputs]),
                    cell.digits.eq(weights[first : first + 2 * config.lanes]),
                    Cat(cell.step, cell.shift, cell.last).eq(control),
                    self.sums[row].acc[output].eq(cell.shadow),
                ]
            m.submodules[f"activations_{row}"] = activations = ActivationSum(config)
            m.d.comb += [
                activations.acts.eq(acts[0]),
                activations.offset.eq(offset),
                activations.step.eq(late[0]),
                activations.last.eq(late[2]),
                self.sums[row].asum.eq(activations.shadow),
            ]
        return m

    def _copies(self, m: Module, acts, row: int) -> list[Signal]:
        """``acts`` in registers, once for every so many lanes: a long row is more than a wire can cross in a cycle."""
        count = -(-self.config.lanes * self.config.outputs // LANES_PER_COPY)
        if count == 1:
            return [delayed(m, acts, 1, name=f"acts_{row}_late")]
        return [local(m, acts, name=f"acts_{row}_copy_{number}") for number in range(count)]
