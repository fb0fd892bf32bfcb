"""Layers that compilation rewrites for an engine: on the array instead of the depthwise engine, in doubled units, or refused."""

import re
from dataclasses import replace

import numpy as np
import pytest
from compiled_networks import NetworkBuilder
from compiled_programs import CONFIGS, check

from tercel.hw.config import BASE, SMALL
from tercel.hw.isa import Opcode
from tercel.sw.compiler import FitError, compile_graph
from tercel.sw.compiler.fold import fold, unfold
from tercel.sw.compiler.legalize import legalize
from tercel.sw.compiler.state import Compilation
from tercel.sw.graph.integer_graph import GraphError
from tercel.sw.graph.serialize import graph_to_bytes
from tercel.sw.graph.verify import verify


@pytest.mark.parametrize("config", [config for config in CONFIGS if config.depthwise], ids=lambda config: config.name)
def test_weights_of_nine_bits_run_on_the_array(config):
    """Asymmetric ones and doubled ones, which no record holds; channels that are whole words and others."""
    net = NetworkBuilder(config, input=(9, 8, 3))
    padded = {"kernel": (3, 3), "padding": (1, 1, 1, 1)}
    x = net.layer("depthwise", net.input, **padded, stride=2, gain=2, name="folded")
    x = net.layer("conv", x, out=2 * config.lanes, weight_bits=4)
    x = net.layer("depthwise", x, **padded, weight_offset=-100, name="whole")
    x = net.layer("depthwise", x, **padded, name="narrow")
    x = net.layer("conv", x, out=config.lanes + 1, weight_bits=4)
    x = net.layer("depthwise", x, kernel=(5, 4), gain=2, weight_offset=-20, name="one")
    x = net.layer("linear", x, out=13, weight_bits=8, weight_offset=-30, name="vector")
    graph = net.graph(x)
    verify(graph, config)
    program = check(graph, net, config)
    marks = {mark.name: (mark.kind, mark.engine, mark.macs) for mark in program.marks}
    macs = {node.name: node.spec.macs for node in graph.nodes}
    engines = {"folded": "array", "whole": "array", "narrow": "depthwise", "one": "array"}
    assert {name: marks[name] for name in engines} == {name: ("depthwise", engine, macs[name]) for name, engine in engines.items()}
    assert marks["vector"] == ("linear", "array", macs["vector"])


@pytest.mark.parametrize("kind", ["depthwise", "conv"])
def test_unfolding_leaves_what_legalize_did(kind):
    """What is taken back is the fold alone: the layer stays on the array, and in its doubled units."""
    net = NetworkBuilder(BASE, input=(9, 8, 3))
    geometry = {"kernel": (3, 3), "padding": (1, 1, 1, 1), "stride": 2}
    if kind == "depthwise":
        graph = net.graph(net.layer("depthwise", net.input, **geometry, gain=2))
    else:
        output = net.layer("conv", net.input, **geometry, out=8, weight_bits=2)
        net.nodes[0] = replace(net.nodes[0], spec=replace(net.nodes[0].spec, shift=15))
        graph = net.graph(output)
    state = Compilation(source=graph, config=BASE, memory_latency=8, wanted=graph.outputs, graph=graph)
    legalize(state)
    legal = graph_to_bytes(state.graph)
    assert legal != graph_to_bytes(graph)
    fold(state)
    assert state.folds and graph_to_bytes(state.graph) != legal
    unfold(state)
    assert graph_to_bytes(state.graph) == legal


@pytest.mark.parametrize(
    ("shift", "gain", "offset", "bits", "form"),
    [
        (16, 1, 3, 2, (1, 0, 3, 16)),
        (15, 1, 3, 2, (1, 1, 6, 16)),
        (15, 1, 128, 2, (0, 0, 128, 15)),
        (15, 2, 0, 2, (0, 1, 0, 15)),
        (14, 1, 3, 2, (0, 0, 3, 14)),
        (15, 1, 0, 8, (0, 0, 42, 15)),
    ],
    ids=["narrow", "doubled", "offset too large", "doubled already", "factor above 2", "sums too large once doubled"],
)
def test_narrow_sums(shift, gain, offset, bits, form):
    """A layer whose factor M / 2**E is just above 1 gets half the unit, where its sums stay narrow; the image is folded."""
    net = NetworkBuilder(BASE, input=(6, 14, 3))
    geometry = {"kernel": (3, 3), "padding": (1, 1, 1, 1), "stride": 2}
    x = net.layer("conv", net.input, out=16, **geometry, weight_bits=bits, gain=gain, weight_offset=offset)
    (node,) = net.nodes
    net.nodes[0] = replace(node, spec=replace(node.spec, shift=shift, multiplier=40_000), shift=np.arange(16) % 8)
    program = check(net.graph(x), net, BASE)
    arrays = [values for opcode, values in program.instructions() if opcode is Opcode.ARRAY]
    assert {tuple(values[name] for name in ("narrow", "gain", "offset", "shift")) for values in arrays} == {form}


@pytest.mark.parametrize(
    ("gain", "offset", "config"),
    [(2, 1, SMALL), (1, 11, replace(SMALL, digit_set="ternary")), (1, 11, replace(SMALL, weight_depth=64))],
    ids=["odd", "ternary", "no room"],
)
def test_weights_that_no_engine_holds(gain, offset, config):
    """Odd levels have no 0 to put between channels; a ternary array has one digit; and there may be no room."""
    net = NetworkBuilder(replace(config, digit_set="radix4"), input=(5, 5, 8), seed=2)
    graph = net.graph(net.layer("depthwise", net.input, kernel=(5, 5), gain=gain, weight_offset=offset, name="middle"))
    (codes,) = (layer.weights for layer in graph.layers())
    message = (
        f"middle: weights gain * d + weight_offset must be in -128..127, not {gain * codes.min() + offset}..{gain * codes.max() + offset} "
        "(the depthwise engine multiplies by 8 bits; take symmetric weights or fewer weight_bits)"
    )
    with pytest.raises(GraphError, match=f"^{re.escape(message)}$"):
        verify(graph, config)
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        compile_graph(graph, config)
