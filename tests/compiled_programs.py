"""Machines of every kind for the compiler, and compiled programs on the golden model against the numeric contract."""

import numpy as np
from compiled_networks import expected

from tercel.hw.config import BASE, LARGE, SMALL, Config
from tercel.hw.isa import Fault
from tercel.sim.backend import GoldenBackend
from tercel.sw.compiler import compile_graph

CONFIGS = [
    SMALL,
    BASE,
    LARGE,
    Config(
        name="even",
        pixels=4,
        lanes=4,
        outputs=8,
        drain_lanes=2,
        array_depth=128,
        window_depth=128,
        weight_depth=256,
        parameter_depth=64,
        record_depth=64,
        threshold_depth=256,
        memory_width=4,
    ),
    Config(
        name="prime",
        pixels=3,
        lanes=2,
        outputs=4,
        drain_lanes=2,
        array_depth=256,
        window_depth=256,
        weight_depth=512,
        parameter_depth=128,
        record_depth=128,
        threshold_depth=128,
        memory_width=2,
        per_channel_multiplier=True,
    ),
    Config(
        name="single",
        pixels=1,
        lanes=8,
        outputs=8,
        array_depth=1024,
        window_depth=1024,
        weight_depth=256,
        parameter_depth=32,
        record_depth=64,
        threshold_depth=256,
        memory_width=8,
    ),
    Config(
        name="alone",
        pixels=5,
        lanes=4,
        outputs=4,
        depthwise=False,
        drain_lanes=1,
        array_depth=256,
        window_depth=0,
        weight_depth=256,
        parameter_depth=64,
        record_depth=0,
        threshold_depth=0,
        memory_width=2,
    ),
]


def check(graph, net, config, keep=("*",)):
    """Compile and run on the golden model: every kept tensor is what the layers make one by one. Returns the program."""
    program = compile_graph(graph, config, keep=keep)
    image = net.image()
    result = GoldenBackend().run(program, inputs=image)
    assert result.fault is Fault.NONE, (result.fault, result.fault_index)
    assert not result.stray_writes
    wanted = expected(graph, image, config)
    assert len(result.outputs) == (len(graph.nodes) if "*" in keep else len(program.outputs))
    for node in graph.nodes:
        if node.output in result.outputs:
            assert np.array_equal(result.outputs[node.output], wanted[node.output]), node.name
    return program
