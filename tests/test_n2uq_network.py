"""N2UQ on networks: trained a little, converted, imported, compiled for the small machine."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional

from tercel.hw.config import SMALL
from tercel.sim.execution import execute_program
from tercel.sim.float_execution import execute_fake_quantized
from tercel.sim.tensors import input_codes
from tercel.sw.compiler import compile_graph
from tercel.sw.graph.codes import from_codes
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.graph.reference import run_reference
from tercel.sw.image_format import ImageFormat
from tercel.sw.importer import UnsupportedError, import_exported
from tercel.sw.training import TRAINING_SCHEMES, convert, parameter_groups, prepare
from tercel.sw.training.n2uq.learned_thresholds import LearnedThresholds
from tercel.sw.training.n2uq.odd_weights import OddWeights
from tercel.sw.training.n2uq.rprelu import RPReLU
from tercel.sw.zoo.digits_data import SIZE, digits_part
from tercel.sw.zoo.network import ImageNetwork
from tercel.sw.zoo.resnet20 import ResNet20
from tercel.sw.zoo.rprelu_resnet import RPReLUResNet

FORMAT = ImageFormat(size=SIZE, mean=(0.0,), std=(1.0,))
BITS = (2, 3, 4)


@cache
def digits(part: str) -> tuple[Tensor, Tensor]:
    data = digits_part(part)
    return torch.from_numpy(data.normalized()), torch.from_numpy(data.labels)


def fit(model: nn.Module, *, steps: int, lr: float) -> None:
    images, labels = digits("train")
    optimizer = torch.optim.Adam(parameter_groups(model, lr=lr))
    random = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(labels), (32,), generator=random)
        optimizer.zero_grad()
        functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    model.eval()


@cache
def trained(kind: str) -> ImageNetwork:
    torch.manual_seed(1)
    network: ImageNetwork
    if kind == "rprelu":
        network = RPReLUResNet(stem=8, widths=(8, 16), blocks=1, classes=10, image_format=FORMAT)
    else:
        network = ResNet20(classes=10, image_format=FORMAT, widths=(8, 8, 16), blocks=1)
    fit(network, steps=60, lr=6e-3)
    return network


@cache
def quantized(kind: str, bits: int) -> tuple[nn.Module, ExportedProgram, IntegerGraph]:
    """The network with rounding modules after some steps, its program, and its integers."""
    prepared = prepare(trained(kind), example=digits("train")[0][:64], scheme="n2uq", bits=bits)
    fit(prepared, steps=40, lr=2e-3)
    program = convert(prepared)
    return prepared, program, import_exported(program, config=SMALL).graph


CASES = [("rprelu", 2), ("rprelu", 3), ("rprelu", 4), ("relu", 3)]


@pytest.mark.parametrize(("kind", "bits"), CASES)
def test_integers_answer_as_the_rounded_network(kind: str, bits: int) -> None:
    prepared, _, graph = quantized(kind, bits)
    images, labels = digits("test")
    with torch.no_grad():
        expected = prepared(images).argmax(1)
    codes = run_reference(graph, input_codes(graph, images.numpy()))[graph.outputs[0]]
    found = torch.from_numpy(codes.reshape(len(codes), -1).argmax(axis=1))
    # One image of 397 is 0.25 points.
    assert abs(int((found == labels).sum()) - int((expected == labels).sum())) <= 1
    assert (found != expected).float().mean() <= 0.01
    assert (found == labels).float().mean() > 0.4


@pytest.mark.parametrize("bits", BITS)
def test_nothing_is_float_between_layers(bits: int) -> None:
    """Each block is three layers: thresholds on the sums so far, a convolution with thresholds, one that adds to the sums."""
    _, program, graph = quantized("rprelu", bits)
    layers = {layer.name: layer.spec for layer in graph.layers()}
    assert not import_exported(program, config=SMALL).warnings
    assert list(layers) == [
        "conv1", "layer1.0.prelu1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.downsample.0", "layer2.0.prelu1", "layer2.0.conv1",
        "layer2.0.conv2", "avgpool", "fc",
    ]  # fmt: skip
    counting = {name for name, spec in layers.items() if spec.thresholds}
    assert counting == {"layer1.0.prelu1", "layer1.0.conv1", "layer2.0.prelu1", "layer2.0.conv1"}
    for name, spec in layers.items():
        assert not spec.thresholds or (spec.thresholds, spec.multiplier, spec.shift) == ((1 << bits) - 1, 256, 8)
        odd = name.endswith((".conv1", ".conv2", "downsample.0"))
        assert (spec.weight_bits, spec.gain, spec.weight_offset) == (bits, 2, 1) if odd else spec.gain == 1
    assert {name for name, spec in layers.items() if spec.residual} == {"layer1.0.conv2", "layer2.0.conv2"}


@pytest.mark.parametrize(("kind", "bits"), [("rprelu", 2), ("rprelu", 4), ("relu", 3)])
def test_golden_equals_reference(kind: str, bits: int) -> None:
    _, _, graph = quantized(kind, bits)
    codes = input_codes(graph, digits("test")[0][:1].numpy())
    expected = run_reference(graph, codes, keep=True)
    tensors = execute_program(compile_graph(graph, SMALL, keep=["*"]), codes, on="golden").tensors
    assert len(tensors) == len(graph.nodes)
    for name, values in tensors.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_fake_quantized_values_of_all_layers() -> None:
    """For ``tercel compare``: a value halfway between two codes may go either way, and so what follows from it."""
    _, program, graph = quantized("rprelu", 3)
    images = digits("test")[0][:8].numpy()
    found = execute_fake_quantized(graph, program, images)
    assert set(found) == {node.output for node in graph.nodes}
    codes = run_reference(graph, input_codes(graph, images), keep=True)
    for name, values in found.items():
        steps = np.abs(values - from_codes(graph.tensors[name], codes[name])) / graph.tensors[name].scale
        assert (steps > 0.5).mean() < 0.1, name


def test_which_quantizers_a_network_gets() -> None:
    prepared = prepare(trained("relu"), example=digits("train")[0][:64], scheme="n2uq", bits={"layer1*": 2, "layer2.0.conv1": 6})
    modules = dict(prepared.named_modules())
    thresholds = {name: module.bits for name, module in modules.items() if isinstance(module, LearnedThresholds)}
    # Only what a layer of few bits alone reads; sums are read by the next sum as well. As many bits as the weights.
    assert thresholds == {f"layer{group}.0.relu1.activation_quantizer": width for group, width in ((1, 2), (2, 4), (3, 4))}
    odd = {name: module.bits for name, module in modules.items() if isinstance(module, OddWeights)}
    widths = {"layer1.0.conv1": 2, "layer1.0.conv2": 2, "layer2.0.conv2": 4, "layer3.0.conv1": 4, "layer3.0.conv2": 4}
    assert odd == {f"{name}.weight_quantizer": width for name, width in widths.items()}


def test_activation_bits_of_a_scheme() -> None:
    scheme = replace(TRAINING_SCHEMES["n2uq"], activation_bits=3)
    prepared = prepare(trained("rprelu"), example=digits("train")[0][:64], scheme=scheme, bits=2)
    assert {module.bits for module in prepared.modules() if isinstance(module, LearnedThresholds)} == {3}
    assert {module.bits for module in prepared.modules() if isinstance(module, OddWeights)} == {2}


def test_rprelu_needs_thresholds_behind_it() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3), RPReLU(8), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
    program = convert(prepare(network, example=digits("train")[0][:8], scheme="n2uq", bits=8))
    text = (
        r"1.prelu: aten.prelu.default at rprelu.py:\d+: operator must be a supported one, not prelu \(use relu, or thresholds behind it: "
    )
    with pytest.raises(UnsupportedError, match=text):
        import_exported(program, config=SMALL)


class Preactivated(nn.Module):
    """Batch norm and ReLU before a convolution, on a sum that others read too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.last = nn.Linear(8, 10)
        with torch.no_grad():
            self.norm.weight.copy_(torch.linspace(-1, 1, 8))
            self.norm.bias.copy_(torch.linspace(0.3, -0.2, 8))
            self.norm.running_mean.copy_(torch.linspace(-0.1, 0.1, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv(functional.relu(self.norm(x)))
        return self.last(x.mean((2, 3)))


def test_batch_norm_by_itself_goes_into_thresholds() -> None:
    torch.manual_seed(0)
    prepared = prepare(Preactivated().eval(), example=digits("train")[0][:32], scheme="n2uq", bits=3)
    assert prepared.get_parameter("norm.weight").min() < 0
    graph = import_exported(convert(prepared), config=SMALL).graph
    images = digits("test")[0][:50]
    with torch.no_grad():
        expected = prepared(images).double().numpy()
    (output,) = graph.outputs
    found = from_codes(graph.tensors[output], run_reference(graph, input_codes(graph, images.numpy()))[output]).reshape(expected.shape)
    assert np.abs(found - expected).max() <= 2.1 * graph.tensors[output].scale
    assert sum(layer.spec.thresholds == 7 for layer in graph.layers()) == 1
