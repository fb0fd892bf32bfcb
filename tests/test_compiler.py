"""Compiled networks on the golden model against the numeric contract, layer by layer."""

import re
from dataclasses import replace

import numpy as np
import pytest
from compiled_networks import NetworkBuilder, expected, inverted_residual, mobilenet_v2

from tercel.hw.config import BASE, LARGE, SMALL, TINY, Config
from tercel.hw.isa import Fault, Opcode
from tercel.sim.backend import GoldenBackend
from tercel.sw.compiler import FitError, compile_graph
from tercel.sw.compiler.fold import fold, unfold
from tercel.sw.compiler.legalize import legalize
from tercel.sw.compiler.state import Compilation
from tercel.sw.cycles import instruction_cycles
from tercel.sw.estimate import estimate
from tercel.sw.graph.integer_graph import GraphError
from tercel.sw.graph.serialize import graph_to_bytes
from tercel.sw.graph.verify import verify
from tercel.sw.program import Program

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


def random_network(config: Config, seed: int):
    random = np.random.default_rng([seed, 3])
    size = int(random.integers(4, 25))
    net = NetworkBuilder(
        config,
        input=(size, int(random.integers(3, 25)), int(random.integers(1, 2 * config.lanes))),
        seed=seed,
        bits=int(random.integers(2, 9)),
    )
    x = net.input
    outputs = []
    for _ in range(int(random.integers(1, 7))):
        height, width, channels = net.tensors[x].shape
        kind = str(random.choice(["conv", "pointwise", "block", "residual", "pool", "branch", "depthwise", "concat", "output", "grouped"]))
        out = int(random.integers(1, 5 * config.lanes))
        if kind == "conv":
            kernel = (int(random.choice([1, 2, 3, 5])), int(random.choice([1, 2, 3, 5])))
            padding = tuple(int(random.integers(0, side)) for side in (*kernel, *kernel))
            fits = height + padding[0] + padding[2] >= kernel[0] and width + padding[1] + padding[3] >= kernel[1]
            if fits:
                more = {"thresholds": int(random.integers(1, 16)), "threshold_shared": bool(random.integers(2))}
                dilated = min(height, width) > 2 * max(kernel)
                x = net.layer(
                    "conv",
                    x,
                    out=out,
                    kernel=kernel,
                    padding=padding,
                    stride=int(random.integers(1, 4)),
                    dilation=(2, 1) if dilated and random.random() < 0.3 else (1, 1),
                    signed=bool(random.integers(2)),
                    **(more if config.threshold_depth and random.random() < 0.2 else {}),
                )
        elif kind == "pointwise":
            x = net.layer(
                "conv",
                x,
                out=out,
                signed=bool(random.integers(2)),
                weight_offset=int(random.choice([0, 1, -3])),
                gain=int(random.choice([1, 2])),
            )
        elif kind == "block" and config.depthwise:
            x = inverted_residual(
                net,
                x,
                out=channels if random.random() < 0.5 else out,
                stride=int(random.integers(1, 3)),
                expand=int(random.integers(1, 5)),
                name=f"block{len(net.nodes)}",
            )
        elif kind == "residual":
            y = net.layer("conv", x, out=out, kernel=(3, 3), padding=(1, 1, 1, 1))
            x = net.layer("conv", y, out=channels, kernel=(3, 3), padding=(1, 1, 1, 1), residual=x)
        elif kind == "pool" and config.depthwise and min(height, width) >= 2:
            padding = (0, 0, int(random.integers(2)), int(random.integers(2)))
            x = net.layer(str(random.choice(["max_pool", "average_pool"])), x, kernel=(2, 2), stride=2, padding=padding)
        elif kind == "branch":
            y = net.layer("conv", x, out=out)
            outputs.append(y)
            if config.depthwise:
                y = net.layer("depthwise", y, kernel=(3, 3), padding=(1, 1, 1, 1))
            x = net.layer("conv", x, out=out, kernel=(3, 3), padding=(1, 1, 1, 1), residual=y)
        elif kind == "depthwise" and config.depthwise:
            x = net.layer("depthwise", x, kernel=(5, 3), padding=(2, 1, 2, 1), signed=True)
        elif kind == "grouped":
            y = net.layer("conv", x, out=2 * config.lanes * int(random.integers(1, 3)))
            x = net.layer("conv", y, out=2 * config.lanes * int(random.integers(1, 3)), groups=2, kernel=(3, 3), padding=(1, 1, 1, 1))
        elif kind == "concat":
            zero = int(random.integers(0, 20))
            parts = [net.layer("conv", x, out=count, zero_point=zero) for count in (config.lanes * 2, config.lanes, out)]
            x = net.concat(parts)
        elif kind == "output":
            outputs.append(x)
    if random.random() < 0.4 and config.depthwise:
        x = net.layer("average_pool", x, kernel=net.tensors[x].shape[:2]) if max(net.tensors[x].shape[:2]) <= 16 else x
        x = net.layer("linear", x, out=int(random.integers(1, 40)), signed=True)
    x = net.layer("conv", x, out=3)
    return net.graph(*dict.fromkeys([name for name in outputs if name != net.input] + [x])), net


