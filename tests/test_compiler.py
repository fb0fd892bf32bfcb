"""Compiled networks on the golden model against the numeric contract, layer by layer."""

from dataclasses import replace

import numpy as np
import pytest
from compiled_networks import NetworkBuilder, inverted_residual, mobilenet_v2
from compiled_programs import CONFIGS, check

from tercel.hw.config import BASE, LARGE, SMALL, TINY, Config
from tercel.hw.isa import Opcode
from tercel.sw.compiler import FitError, compile_graph
from tercel.sw.cycles import instruction_cycles
from tercel.sw.estimate import estimate
from tercel.sw.program import Program


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
