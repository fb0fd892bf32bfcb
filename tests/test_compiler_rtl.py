"""Compiled networks on the RTL: the same numbers with a memory that stalls, and about the cycles that the model expects."""

import numpy as np
import pytest
from compiled_networks import expected, mobilenet_v2
from test_compiler import random_network

from tercel.hw.isa import Fault
from tercel.sim.backend import VerilatorBackend
from tercel.sim.verify import PRIME
from tercel.sim.verilator.model import MemoryModel
from tercel.sw.compiler import compile_graph
from tercel.sw.estimate import estimate


@pytest.fixture(scope="module")
def rtl():
    with VerilatorBackend(config=PRIME) as backend:
        yield backend


def run(rtl, graph, net, *, keep, model):
    program = compile_graph(graph, PRIME, keep=keep)
    image = net.image()
    result = rtl.run(program, inputs=image, memory_model=model)
    assert result.fault is Fault.NONE
    assert not result.stray_writes
    wanted = expected(graph, image, PRIME)
    for name, codes in result.outputs.items():
        assert np.array_equal(codes, wanted[name]), name
    return program, result


@pytest.mark.parametrize("seed", range(100, 108))
def test_random_networks(rtl, seed):
    graph, net = random_network(PRIME, seed)
    run(rtl, graph, net, keep=("*",), model=MemoryModel(latency=9, stall_probability=0.4))
    run(rtl, graph, net, keep=(), model=MemoryModel(latency=1))


def test_cycles_of_a_network(rtl):
    graph, net = mobilenet_v2(PRIME, size=32, bits=2, classes=10, width=0.35)
    program, result = run(rtl, graph, net, keep=(), model=MemoryModel(latency=8))
    assert result.cycles == pytest.approx(estimate(program, memory_latency=8).cycles, rel=0.005)
