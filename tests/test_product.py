# amaranth: UnusedElaboratable=no
"""The registered product: values, latency, the cell on an ECP5, refused widths."""

import random

import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator

from tercel.hw.mux_add import Ecp5
from tercel.hw.product import Product


@pytest.mark.parametrize("operand_registers", [True, False])
@pytest.mark.parametrize(("a_bits", "b_bits"), [(9, 10), (18, 18), (1, 3)])
def test_product(a_bits, b_bits, operand_registers):
    product = Product(a_bits=a_bits, b_bits=b_bits, operand_registers=operand_registers)
    assert product.latency == 1 + operand_registers
    rng = random.Random(a_bits)
    low_a, low_b = -(1 << a_bits - 1), -(1 << b_bits - 1)
    operands = [(low_a, low_b)] + [(rng.randint(low_a, ~low_a), rng.randint(low_b, ~low_b)) for _ in range(50)]
    results = []

    async def bench(ctx):
        for a, b in operands + [(0, 0)] * product.latency:
            ctx.set(product.a, a)
            ctx.set(product.b, b)
            results.append(ctx.get(product.o))
            await ctx.tick()

    simulator = Simulator(product)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert results[product.latency :] == [a * b for a, b in operands]


@pytest.mark.parametrize("operand_registers", [True, False])
def test_cell(operand_registers):
    text = rtlil.convert(Product(a_bits=9, b_bits=10, operand_registers=operand_registers), platform=Ecp5())
    assert text.count("cell \\MULT18X18D") == 1
    assert 'parameter \\REG_OUTPUT_CLK "CLK0"' in text
    assert ('parameter \\REG_INPUTA_CLK "CLK0"' in text) == operand_registers


def test_refuses_wide_operands():
    with pytest.raises(ValueError, match=r"^b_bits must be in 1\.\.18, not 19 \(a DSP multiplies 18 bits\)$"):
        Product(a_bits=9, b_bits=19)