def check(graph, net, config, keep=("*",)):
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


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(6))
def test_random_networks(config, seed):
    graph, net = random_network(config, seed)
    check(graph, net, config)
    check(graph, net, config, keep=())


@pytest.mark.parametrize("config", [SMALL, BASE], ids=lambda config: config.name)
def test_mobilenet(config):
    graph, net = mobilenet_v2(config, size=32, bits=4, classes=10)
    program = check(graph, net, config)
    assert {mark.name for mark in program.marks} == {node.name for node in graph.nodes}
    indices = [index for mark in program.marks for index in mark.indices()]
    assert sorted(indices) == list(range(len(program.words) - 1))
    if config is BASE:
        assert compile_graph(graph, config, keep=("*",)).to_bytes() == program.to_bytes()


def test_errors_name_every_layer():
    net = NetworkBuilder(SMALL, input=(8, 8, 4), bits=8)
    x = net.layer("conv", net.input, out=8, name="stem")
    x = net.layer("depthwise", x, kernel=(3, 3), padding=(1, 1, 1, 1), name="middle")
    x = net.layer("max_pool", x, kernel=(2, 2), stride=2, name="pool")
    with pytest.raises(FitError) as caught:
        compile_graph(net.graph(x), TINY)
    assert caught.value.problems == (
        "middle: kind must be conv or linear, not depthwise (config tiny has no depthwise engine)",
        "pool: kind must be conv or linear, not max_pool (config tiny has no depthwise engine)",
    )
    assert str(caught.value).startswith("2 layers do not fit\n  middle: kind must be")


def test_layers_that_nothing_helps():
    net = NetworkBuilder(TINY, input=(9, 200, 32))
    x = net.layer("conv", net.input, out=8, kernel=(3, 3), name="wide")
    message = (
        r"^wide: input must need at most array_depth=256 words a bank for one output row, not \d+ \(take a config with more array_depth, "
    )
    with pytest.raises(FitError, match=message):
        compile_graph(net.graph(x), TINY)
    net = NetworkBuilder(TINY, input=(1, 1, 800))
    x = net.layer("linear", net.input, out=8, name="deep")
    message = r"^deep: input channels must need at most weight_depth=512 words a group of outputs, not 800 \(fewer channels, "
    with pytest.raises(FitError, match=message):
        compile_graph(net.graph(x), TINY)


def test_parameters_that_the_machine_lacks():
    free = replace(SMALL, name="free", per_channel_multiplier=True)
    net = NetworkBuilder(free, input=(8, 8, 4))
    x = net.layer("conv", net.input, out=8, name="stem")
    with pytest.raises(
        FitError, match=r"^stem: multipliers must be one a layer, not one for each of 8 channels \(config small stores none a channel; "
    ):
        compile_graph(net.graph(x), SMALL)
    net = NetworkBuilder(SMALL, input=(8, 8, 4), bits=8)
    x = net.layer("conv", net.input, out=8, name="stem")
    ternary = replace(SMALL, name="ternary", digit_set="ternary")
    with pytest.raises(FitError, match=r"^stem: weight_bits must be at most 2, not 8 \(a ternary machine has 1 digit planes\)$"):
        compile_graph(net.graph(x), ternary)
    net = NetworkBuilder(SMALL, input=(8, 8, 4))
    parts = [net.layer("conv", net.input, out=count, zero_point=3) for count in (6, 4)]
    with pytest.raises(FitError, match=r"^concat2: channels of layer0.out must be a multiple of lanes=4, not 6 \("):
        compile_graph(net.graph(net.concat(parts)), SMALL)


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


