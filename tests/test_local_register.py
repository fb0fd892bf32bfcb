# amaranth: UnusedElaboratable=no
"""The register that synthesis leaves alone: a cycle late, in the shape of its value, and a cell a bit on an ECP5."""

from amaranth.back import rtlil
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data
from amaranth.sim import Simulator

from tercel.hw.local_register import LocalRegister, local
from tercel.hw.mux_add import Ecp5


def test_values():
    register = LocalRegister(5)
    results = []

    async def bench(ctx):
        for value in (3, 31, 0, 17, 0):
            ctx.set(register.i, value)
            results.append(ctx.get(register.o))
            await ctx.tick()

    simulator = Simulator(register)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert results == [0, 3, 31, 0, 17]


def test_shapes():
    m = Module()
    layout = data.StructLayout({"a": 3, "b": signed(2)})
    assert local(m, Signal(signed(7)), name="number").shape() == signed(7)
    assert local(m, Signal(layout), name="fields").shape() == layout
    assert rtlil.convert(m, platform=Ecp5(), ports=[]).count("cell \\TRELLIS_FF") == 7 + 5


def test_cells():
    text = rtlil.convert(LocalRegister(5), platform=Ecp5())
    assert text.count("cell \\TRELLIS_FF") == 5
    assert "$dff" not in text
