"""Networks with operators on the host: the same before a file and after it, in Python and on the command line, on every machine."""

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from qdq_models import Conv, Net, Quant, Weight
from torch import nn

import tercel
from tercel.hw.config import SMALL
from tercel.sim import execution as execution_module
from tercel.sim.backend import GoldenBackend
from tercel.sim.cli import main
from tercel.sim.quantized_file import save_quantized_file
from tercel.sim.tensors import InputError
from tercel.sw.host import HostError, HostInput
from tercel.sw.program import Program, ProgramError

ALLOWED = ("sub", "div", "softmax", "argmax", "sigmoid", "mul")


class Network(nn.Module):
    """Normalized on the host; returns logits, probabilities, the best class, and a picture gated as in SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6])[None, :, None, None])
        self.conv, self.linear = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.relu(self.conv((x - self.mean) / 0.25))
        logits = self.linear(y.mean((2, 3)))
        return logits, torch.softmax(logits, 1), logits.argmax(1), y * torch.sigmoid(y)


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def quantized(images):
    torch.manual_seed(0)
    return tercel.quantize(Network().eval(), calibration=[images])


@pytest.fixture(scope="module")
def network(quantized):
    return tercel.compile(quantized, config=SMALL, allow_host=ALLOWED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, quantized, images):
    """The network as files, compiled on the command line."""
    folder = tmp_path_factory.mktemp("host")
    save_quantized_file(quantized, folder / "net.tq", image_format=None)
    np.save(folder / "images.npy", images.numpy())
    allowed = [argument for name in ALLOWED for argument in ("--allow-host", name)]
    assert main(["compile", str(folder / "net.tq"), "--config", "small", "-o", str(folder / "net.tnpu"), *allowed]) == 0
    return folder


def test_what_the_quantized_network_returns(network, quantized, images):
    """Logits as codes of the machine, the others from the host; the graph was captured for one image, the host takes any number."""
    found = list(network.run(images).outputs.values())
    module = quantized.module()
    expected = [torch.cat(values).numpy() for values in zip(*(module(image[None]) for image in images), strict=True)]
    assert [value.shape for value in found] == [(4, 5), (4, 5), (4,), (4, 8, 4, 4)] == [value.shape for value in expected]
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-5)
    assert found[2].dtype == np.int64 and network.run(images).output is not None


def test_a_file_brings_the_same_network_back(network, images, tmp_path):
    path = tmp_path / "net.tnpu"
    network.save(path)
    again = tercel.load(path)
    assert (again.program.host_head, again.program.host_tail) == (network.program.host_head, network.program.host_tail)
    assert again.program.to_bytes() == path.read_bytes() == network.program.to_bytes()
    for given in (images, images.numpy().astype(np.float64), images[0], {"x": images}):
        equal(again.run(given), network.run(given))
    equal(again.run(images, on="reference"), network.run(images))


def equal(one, other) -> None:
    assert list(one.outputs) == list(other.outputs) and list(one.codes) == list(other.codes)
    for name, values in one.outputs.items():
        assert values.dtype == other.outputs[name].dtype
        np.testing.assert_array_equal(values, other.outputs[name])


def test_codes_pass_the_host_before_the_layers_by(network, images):
    codes = network.inputs(images)
    equal(network.run(codes), network.run(images))
    (only,) = codes.values()
    equal(network.run(only), network.run(images))


def test_a_machine_behind_a_link_gives_the_same(network, images, monkeypatch):
    class Linked(GoldenBackend):
        def close(self) -> None:
            raise AssertionError("closed as a golden model")

    monkeypatch.setitem(execution_module.LINKED, "bench", lambda where, progress: Linked())
    equal(network.run(images, on="bench:1"), network.run(images))


def test_comparisons(network, quantized, images):
    found = network.compare(images, "reference", "golden")
    assert found.equal and {tensor.tensor for tensor in found.tensors} == set(network.graph.outputs)
    assert network.compare(images, "reference", "golden", layers="*").equal
    assert network.compare(images, "fake-quantized", "golden", quantized=quantized).reaches(60)
    with pytest.raises(InputError, match=r"^x must be one tensor of floats, not codes or several \(operators run on the host before "):
        network.compare(network.inputs(images), "fake-quantized", "golden", quantized=quantized)


def test_parts_are_of_the_machine_alone(network, images):
    part = network.run(images, layers="linear")
    assert list(part.outputs) == list(part.codes) and part.output.shape == (4, 5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 8, 9)), r"^x must have shape \[3, 8, 8\] \(of values\) with or without a batch, not \[3, 8, 9\]$"),
        (np.zeros((0, 3, 8, 8)), r"^x must have shape \[3, 8, 8\] .*, not \[0, 3, 8, 8\]$"),
        (np.full((3, 8, 8), np.inf), r"^x must be finite, not inf \(look for divisions by 0 before\)$"),
        ({"y": np.zeros((3, 8, 8))}, r"^x must hold x, not y \(a mapping by the inputs' names\)$"),
    ],
)
def test_wrong_input(network, x, message):
    with pytest.raises(InputError, match=message):
        network.run(x)


def test_what_the_host_makes_must_be_finite(images):
    class Logarithm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(torch.log(x))

    model = tercel.quantize(Logarithm().eval(), calibration=[images + 0.5])
    network = tercel.compile(model, config=SMALL, allow_host=["log"])
    assert network.run(images + 0.5).output.shape == (4, 4, 8, 8)
    with pytest.raises(HostError, match=r"^log must be finite, not -inf \(what the operators on the host make of the input\)$"):
        network.run(images * 0)


def test_the_command_line_runs_the_file(folder, network, images, capsys, tmp_path):
    assert (folder / "net.tnpu").read_bytes() == network.program.to_bytes()
    capsys.readouterr()
    written = tmp_path / "out.npz"
    arguments = ["run", str(folder / "net.tnpu"), "-i", str(folder / "images.npy")]
    for on in ("golden", "reference"):
        assert main([*arguments, "--on", on, "--json", "-o", str(written)]) == 0
        found, arrays = json.loads(capsys.readouterr().out), np.load(written)
        for name, values in network.run(images).outputs.items():
            np.testing.assert_array_equal(np.asarray(found["outputs"][name]["values"], dtype=values.dtype), values)
            np.testing.assert_array_equal(arrays[name], values)
        assert "codes" in found["outputs"]["linear"] and "codes" not in found["outputs"]["softmax"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "softmax: class (value)" in text and "argmax" in text and "mul: 4x8x4x4, " in text
    assert main(["compare", *arguments[1:], "--on", "reference,golden"]) == 0
    assert main([*arguments, "--normalization", "imagenet"]) == 0
    np.save(folder / "wrong.npy", np.zeros((2, 8, 8)))
    assert main(["run", str(folder / "net.tnpu"), "-i", str(folder / "wrong.npy")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("tercel: x must have shape [3, 8, 8] (of values) with or without a batch")


def test_the_command_line_tells_of_the_host(folder, tmp_path, capsys):
    arguments = [str(folder / "net.tq"), "--config", "small", "--allow-host"]
    assert main(["compile", *arguments, "softmax", "-o", str(tmp_path / "net.tnpu")]) == 3
    assert main(["explain", *arguments, "gelu"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("tercel: allow_host must name operators of the host, not 'gelu' (they are ")
    allowed = [argument for name in ALLOWED for argument in ("--allow-host", name)]
    assert main(["compile", str(folder / "net.tq"), "--config", "small", "-o", str(tmp_path / "net.tnpu"), *allowed]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "tercel: softmax runs on the host, after the layers" in lines and "tercel: sub runs on the host, before the layers" in lines
    assert main(["disasm", str(folder / "net.tnpu")]) == 0
    text = capsys.readouterr().out.splitlines()
    assert text[0] == "# host: sub = sub(x, constant.0)" and "# host: argmax = argmax(linear, dim=1, keep=False)" in text[-5:]
    page = tmp_path / "net.html"
    assert main(["report", str(folder / "net.tnpu"), "-o", str(page), "--quantized", str(folder / "net.tq")]) == 0
    text = page.read_text()
    assert "<dt>host, before the layers</dt><dd>sub, div</dd>" in text and "rejected" not in text


def rewritten(program: Program, **changes: object) -> bytes:
    """The file with a changed manifest in a whole archive."""
    with zipfile.ZipFile(io.BytesIO(program.to_bytes())) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents["manifest.json"]) | changes
    contents["manifest.json"] = json.dumps({name: value for name, value in manifest.items() if value is not None}).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_views_of_one_tensor_and_two_inputs(tmp_path):
    """A tensor of the machine enters the host once, whatever shapes it is read in; an input may be quantized without the host."""

    def run(net: Net, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        picture = net.o(net.conv(net.i(x * 2)) + net.j(y))
        gate = torch.sigmoid(picture)
        softmax = torch.softmax(torch.flatten(picture, 1), 1)
        return picture, softmax, gate.permute(0, 2, 3, 1), 1 - torch.cat([gate, gate], 1)[:, 2:-1]

    class Two(Net):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return run(self, x, y)

    conv = Conv(Weight((3, 3, 1, 1)))
    model = Two(run, i=Quant(0.02, 3), j=Quant(0.02, 3), conv=conv, o=Quant(0.05))
    examples = tuple(torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    program = torch.export.export(model.eval(), examples)
    network = tercel.compile(program, config=SMALL, allow_host=["mul", "softmax", "sigmoid", "permute", "cat", "slice", "rsub"])
    assert [entry.shape for entry in network.program.host_tail.inputs] == [(3, 4, 4)]
    given = dict(zip("xy", examples, strict=True))
    found = network.run(given)
    network.save(tmp_path / "two.tnpu")
    equal(tercel.load(tmp_path / "two.tnpu").run(given), found)
    for values, wanted in zip(found.outputs.values(), model(*examples), strict=True):
        np.testing.assert_allclose(values, wanted.numpy(), atol=0.051)
    with pytest.raises(InputError, match=r"^x must hold x, y, not x \(a mapping by the inputs' names\)$"):
        network.run(examples[0])
    with pytest.raises(InputError, match=r"^x must have one batch size, not \{'x': 2, 'y': 1\} \(give every input as many images\)$"):
        network.run({"x": examples[0], "y": examples[1][:1]})


def test_versions_of_the_file(network):
    """Only a file that would be run wrongly without the host is of the later version."""

    def version(program: Program) -> int:
        with zipfile.ZipFile(io.BytesIO(program.to_bytes())) as archive:
            return json.loads(archive.read("manifest.json"))["format_version"]

    assert version(network.program) == 3
    assert version(replace(network.program, host_head=None, host_tail=None)) == 2
    with pytest.raises(ProgramError, match=r"^format_version must be 2 or 3, not 4 \(use the release that wrote it\)$"):
        Program.from_bytes(rewritten(network.program, format_version=4))
    with pytest.raises(ProgramError, match=r"^manifest\.json must describe a program, but 'host' is missing or of another type \("):
        Program.from_bytes(rewritten(network.program, host=None))
    with pytest.raises(HostError, match=r"^version of the operators on the host must be 1, not 2 \(use the release that wrote it\)$"):
        Program.from_bytes(rewritten(network.program, host={"version": 2}))


def test_the_host_must_fit_the_layers(network):
    program = network.program
    head, tail = program.host_head, program.host_tail
    with pytest.raises(HostError, match=r"^outputs of the host's part before the layers must be div, not sub \(tensors of the layers\)$"):
        replace(program, host_head=replace(head, outputs=("sub",)))
    with pytest.raises(HostError, match=r"^inputs of the host's part after the layers must be linear, .*, not x \(tensors of "):
        replace(program, host_tail=head)
    entries = tuple(HostInput(entry.name, (7,)) if entry.name == "linear" else entry for entry in tail.inputs)
    with pytest.raises(HostError, match=r"^linear must have 5 elements on the host, not 7 \(as in the layers\)$"):
        replace(program, host_tail=replace(tail, inputs=entries))
    with pytest.raises(ProgramError, match=r"^graph must be given with operators on the host, not left out \("):
        replace(program, graph=None)


def test_damaged_files_are_refused(network):
    data = network.program.to_bytes()
    random = np.random.default_rng(5)
    for place in random.integers(len(data), size=150):
        damaged = bytearray(data)
        damaged[place] ^= 1 << random.integers(8)
        try:
            again = Program.from_bytes(bytes(damaged))
        except (ProgramError, HostError):
            continue
        assert (again, again.host_head, again.host_tail) == (network.program, network.program.host_head, network.program.host_tail)
