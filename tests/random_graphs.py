"""Small integer graphs with random tensors: single layers, and a network with a residual, a concat and pools."""

from dataclasses import replace

import numpy as np

from tercel.hw.config import BASE, Config
from tercel.sw.graph.integer_graph import Activation, ConcatNode, IntegerGraph, LayerNode
from tercel.sw.layer_spec import LayerSpec, LayerTensors
from tercel.sw.layer_tensors import random_tensors


def random_layer(
    spec: LayerSpec, *, seed: int, name: str = "layer", input: str = "input", residual: str = "residual", config: Config = BASE
) -> tuple[LayerNode, LayerTensors]:
    """A layer with random weights, and the tensors it was calibrated on."""
    spec, tensors = random_tensors(spec, config, seed=seed)
    if config.per_channel_multiplier and spec.kind != "max_pool":
        spec, multipliers = replace(spec, multiplier=0), tensors.multiplier
    else:
        multipliers = np.zeros(0, dtype=np.int64)
    node = LayerNode(
        name=name,
        spec=spec,
        input=input,
        output=name + ".out",
        residual=residual if spec.residual else None,
        weights=tensors.weights,
        bias=tensors.bias,
        shift=tensors.shift,
        multipliers=multipliers,
        thresholds=tensors.thresholds,
        source="aten.conv2d.default, model.py:7",
    )
    return node, tensors


def input_of(layer: LayerNode, *, scale: float = 0.05) -> Activation:
    spec = layer.spec
    return Activation(name=layer.input, shape=spec.input, signed=spec.in_signed, zero_point=spec.z_in, scale=scale)


def output_of(layer: LayerNode, *, scale: float = 0.05) -> Activation:
    spec = layer.spec
    return Activation(name=layer.output, shape=spec.output, signed=spec.out_signed, zero_point=spec.z_out, scale=scale)


def one_layer(layer: LayerNode) -> IntegerGraph:
    """The layer alone; its tensors are inputs and output."""
    tensors = [input_of(layer), output_of(layer)]
    if layer.residual is not None:
        spec = layer.spec
        tensors.append(Activation(name=layer.residual, shape=spec.output, signed=spec.res_signed, zero_point=spec.z_res, scale=0.1))
    return IntegerGraph(
        tensors={tensor.name: tensor for tensor in tensors},
        nodes=(layer,),
        inputs=tuple(dict.fromkeys(layer.inputs)),
        outputs=(layer.output,),
    )


def small_network(*, seed: int = 0, config: Config = BASE) -> IntegerGraph:
    """stem -> expand -> depthwise -> project (+ stem) -> max pool; two branches -> concat -> average pool -> linear."""
    signed = {"in_signed": True, "out_signed": True}
    specs = {
        "stem": LayerSpec(kind="conv", input=(12, 12, 3), out=8, kernel=(3, 3), stride=2, padding=(0, 0, 1, 1), z_in=3, z_out=-5, **signed),
        "block.expand": LayerSpec(kind="conv", input=(6, 6, 8), out=24, weight_bits=4, z_in=-5, z_out=-128, lo=-128, hi=90, **signed),
        "block.depthwise": LayerSpec(
            kind="depthwise", input=(6, 6, 24), kernel=(3, 3), padding=(1, 1, 1, 1), z_in=-128, z_out=-128, lo=-128, **signed
        ),
        "block.project": LayerSpec(
            kind="conv", input=(6, 6, 24), out=8, weight_bits=2, z_in=-128, z_out=7, residual=True, res_signed=True, z_res=-5, **signed
        ),
        "pool": LayerSpec(kind="max_pool", input=(6, 6, 8), kernel=(2, 2), stride=2, z_in=7, z_out=7, **signed),
        "left": LayerSpec(kind="conv", input=(3, 3, 8), out=16, z_in=7, z_out=2, **signed),
        "right": LayerSpec(
            kind="conv", input=(3, 3, 8), out=8, kernel=(3, 3), dilation=(2, 2), padding=(2, 2, 2, 2), z_in=7, z_out=2, **signed
        ),
        "average": LayerSpec(kind="average_pool", input=(3, 3, 24), kernel=(3, 3), z_in=2, z_out=2, **signed),
        "classifier": LayerSpec(kind="linear", input=(1, 1, 24), out=10, z_in=2, z_out=0, **signed),
    }
    reads = {"right": "pool", "average": "join"}
    nodes: list[LayerNode | ConcatNode] = []
    tensors: dict[str, Activation] = {}
    previous = "input"
    for index, (name, spec) in enumerate(specs.items()):
        source = reads[name] + ".out" if name in reads else previous
        layer, _ = random_layer(spec, seed=seed + index, name=name, input=source, residual="stem.out", config=config)
        tensors.setdefault(source, input_of(layer))
        nodes.append(layer)
        tensors[layer.output] = output_of(layer)
        previous = layer.output
        if name == "right":
            nodes.append(
                ConcatNode(name="join", inputs=("left.out", "right.out"), output="join.out", source="aten.cat.default, model.py:9")
            )
            tensors["join.out"] = replace(tensors["right.out"], name="join.out", shape=(3, 3, 24))
    return IntegerGraph(tensors=tensors, nodes=tuple(nodes), inputs=("input",), outputs=(previous,))


def random_codes(activation: Activation, *, batch: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    low = -128 if activation.signed else 0
    return random.integers(low, low + 256, (batch, *activation.shape))
