"""The public Python interface: compile, run on every machine, parts of networks, comparison, wrong input."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from small_networks import mobile_block, two_layers

import tercel
from tercel.hw.config import SMALL
from tercel.sim import network as network_module
from tercel.sim.execution import execute_program
from tercel.sim.parse import UsageError
from tercel.sim.tensors import InputError
from tercel.sw.graph.integer_graph import GraphError
from tercel.sw.image_format import ImageFormat
from tercel.sw.program import Program, ProgramError


@pytest.fixture(scope="module")
def network():
    return tercel.compile(mobile_block(), config=tercel.configs.small)


@pytest.fixture(scope="module")
def codes():
    return np.random.default_rng(0).integers(0, 256, (2, 6, 6, 8))


def test_importing_is_light():
    script = "import sys, tercel, tercel.sim.cli; print([n for n in ('torch', 'matplotlib', 'sklearn', 'jinja2') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_names():
    assert set(tercel.__all__) <= set(dir(tercel))
    assert tercel.configs.base.name == "base" and tercel.Config is type(SMALL)
    with pytest.raises(AttributeError, match=r"^module 'tercel' has no attribute 'nothing'$"):
        tercel.nothing  # noqa: B018  (to look it up is what fails)


def test_golden_and_reference_give_equal_results(network, codes):
    golden, reference = (network.run(codes, on=on) for on in ("golden", "reference"))
    np.testing.assert_array_equal(golden.codes["classifier_out"], reference.codes["classifier_out"])
    assert golden.output.shape == (2, 10) and golden.cycles is None
    np.testing.assert_allclose(golden.output, 0.1 * (golden.codes["classifier_out"][:, 0, 0].astype(float) - 128))
    assert [layer.name for layer in golden.layers] == ["block.expand", "block.depthwise", "block.project", "pool", "classifier"]


def test_floats_are_quantized_like_codes(network, codes):
    values = np.moveaxis(codes * 0.1, -1, 1)
    np.testing.assert_array_equal(network.run(values).output, network.run(codes).output)
    np.testing.assert_array_equal(network.run({"x": values[0]}).output, network.run(codes[:1]).output)


def test_parts_of_a_network_see_what_the_layers_before_make(network, codes):
    part = network.run(codes, on="golden", layers="block.*")
    assert set(part.outputs) == {"block.project_out"} and part.outputs["block.project_out"].shape == (2, 8, 6, 6)
    alone = network.run(codes, on="golden", layers="pool")
    np.testing.assert_array_equal(alone.codes["pool_out"], network.run(codes, on="reference", layers="p*").codes["pool_out"])
    with pytest.raises(GraphError, match=r"^pattern must match at least one layer, not 'blok' \(close: "):
        network.run(codes, layers="blok")


def test_save_and_load(network, codes, tmp_path):
    path = tmp_path / "block.tnpu"
    network.save(path)
    again = tercel.load(path)
    np.testing.assert_array_equal(again.run(codes).output, network.run(codes).output)
    assert repr(again) == repr(network)
    assert repr(network).startswith("CompiledNetwork(5 layers, 14768 MACs, ")
    assert again.program.image_format is None
    image_format = ImageFormat(size=6, mean=(0.5,), std=(0.25,))
    tercel.compile(two_layers(), config=SMALL, image_format=image_format).save(path)
    assert tercel.load(path).program.image_format == image_format


def test_a_program_without_graph_is_no_network(network):
    message = r"^program must hold the graph of a network, not instructions alone \(compile it from a network\)$"
    with pytest.raises(ProgramError, match=message):
        tercel.CompiledNetwork(replace(network.program, graph=None))


def test_comparison_finds_the_layer(network, codes, monkeypatch):
    assert tercel.compare(network, codes, "reference", "golden").equal
    assert len(tercel.compare(network, codes, "reference", "golden", layers="*").tensors) == 5

    def wrong(program: Program, inputs, **more):
        execution = execute_program(program, inputs, **more)
        last = len(execution.tensors["classifier_out"]) - 1
        execution.tensors["classifier_out"][last, 0, 0, 7] ^= 3
        if "pool_out" in execution.tensors:
            execution.tensors["pool_out"][last, 0, 0, 2] ^= 1
        return execution

    monkeypatch.setattr(network_module, "execute_program", wrong)
    found = network.compare(codes, "reference", "golden")
    assert (found.mismatch.layer, found.mismatch.image, found.mismatch.channel) == ("pool", 1, 2)
    part = network.compare(codes, "golden", "reference", layers="classifier")
    assert (part.mismatch.layer, part.mismatch.channel) == ("classifier", 7)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((6, 6, 8)), r"^x must have shape \[8, 6, 6\] \(channels, height, width of values\) with or .*, not \[6, 6, 8\]$"),
        (np.zeros((0, 8, 6, 6)), r"^x must have shape \[8, 6, 6\] \(channels, height, width of values\) .* not \[0, 8, 6, 6\]$"),
        (np.zeros((8, 6, 6), dtype=int), r"^x must have shape \[6, 6, 8\] \(height, width, channels of codes\) .*, not \[8, 6, 6\]$"),
        (np.full((6, 6, 8), 256), r"^x must hold codes in 0\.\.255, not 256\.\.256 \(or give floats\)$"),
        (np.full((8, 6, 6), np.nan), r"^x must be finite, not nan \(look for divisions by 0 before\)$"),
        ({"y": np.zeros((8, 6, 6))}, r"^x must hold x, not y \(a mapping by the inputs' names\)$"),
    ],
)
def test_wrong_input(network, x, message):
    with pytest.raises(InputError, match=message):
        network.run(x)


def test_wrong_machine(network, codes):
    message = r"^on must be reference, golden, verilator or board:PORT, not 'board' \(what to run the network on\)$"
    with pytest.raises(UsageError, match=message):
        network.run(codes, on="board")
