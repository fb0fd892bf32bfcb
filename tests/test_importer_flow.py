"""Networks as quantization flows leave them: the package's own and a stock quantizer of torchao; each layer beside its float operators."""

import re

import numpy as np
import pytest
import torch
from tflite_graph import PER_CHANNEL
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Interpreter

from tercel.hw.config import BASE, Config
from tercel.sw.graph.integer_graph import Activation, LayerNode
from tercel.sw.graph.reference import run_reference
from tercel.sw.graph.select import select_layers
from tercel.sw.importer import Imported, import_exported
from tercel.sw.quantize import quantize


class Network(nn.Module):
    """Batch norms, ReLU6 in place, a residual by ``+=``, branches that are joined, both kinds of pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True))
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True))
        self.project = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.left, self.right = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 12, 3, padding=1)
        self.pool, self.average, self.classifier = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.project(self.depthwise(x))
        y += x
        y = torch.cat([torch.relu(self.left(y)), torch.relu(self.right(y))], 1)
        return self.classifier(torch.flatten(self.average(self.pool(y)), 1))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Network().eval()


class Recorder(Interpreter):
    """Runs a captured network and keeps the codes that each quantize operator gives, by their numbers."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.module(check_guards=False))
        self.codes: dict[tuple[float, int, tuple[int, ...]], Tensor] = {}

    def run_node(self, node: torch.fx.Node) -> object:
        value = super().run_node(node)
        if "quantized_decomposed.quantize_per_tensor" in str(node.target):
            self.codes[(node.args[1], node.args[2], tuple(value.shape[1:]))] = value
        return value


def recorded(recorder: Recorder, tensor: Activation) -> np.ndarray | None:
    """The codes of a tensor of the graph, ``[batch, height, width, channels]``; None where the float network has none with its numbers."""
    height, width, channels = tensor.shape
    for shape in ((channels, height, width), *([(channels,)] if (height, width) == (1, 1) else [])):
        codes = recorder.codes.get((tensor.scale, tensor.zero_point, shape))
        if codes is not None:
            return codes.reshape(len(codes), channels, height, width).permute(0, 2, 3, 1).numpy()
    return None


def compare_layers(program: ExportedProgram, imported: Imported, images: Tensor) -> int:
    """Each layer on the codes that the float network has before it: no code is off by more than 1. Returns the layers compared."""
    graph, compared, codes, differing = imported.graph, 0, 0, 0
    for image in images:
        recorder = Recorder(program)
        recorder.run(image[None])
        for layer in graph.layers():
            inputs = {name: recorded(recorder, graph.tensors[name]) for name in layer.inputs}
            expected = recorded(recorder, graph.tensors[layer.output])
            if expected is None or layer.name.endswith(".requantize") or any(value is None for value in inputs.values()):
                continue
            result = run_reference(select_layers(graph, layer.name), inputs)[layer.output].astype(int)
            assert np.abs(result - expected).max() <= 1, layer.name
            differing += int((result != expected).sum())
            codes += result.size
            compared += 1
    assert differing / codes < 2e-3, differing / codes
    return compared // len(images)


def layer(imported: Imported, name: str) -> LayerNode:
    return next(layer for layer in imported.graph.layers() if layer.name == name)


@pytest.mark.parametrize(("scheme", "config"), [("shift8", BASE), ("per_channel", PER_CHANNEL), ("per_layer", BASE)])
def test_own_flow(scheme: str, config: Config, network: nn.Module, images: Tensor) -> None:
    """Every convolution is a layer under its module's name; the sum is inside one of them; nothing is rounded anew."""
    program = quantize(network, calibration=images, scheme=scheme)
    imported = import_exported(program, config=config, strict=True)
    assert imported.warnings == ()
    names = [node.name for node in imported.graph.nodes]
    assert names[:3] == ["stem.0", "depthwise.0", "project.0"]
    assert layer(imported, "project.0").spec.residual
    assert {"left", "right", "pool", "average", "classifier"} <= set(names)
    assert re.fullmatch(r"aten\.conv2d\.default, test_importer_flow\.py:\d+", layer(imported, "stem.0").source)
    assert compare_layers(program, imported, images[:4]) >= 7


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_stock_flow(per_channel: bool, network: nn.Module, images: Tensor) -> None:
    """Signed codes, float biases, quantizers before in-place activations: those fold, the sum becomes a layer."""
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    stock = pytest.importorskip("torchao.testing.pt2e._xnnpack_quantizer")
    captured = torch.export.export(network, (images[:1],)).module(check_guards=False)
    numbers = stock.get_symmetric_quantization_config(is_per_channel=per_channel)
    prepared = pt2e.prepare_pt2e(captured, stock.XNNPACKQuantizer().set_global(numbers))
    for image in images:
        prepared(image[None])
    program = torch.export.export(pt2e.convert_pt2e(prepared), (images[:1],))
    imported = import_exported(program, config=PER_CHANNEL if per_channel else BASE, strict=True)
    names = [node.name for node in imported.graph.nodes]
    assert names == [
        "stem.0",
        "depthwise.0",
        "project.0",
        "add",
        "left",
        "right",
        "right.requantize",
        "cat",
        "pool",
        "average",
        "classifier",
    ]
    assert layer(imported, "stem.0").spec.low == layer(imported, "stem.0").spec.z_out
    assert compare_layers(program, imported, images[:4]) >= 5
