"""The reference of whole graphs against the reference of single layers, which has no arithmetic in common with it but the contract."""

import re

import numpy as np
import pytest
from random_graphs import one_layer, random_codes, random_layer, small_network

from tercel.hw.config import BASE, Config
from tercel.sw.graph.integer_graph import GraphError, LayerNode
from tercel.sw.graph.reference import Engine, run_reference
from tercel.sw.layer_reference import layer_reference
from tercel.sw.layer_spec import LayerSpec, LayerTensors

PER_CHANNEL = Config(name="per channel", per_channel_multiplier=True)
SPECS = {
    "pointwise": LayerSpec(kind="conv", input=(5, 4, 24), out=40, weight_bits=2, z_out=100),
    "padded": LayerSpec(kind="conv", input=(7, 6, 20), out=13, kernel=(3, 3), padding=(1, 2, 0, 3), z_in=3, z_out=90),
    "strided": LayerSpec(kind="conv", input=(9, 8, 9), out=17, kernel=(5, 2), stride=3, dilation=(2, 1), in_signed=True, out_signed=True),
    "grouped": LayerSpec(kind="conv", input=(6, 5, 64), out=64, groups=2, kernel=(2, 3), gain=2, weight_offset=-7, z_out=99),
    "residual": LayerSpec(kind="conv", input=(5, 5, 12), out=20, residual=True, out_signed=True, res_signed=True, z_res=-3),
    "thresholds": LayerSpec(kind="conv", input=(5, 5, 12), out=20, thresholds=15, weight_bits=2),
    "linear": LayerSpec(kind="linear", input=(1, 1, 100), out=50, z_out=128, lo=3, hi=200),
    "matrix": LayerSpec(kind="linear", input=(3, 5, 33), out=21, array=True, out_signed=True),
    "depthwise": LayerSpec(
        kind="depthwise", input=(6, 5, 20), kernel=(5, 4), padding=(1, 2, 1, 1), stride=2, z_in=9, gain=2, weight_offset=3
    ),
    "max": LayerSpec(kind="max_pool", input=(6, 5, 20), kernel=(3, 3), stride=2, padding=(1, 1, 1, 1), lo=5, hi=250),
    "max of nothing": LayerSpec(kind="max_pool", input=(2, 2, 3), kernel=(2, 2), stride=2, padding=(2, 0, 0, 0), z_in=17, z_out=17),
    "average": LayerSpec(kind="average_pool", input=(6, 6, 20), kernel=(3, 3), padding=(1, 1, 1, 1), z_in=4, z_out=4),
}


def expected(layer: LayerNode, codes: dict[str, np.ndarray], config: Config) -> np.ndarray:
    """Image by image, by the reference of single layers."""
    results = []
    for image in range(len(codes[layer.input])):
        tensors = LayerTensors(
            input=codes[layer.input][image].astype(np.int64),
            weights=layer.weights,
            bias=layer.bias,
            shift=layer.shift,
            multiplier=layer.multipliers if layer.multipliers.size else np.full(len(layer.bias), layer.spec.multiplier),
            thresholds=layer.thresholds,
            residual=np.zeros(0, dtype=np.int64) if layer.residual is None else codes[layer.residual][image].astype(np.int64),
        )
        results.append(layer_reference(layer.spec, tensors, config))
    return np.stack(results)


@pytest.mark.parametrize("config", [BASE, PER_CHANNEL], ids=["one multiplier", "per channel"])
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_every_kind_of_layer(engine: Engine, name: str, config: Config) -> None:
    layer, _ = random_layer(SPECS[name], seed=3, config=config)
    graph = one_layer(layer)
    codes = {tensor: random_codes(graph.tensors[tensor], batch=3, seed=5) for tensor in graph.inputs}
    result = run_reference(graph, codes, engine=engine)[layer.output]
    assert result.dtype == (np.int8 if layer.spec.out_signed else np.uint8)
    np.testing.assert_array_equal(result, expected(layer, codes, config))
    assert len(np.unique(result)) > 3


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_network_layer_by_layer(engine: Engine) -> None:
    """All tensors when asked for, and the same output when not."""
    graph = small_network()
    codes = {"input": random_codes(graph.tensors["input"], batch=4, seed=1)}
    everything = run_reference(graph, codes, keep=True, engine=engine)
    assert set(everything) == set(graph.tensors)
    for layer in graph.layers():
        np.testing.assert_array_equal(everything[layer.output], expected(layer, everything, BASE), err_msg=layer.name)
        assert len(np.unique(everything[layer.output])) > 8
    np.testing.assert_array_equal(everything["join.out"], np.concatenate([everything["left.out"], everything["right.out"]], axis=3))
    outputs = run_reference(graph, codes, engine=engine)
    assert set(outputs) == {"classifier.out"}
    np.testing.assert_array_equal(outputs["classifier.out"], everything["classifier.out"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs must be input, not none (name each tensor once)"),
        ({"image": np.zeros((1, 12, 12, 3), dtype=int)}, "inputs must be input, not image (name each tensor once)"),
        (
            {"input": np.zeros((12, 12, 3), dtype=int)},
            "input must have shape (12, 12, 12, 3), not (12, 12, 3) (batch, height, width, channels)",
        ),
        ({"input": np.full((1, 12, 12, 3), 128)}, "input must hold codes in -128..127, not 128..128 (quantize it first)"),
    ],
)
def test_wrong_inputs(inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(GraphError, match=f"^{re.escape(message)}$"):
        run_reference(small_network(), inputs)
