"""MobileNetV2 of 224 x 224 pixels: the numbers of every layer, and how much of the lanes the cycle model sees at work."""

import numpy as np
import pytest
from compiled_networks import expected, mobilenet_v2

from tercel.hw.config import BASE
from tercel.hw.isa import Fault
from tercel.sim.backend import GoldenBackend
from tercel.sw.compiler import compile_graph
from tercel.sw.estimate import estimate


def utilization(program):
    """Useful share of the lane-cycles of both engines, multiply-accumulates times digits."""
    useful = sum(mark.macs * mark.digits for mark in program.marks)
    return useful / (estimate(program).cycles * (BASE.array_lanes + BASE.depthwise_lanes))


@pytest.mark.parametrize(("bits", "limit"), [(8, 0.79), (2, 0.72)])
def test_utilization(bits, limit):
    graph, _ = mobilenet_v2(BASE, bits=bits)
    assert utilization(compile_graph(graph, BASE)) >= limit


def test_every_layer():
    graph, net = mobilenet_v2(BASE, bits=4)
    image = net.image()
    result = GoldenBackend().run(compile_graph(graph, BASE, keep=("*",)), inputs=image)
    assert result.fault is Fault.NONE
    wanted = expected(graph, image, BASE)
    assert len(result.outputs) == len(graph.nodes)
    for node in graph.nodes:
        assert np.array_equal(result.outputs[node.output], wanted[node.output]), node.name
