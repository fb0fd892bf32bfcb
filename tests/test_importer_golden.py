"""Layers that only the importer makes (copies, stored paddings, merged groups, shortcuts): compiled, on the golden model."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from qdq_models import Conv, Linear, Net, Quant, Weight, export
from random_graphs import random_codes
from torch import Tensor, nn

from tercel.hw.config import BASE, LARGE, SMALL, TINY, Config
from tercel.sim.execution import execute_program
from tercel.sw.compiler import compile_graph
from tercel.sw.graph.reference import run_reference
from tercel.sw.importer import import_exported

SHIFTED = [0.004 * 2.0 ** -(index % 5) for index in range(16)]


def quantized(run: Callable[..., Tensor], **modules: nn.Module) -> nn.Module:
    return Net(lambda net, x: run(net, net.input(x)), input=Quant(0.02, 3), output=Quant(0.0987, -9), **modules)


MODELS = {
    "sum of two tensors": (
        quantized(
            lambda net, x: net.output(F.relu(x + net.middle(net.conv(x)))), conv=Conv(Weight((12, 12, 1, 1))), middle=Quant(0.011, 5)
        ),
        (12, 5, 6),
    ),
    "sum with itself": (quantized(lambda net, x: net.output(x + x)), (8, 5, 5)),
    "shortcut": (
        quantized(
            lambda net, x: net.output(net.conv(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))),
            conv=Conv(Weight((16, 8, 3, 3), scales=SHIFTED), stride=2, padding=1),
        ),
        (8, 9, 9),
    ),
    "depthwise with a sum": (
        quantized(lambda net, x: net.output(net.conv(x) + x), conv=Conv(Weight((16, 1, 3, 3), scales=SHIFTED), groups=16, padding=1)),
        (16, 6, 7),
    ),
    "groups": (
        quantized(lambda net, x: net.output(net.conv(x)), conv=Conv(Weight((24, 3, 3, 3), scales=0.004), groups=4)),
        (12, 6, 7),
    ),
    "stored padding": (
        quantized(lambda net, x: net.output(net.conv(x) + F.pad(x, (1, 1, 1, 1))), conv=Conv(Weight((8, 8, 1, 1)), padding=1)),
        (8, 5, 5),
    ),
    "requantized branch": (
        quantized(lambda net, x: net.output(torch.cat([net.conv(x), x], 1)), conv=Conv(Weight((8, 16, 3, 3), scales=0.004), padding=1)),
        (16, 5, 5),
    ),
    "product of an image": (
        quantized(lambda net, x: net.output(net.linear(torch.flatten(x, 1))), linear=Linear(Weight((20, 60), scales=0.005))),
        (5, 4, 3),
    ),
    "average and product": (
        quantized(
            lambda net, x: net.output(net.linear(net.middle(F.adaptive_avg_pool2d(x, 1)).flatten(1))),
            linear=Linear(Weight((20, 24), scales=0.005)),
            middle=Quant(0.004, 0),
        ),
        (24, 6, 6),
    ),
}


@pytest.mark.parametrize("config", [TINY, SMALL, BASE, LARGE], ids=lambda config: config.name)
@pytest.mark.parametrize("name", MODELS)
def test_golden_equals_reference(name: str, config: Config) -> None:
    model, shape = MODELS[name]
    graph = import_exported(export(model, *shape), config=config).graph
    (source,) = graph.inputs
    codes = {source: random_codes(graph.tensors[source], batch=2, seed=3)}
    expected = run_reference(graph, codes, keep=True)
    program = compile_graph(graph, config, keep=["*"])
    tensors = execute_program(program, codes, on="golden").tensors
    assert set(tensors) == {layer.output for layer in graph.layers()} | set(graph.outputs)
    for tensor, values in tensors.items():
        np.testing.assert_array_equal(values, expected[tensor], err_msg=tensor)
    assert len(np.unique(expected[graph.outputs[0]])) > 10
