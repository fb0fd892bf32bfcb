"""Integer graphs small enough to look at, with random codes."""

from dataclasses import replace

from tercel.hw.config import SMALL as SMALL_CONFIG
from tercel.hw.config import Config
from tercel.sw.graph.integer_graph import Activation, IntegerGraph, LayerNode
from tercel.sw.layer_spec import LayerSpec
from tercel.sw.layer_tensors import random_tensors


def node(name: str, spec: LayerSpec, *, input: str, output: str, residual: str | None = None, seed: int = 0, config: Config = SMALL_CONFIG):
    """A layer with random weights, bias and shifts."""
    spec, tensors = random_tensors(spec, config, seed=seed)
    return LayerNode(
        name=name,
        spec=spec,
        input=input,
        output=output,
        residual=residual,
        weights=tensors.weights,
        bias=tensors.bias,
        shift=tensors.shift,
        multipliers=tensors.multiplier if config.per_channel_multiplier else tensors.multiplier[:0],
        source="hand-made",
    )


def chain(*specs: tuple[str, LayerSpec], config: Config = SMALL_CONFIG, scale: float = 0.1) -> IntegerGraph:
    """Layers one after the other; tensor ``x`` enters, every other is called after its layer with ``_out``."""
    nodes, tensors, previous = [], {}, "x"
    for seed, (name, spec) in enumerate(specs):
        if not nodes:
            tensors["x"] = Activation(name="x", shape=spec.input, signed=spec.in_signed, zero_point=spec.z_in, scale=scale)
        output = f"{name}_out"
        nodes.append(node(name, spec, input=previous, output=output, seed=seed, config=config))
        tensors[output] = Activation(name=output, shape=spec.output, signed=spec.out_signed, zero_point=spec.z_out, scale=scale)
        previous = output
    return IntegerGraph(tensors=tensors, nodes=tuple(nodes), inputs=("x",), outputs=(previous,))


def two_layers() -> IntegerGraph:
    """``x`` through layer ``first`` to ``a`` and through layer ``second`` to ``y``, 5x4x8 all of them."""
    pointwise = LayerSpec(kind="conv", input=(5, 4, 8), out=8)
    tensors = {name: Activation(name=name, shape=(5, 4, 8), signed=False, zero_point=0, scale=0.1) for name in ("x", "a", "y")}
    nodes = (node("first", pointwise, input="x", output="a"), node("second", pointwise, input="a", output="y", seed=1))
    return IntegerGraph(tensors=tensors, nodes=nodes, inputs=("x",), outputs=("y",))


def mobile_block(config: Config = SMALL_CONFIG) -> IntegerGraph:
    """Expand, depthwise, project with residual, pool and linear: what a MobileNet is made of, on 6x6x8."""
    same = (1, 1, 1, 1)
    graph = chain(
        ("block.expand", LayerSpec(kind="conv", input=(6, 6, 8), out=16, z_out=3)),
        ("block.depthwise", LayerSpec(kind="depthwise", input=(6, 6, 16), kernel=(3, 3), padding=same, z_in=3)),
        ("block.project", LayerSpec(kind="conv", input=(6, 6, 16), out=8, z_out=128, residual=True)),
        ("pool", LayerSpec(kind="average_pool", input=(6, 6, 8), kernel=(6, 6), z_in=128, z_out=128)),
        ("classifier", LayerSpec(kind="linear", input=(1, 1, 8), out=10, z_in=128, z_out=128)),
        config=config,
    )
    nodes = tuple(replace(layer, residual="x") if layer.name == "block.project" else layer for layer in graph.layers())
    return replace(graph, nodes=nodes)
