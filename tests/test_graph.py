"""Integer graphs: the rules and the overflow proof, bytes and back, parts of a network, codes at its edges, the table."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_graphs import one_layer, random_codes, random_layer, small_network

from tercel.hw.config import BASE, SMALL, TINY, Config
from tercel.sw.graph.codes import from_codes, to_codes
from tercel.sw.graph.integer_graph import Activation, ConcatNode, GraphError, IntegerGraph, LayerNode
from tercel.sw.graph.reference import run_reference
from tercel.sw.graph.select import select_layers
from tercel.sw.graph.serialize import graph_from_bytes, graph_to_bytes
from tercel.sw.graph.text import graph_text
from tercel.sw.graph.verify import verify
from tercel.sw.layer_bounds import sum_bounds
from tercel.sw.layer_reference import layer_sums
from tercel.sw.layer_spec import LayerSpec, LayerTensors


def layer_of(graph: IntegerGraph, name: str) -> LayerNode:
    return next(layer for layer in graph.layers() if layer.name == name)


def changed(name: str, /, **fields: object) -> IntegerGraph:
    """The small network with fields of a layer replaced; those of its spec are called ``spec_...``."""
    graph = small_network()
    layer = layer_of(graph, name)
    spec = replace(layer.spec, **{key[5:]: value for key, value in fields.items() if key.startswith("spec_")})
    layer = replace(layer, spec=spec, **{key: value for key, value in fields.items() if not key.startswith("spec_")})
    return replace(graph, nodes=tuple(layer if node.name == name else node for node in graph.nodes))


def retensored(name: str, /, **fields: object) -> IntegerGraph:
    graph = small_network()
    return replace(graph, tensors=graph.tensors | {name: replace(graph.tensors[name], **fields)})


@pytest.mark.parametrize("config", [None, BASE, SMALL])
def test_a_right_graph(config: Config | None) -> None:
    verify(small_network(), config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: changed("stem", bias=np.zeros(7, dtype=int)), "stem: bias must be of shape (8,), not (7,) (one for each output channel)"),
        (
            lambda: changed("stem", shift=np.full(8, 16)),
            "stem: shift must be in 0..15, not 16..16 (a channel's shift has 4 bits)",
        ),
        (
            lambda: changed("stem", bias=np.full(8, 1 << 31)),
            "stem: bias must be in -2147483648..2147483647, not 2147483648..2147483648 (the accumulator has 32 bits: ",
        ),
        (
            lambda: changed("block.project", weights=np.full((8, 1, 1, 24), 2)),
            "block.project: weights must be in -2..1, not 2..2 (weight_bits is 2)",
        ),
        (
            lambda: changed("block.expand", weights=np.zeros((24, 8), dtype=int)),
            "block.expand: weights must be of shape (24, 1, 1, 8), not (24, 8) (channels last)",
        ),
        (lambda: changed("stem", spec_multiplier=0), "stem: multiplier must be in 1..65535, not 0 (take another spec.shift)"),
        (lambda: changed("stem", spec_shift=0), "stem: spec.shift must be in 1..39, not 0 (scale the multiplier)"),
        (
            lambda: changed("stem", multipliers=np.ones(8, dtype=int)),
            f"stem: multiplier must be 0 beside multipliers, not {layer_of(small_network(), 'stem').spec.multiplier} (one of both)",
        ),
        (lambda: changed("stem", spec_hi=200), "stem: clamp must be ordered and in -128..127, not -128..200 (codes have 8 bits)"),
        (lambda: changed("stem", spec_lo=9, spec_hi=8), "stem: clamp must be ordered and in -128..127, not 9..8 (codes have 8 bits)"),
        (
            lambda: changed("block.project", spec_res_shift=29),
            "block.project: res_shift + shift must be in 0..31, not 32 (the residual is shifted by 31 at most)",
        ),
        (
            lambda: changed("block.project", residual=None),
            "block.project: residual must be a tensor if spec.residual, not None (set both or none)",
        ),
        (lambda: changed("stem", spec_z_in=4), "stem: input must be of zero point 3, not 4 (the spec and tensor input must agree)"),
        (
            lambda: changed("pool", spec_input=(4, 6, 8)),
            "pool: input must be of shape (6, 6, 8), not (4, 6, 8) (the spec and tensor block.project.out must agree)",
        ),
        (
            lambda: changed("stem", spec_out_signed=False, spec_z_out=0),
            "stem: output must be signed, not unsigned (the spec and tensor stem.out must agree)",
        ),
        (
            lambda: changed("average", bias=np.arange(24)),
            "average: parameters must be equal in all channels, not different (a pool has one parameter word)",
        ),
        (lambda: changed("stem", spec_narrow=True), "stem: narrow must be false, not True (sums "),
        (lambda: changed("stem", name="pool"), "pool: name must be unique, not 'pool' (give each node a name of its own)"),
        (lambda: changed("stem", input="image"), "stem: tensor must be among the graph's tensors, not 'image' (add its Activation)"),
        (lambda: changed("stem", input="pool.out"), "stem: input must be made by an earlier node, not 'pool.out' (sort the nodes)"),
        (
            lambda: changed("left", output="pool.out"),
            "left: output must be a tensor that nothing else makes, not 'pool.out' (give it a name of its own)",
        ),
        (lambda: changed("stem", thresholds=np.zeros((8, 3))), "stem: thresholds must be empty, not (8, 3) (spec.thresholds is 0)"),
        (lambda: retensored("input", scale=0.0), "input: scale must be positive and finite, not 0.0 (calibrate the range)"),
        (
            lambda: retensored("pool.out", scale=0.3),
            "pool: output must be of the input's scale, zero point and sign, not another (requantize in a layer of its own)",
        ),
        (
            lambda: retensored("left.out", scale=0.3),
            "join: input must be of the output's scale, zero point and sign, not left.out (requantize it first)",
        ),
        (
            lambda: replace(small_network(), outputs=("logits",)),
            "graph: input or output must be among the tensors, not 'logits' (add its Activation)",
        ),
        (lambda: replace(small_network(), outputs=()), "graph: outputs must be at least one, not 0 (name the tensors that you want)"),
        (
            lambda: replace(small_network(), tensors=small_network().tensors | {"x": Activation(**X)}),
            "graph: tensors must be made by an input or a node, not x (remove those that nothing makes)",
        ),
    ],
)
def test_rules(make: Callable[[], IntegerGraph], message: str) -> None:
    with pytest.raises(GraphError, match="^" + re.escape(message)):
        verify(make())


X = {"name": "x", "shape": (1, 1, 1), "signed": False, "zero_point": 0, "scale": 1.0}


@pytest.mark.parametrize(
    ("graph", "config", "message"),
    [
        (
            small_network(),
            TINY,
            "block.depthwise: kind must be conv or linear, not depthwise (config tiny has no depthwise engine)",
        ),
        (
            small_network(config=replace(BASE, per_channel_multiplier=True)),
            BASE,
            "stem: multipliers must be empty, not 8 values (config base has one multiplier a layer; take scales that differ by powers of ",
        ),
        (
            small_network(),
            replace(BASE, name="ternary", digit_set="ternary"),
            "stem: weight_bits must be at most 2, not 8 (config ternary has no more digit planes)",
        ),
        (
            changed("stem", spec_groups=1, spec_weight_bits=2, weights=np.full((8, 3, 3, 3), -2)),
            replace(BASE, name="ternary", digit_set="ternary"),
            "stem: weights must be in -1..1, not -2..-2 (config ternary has ternary digits)",
        ),
        (
            one_layer(random_layer(LayerSpec(kind="conv", input=(3, 3, 8), out=8, groups=2), seed=0)[0]),
            BASE,
            "layer: input channels a group must be a multiple of lanes=8, not 4 (merge groups, with zeros between them)",
        ),
        (
            one_layer(random_layer(LayerSpec(kind="conv", input=(3, 3, 8), out=8, thresholds=3), seed=0)[0]),
            TINY,
            "layer: thresholds must be 0, not 3 (config tiny has no threshold memory; take one with threshold_depth above 0)",
        ),
        (small_network(), replace(BASE, multiplier_bits=8), "stem: multiplier must be in 1..255, not "),
    ],
)
def test_rules_of_a_machine(graph: IntegerGraph, config: Config, message: str) -> None:
    verify(graph)
    with pytest.raises(GraphError, match="^" + re.escape(message)):
        verify(graph, config)


@pytest.mark.parametrize("spare", [0, -1])
@pytest.mark.parametrize("sign", [1, -1])
def test_overflow_proof_is_exact(sign: int, spare: int) -> None:
    """The largest bias that passes is reached by an input; one more is refused."""
    spec = LayerSpec(kind="conv", input=(2, 2, 5), out=3, kernel=(3, 3), padding=(1, 1, 1, 1), in_signed=True, z_in=-128)
    layer, tensors = random_layer(spec, seed=0)
    layer = replace(layer, bias=np.zeros(3, dtype=np.int64))
    least, most = sum_bounds(layer.spec, layer.weights, layer.bias)
    limit = (1 << 31) - 1 - most[1] if sign > 0 else -(1 << 31) - least[1]
    layer = replace(layer, bias=np.array([0, limit - sign * spare, 0]))
    if spare:
        with pytest.raises(GraphError, match=r"^layer: sums of channel 1 must be in -2147483648..2147483647, not "):
            verify(one_layer(layer))
        return
    verify(one_layer(layer))
    # The middle of a 3x3 image of the same weights sees the whole kernel, so that the extreme is reached there.
    wanted = sign * layer.weights[1] > 0
    image = np.where(wanted, 127, -128)
    whole = replace(spec, input=(3, 3, 5))
    worst = LayerTensors(**{**vars(tensors), "input": image, "bias": layer.bias})
    assert layer_sums(whole, worst)[1, 1, 1] == ((1 << 31) - 1 if sign > 0 else -(1 << 31))


@pytest.mark.parametrize("name", ["stem", "block.depthwise", "average", "classifier"])
def test_bounds_hold(name: str) -> None:
    """For extreme and for random inputs, padding counted."""
    layer = layer_of(small_network(), name)
    least, most = sum_bounds(layer.spec, layer.weights, layer.bias)
    random = np.random.default_rng(0)
    for fill in ("low", "high", "random"):
        codes = {"low": np.full(layer.spec.input, -128), "high": np.full(layer.spec.input, 127)}.get(fill)
        image = random.integers(-128, 128, layer.spec.input) if codes is None else codes
        empty = np.zeros(0, dtype=np.int64)
        tensors = LayerTensors(
            input=image, weights=layer.weights, bias=layer.bias, shift=layer.shift, multiplier=empty, thresholds=empty, residual=empty
        )
        sums = layer_sums(layer.spec, tensors)
        assert (least <= sums).all() and (sums <= most).all()


def test_bytes_and_back() -> None:
    """Equal graphs, equal bytes; the graph that comes back computes the same."""
    graph = small_network()
    data = graph_to_bytes(graph)
    assert data == graph_to_bytes(small_network())
    back = graph_from_bytes(data)
    assert graph_to_bytes(back) == data
    assert (back.tensors, back.inputs, back.outputs) == (graph.tensors, graph.inputs, graph.outputs)
    for node, other in zip(graph.nodes, back.nodes, strict=True):
        if isinstance(node, ConcatNode):
            assert node == other
            continue
        assert isinstance(other, LayerNode)
        assert (node.name, node.spec, node.inputs, node.output, node.source) == (
            other.name,
            other.spec,
            other.inputs,
            other.output,
            other.source,
        )
        for field in ("weights", "bias", "shift", "multipliers", "thresholds"):
            np.testing.assert_array_equal(getattr(node, field), getattr(other, field))
            assert getattr(other, field).dtype == np.int64
    codes = {"input": random_codes(graph.tensors["input"], batch=2, seed=1)}
    np.testing.assert_array_equal(run_reference(graph, codes)["classifier.out"], run_reference(back, codes)["classifier.out"])


def test_order_of_tensors_is_kept() -> None:
    graph = small_network()
    assert list(graph_from_bytes(graph_to_bytes(graph)).tensors) == list(graph.tensors)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "graph must begin with b'TERCELG1', not b'' (it is no integer graph of this version)"),
        (
            lambda data: b"TERCELG0" + data[8:],
            "graph must begin with b'TERCELG1', not b'TERCELG0' (it is no integer graph of this version)",
        ),
        (lambda data: data[:-40], "graph must have the checksum "),
        (lambda data: data[:100] + b"?" + data[101:], "graph must have the checksum "),
        (lambda data: data[:9], "graph must have the checksum "),
    ],
)
def test_damaged_bytes(damage: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(GraphError, match="^" + re.escape(message)):
        graph_from_bytes(damage(graph_to_bytes(small_network())))


def test_a_part_of_a_network() -> None:
    """The part computes what the whole computes there."""
    graph = small_network()
    part = select_layers(graph, "block.*")
    assert (part.inputs, part.outputs) == (("stem.out",), ("block.project.out",))
    assert [node.name for node in part.nodes] == ["block.expand", "block.depthwise", "block.project"]
    verify(part)
    codes = {"input": random_codes(graph.tensors["input"], batch=2, seed=1)}
    everything = run_reference(graph, codes, keep=True)
    result = run_reference(part, {"stem.out": everything["stem.out"]})
    np.testing.assert_array_equal(result["block.project.out"], everything["block.project.out"])


def test_a_part_with_several_edges() -> None:
    """A tensor that is read inside and outside is an output; the project layer alone reads two tensors."""
    graph = small_network()
    assert select_layers(graph, "stem").outputs == ("stem.out",)
    assert select_layers(graph, "block.project").inputs == ("block.depthwise.out", "stem.out")
    assert select_layers(graph, "join").inputs == ("left.out", "right.out")
    assert select_layers(graph, "*").outputs == graph.outputs


def test_a_part_that_is_empty() -> None:
    with pytest.raises(GraphError, match=re.escape("pattern must match at least one layer, not 'classifer' (close: classifier")):
        select_layers(small_network(), "classifer")


@pytest.mark.parametrize("signed", [False, True])
def test_codes_as_torch_rounds(signed: bool) -> None:
    """Every float32 value gives the code that the quantize op of a captured graph gives."""
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(0, 2, 4096), (np.arange(-400, 400) + 0.5) * 0.01227]).astype(np.float32).reshape(1, 1, -1)
    tensor = Activation(name="x", shape=values.shape, signed=signed, zero_point=-7 if signed else 121, scale=0.01227)
    low = -128 if signed else 0
    scaled = torch.round(torch.from_numpy(values) * (1.0 / tensor.scale)) + tensor.zero_point
    expected = torch.clamp(scaled, low, low + 255).to(torch.int64).numpy()
    codes = to_codes(tensor, values)
    np.testing.assert_array_equal(codes, expected)
    inside = (codes > low) & (codes < low + 255)
    assert np.abs(from_codes(tensor, codes) - values)[inside].max() <= tensor.scale * 0.5001


def test_the_table() -> None:
    text = graph_text(small_network(), BASE)
    lines = text.splitlines()
    assert lines[0] == "inputs   input 12x12x3 int8 zero 3 scale 0.05"
    assert lines[1] == "outputs  classifier.out 1x1x10 int8 zero 0 scale 0.05"
    assert len(lines) == 3 + len(small_network().nodes)
    rows = {line.split()[0]: line for line in lines[3:]}
    assert re.search(r"conv +array +12x12x3 +6x6x8 +3x3 s2 p0,0,1,1 +8 +\d+>>\d+\+0\.\.3 +-128\.\.127 +input +aten.conv2d", rows["stem"])
    assert re.search(r"residual \d+<<\d+ .* block.depthwise.out stem.out", rows["block.project"])
    assert re.search(r"concat +3x3x24 +left.out right.out", rows["join"])
    assert re.search(r"3x3 d2,2 p2,2,2,2", rows["right"])