def test_more_tokens_than_a_counter_holds():
    """Grouped layers: 24 instructions in a row whose weights as many later loads overwrite, one after the other."""
    config = replace(TINY, weight_depth=1024, parameter_depth=256)
    net = NetworkBuilder(config, input=(2, 2, 96))
    x = net.input
    for _ in range(2):
        x = net.layer("conv", x, out=96, groups=24, kernel=(3, 3), padding=(1, 1, 1, 1))
    program = check(net.graph(x), net, config, keep=())
    assert estimate(program).cycles > 0


def test_ternary_machine():
    config = replace(SMALL, name="ternary", digit_set="ternary")
    graph, net = mobilenet_v2(config, size=32, bits=2, classes=10)
    check(graph, net, config, keep=("*.project",))


def test_keep_names_outputs():
    graph, _ = mobilenet_v2(SMALL, size=32, bits=2, classes=10, width=0.35)
    program = compile_graph(graph, SMALL, keep=("features.3.*", "pool"))
    names = [port.name for port in program.outputs]
    assert names == ["classifier.out", "features.3.expand.out", "features.3.depthwise.out", "features.3.project.out", "pool.out"]
    assert [port.name for port in program.inputs] == ["image"]
    inputs = program.inputs[0]
    assert inputs.address >= program.write_end or inputs.address + inputs.size <= program.write_base


def test_first_layer_reads_two_pixels_at_once():
    """Half the image's columns in memory, fewer steps, the same numbers."""
    net = NetworkBuilder(BASE, input=(20, 28, 3))
    x = net.layer("conv", net.input, out=16, kernel=(3, 3), padding=(1, 1, 1, 1), stride=2)
    graph = net.graph(x)
    program = check(graph, net, BASE)
    assert program.inputs[0].fold == 2
    assert program.inputs[0].shape == (20, 28, 3)
    steps = sum(
        instruction_cycles(opcode, values, BASE).events["step"] for opcode, values in program.instructions() if opcode is Opcode.ARRAY
    )
    assert steps == 10 * 2 * 2 * 4 * 3 * 2
    again = Program.from_bytes(program.to_bytes())
    assert again == program
    assert again.graph is not None
    assert again.graph.nodes[0].name == "layer0"


def test_passes_are_reported_and_written(tmp_path):
    net = NetworkBuilder(SMALL, input=(8, 8, 4))
    x = inverted_residual(net, net.input, out=4, stride=1, expand=2, name="block")
    passes = []
    compile_graph(net.graph(x), SMALL, dump=tmp_path, progress=passes.append)
    assert passes == ["legalize", "fold", "segment", "place", "emit", "order", "finish"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}_{name}.txt" for number, name in enumerate(passes)]
    assert "block.expand, block.depthwise, block.project" in (tmp_path / "2_segment.txt").read_text()


@pytest.mark.parametrize("config", [SMALL, LARGE, CONFIGS[3]], ids=lambda config: config.name)
def test_concatenation_by_address(config):
    """Producers store their channels right into the whole; only a tensor that is wanted by itself is copied."""
    net = NetworkBuilder(config, input=(12, 11, 5))
    stem = net.layer("conv", net.input, out=2 * config.lanes, kernel=(3, 3), padding=(1, 1, 1, 1))
    first = net.layer("conv", stem, out=2 * config.lanes, zero_point=3)
    second = net.layer("conv", stem, out=config.lanes, kernel=(3, 3), padding=(1, 1, 1, 1), zero_point=3)
    third = net.layer("conv", second, out=config.lanes + 3, zero_point=3)
    whole = net.concat([first, second, third], name="join")
    last = net.layer("conv", whole, out=7)
    for outputs, copied in (([last], 0), ([last, whole], 0), ([last, second], 1)):
        program = check(net.graph(*outputs), net, config, keep=())
        mark = next(mark for mark in program.marks if mark.name == "join")
        assert len(mark.instructions) == copied
