"""Networks of the zoo: shapes, names, paddings and options."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tercel.hw.config import BASE
from tercel.sim.tensors import input_codes
from tercel.sw import zoo
from tercel.sw.graph.codes import from_codes
from tercel.sw.graph.reference import run_reference
from tercel.sw.importer import import_exported
from tercel.sw.quantize import quantize
from tercel.sw.zoo.network import SameConv2d


@pytest.mark.parametrize(
    ("name", "options", "parameters", "classes"),
    [
        ("mobilenet_v2", {"size": 64}, 3_504_872, 1000),  # torchvision's count
        ("mobilenet_v2", {"width": 0.35, "size": 64, "classes": 7, "padding": "tensorflow"}, None, 7),
        ("mobilenet_v1", {"width": 0.25, "size": 64}, 470_072, 1000),  # Keras's count without the moving statistics
        ("resnet18", {"size": 64}, 11_689_512, 1000),  # torchvision's count
        ("resnet20", {}, 269_722, 10),
        ("resnet20_rprelu", {}, 274_346, 10),  # with the shortcuts and RPReLUs
        ("digits", {}, None, 10),
        ("digits_rprelu", {}, None, 10),
    ],
)
def test_networks_have_the_published_sizes(name, options, parameters, classes):
    network = zoo.build(name, **options)
    assert not network.training
    with torch.no_grad():
        assert network(network.example(2)).shape == (2, classes)
    if parameters is not None:
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_names_are_torchvisions():
    v2, resnet = zoo.build("mobilenet_v2"), zoo.build("resnet18")
    names = [name for name in v2.state_dict() if not name.endswith("num_batches_tracked")]
    assert len(names) == 52 * 5 + 2
    assert names[:6] == [f"features.0.{rest}" for rest in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var")] + [
        "features.1.conv.0.0.weight"
    ]
    assert {"features.1.conv.1.weight", "features.17.conv.1.0.weight", "features.17.conv.3.running_var", "features.18.0.weight"} <= set(
        names
    )
    assert names[-2:] == ["classifier.1.weight", "classifier.1.bias"]
    assert {"conv1.weight", "layer2.0.downsample.1.running_mean", "layer4.1.conv2.weight", "fc.bias"} <= set(resnet.state_dict())
    assert sum(1 for name in resnet.state_dict() if not name.endswith("num_batches_tracked")) == 102


def test_widths_follow_the_two_published_rules():
    v2 = zoo.build("mobilenet_v2", width=0.35)
    assert [v2.features[i].conv[-1].num_features for i in (1, 2, 4, 7, 11, 14, 17)] == [8, 8, 16, 24, 32, 56, 112]
    assert v2.classifier[1].in_features == 1280
    assert zoo.build("mobilenet_v2", width=1.4).classifier[1].in_features == 1792
    v1 = zoo.build("mobilenet_v1", width=0.25)
    assert [pair.conv[1][0].out_channels for pair in v1.features[1:]] == [16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256]
    assert [pair.conv[0][0].stride[0] for pair in v1.features[1:]] == [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]


def test_digits_suit_the_machine():
    network = zoo.build("digits")
    channels = [module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(count % 8 == 0 for count in channels)
    assert sum(getattr(module, "adds", False) for module in network.modules()) == 3


@pytest.mark.parametrize(
    ("side", "kernel", "expected"), [(8, 3, (0, 1, 0, 1)), (9, 3, (1, 1, 1, 1)), (8, 5, (1, 2, 1, 2)), (7, 2, (0, 1, 0, 1))]
)
def test_tensorflow_padding(side, kernel, expected):
    torch.manual_seed(0)
    conv = SameConv2d(2, 3, kernel, 2, bias=False)
    image = torch.randn(1, 2, side, side)
    result = conv(image)
    assert result.shape[-1] == -(-side // 2)
    torch.testing.assert_close(result, functional.conv2d(functional.pad(image, expected), conv.weight, stride=2))


def test_only_strided_kernels_are_padded_on_one_side():
    network = zoo.build("mobilenet_v2", padding="tensorflow", size=64)
    kinds = [type(module).__name__ for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert kinds.count("SameConv2d") == 5
    assert network.image_format.mean == (0.5, 0.5, 0.5)
    assert zoo.build("mobilenet_v2", padding="tensorflow", normalization="imagenet").image_format.std == (0.229, 0.224, 0.225)


def test_parameterless_shortcut_is_subsampling_with_zeros_around():
    network = zoo.build("resnet20")
    image = torch.randn(2, 16, 8, 8)
    expected = functional.pad(image[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
    assert torch.equal(network.layer2[0].shortcut(image), expected)
    assert not any("shortcut" in name for name in network.state_dict())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg", {}, r"network must be one of digits, .*mobilenet_v1, .*, not 'vgg' \(tercel\.quantize in Python takes any other\)"),
        ("mobilenet_v2", {"depth": 2}, r"mobilenet_v2 takes width, size, classes, padding, normalization, not 'depth' \(leave it out\)"),
        ("digits", {"size": 8}, r"digits takes no options, not 'size'"),
        ("mobilenet_v2", {"width": 0}, r"width must be a number in 0\.1\.\.4, not 0 "),
        ("mobilenet_v1", {"width": "1"}, r"width must be a number in 0\.1\.\.4, not '1' "),
        ("mobilenet_v1", {"size": 16}, r"size must be a whole number from 32 up, not 16 "),
        ("resnet20", {"classes": 0}, r"classes must be a whole number from 1 up, not 0 "),
        ("mobilenet_v2", {"padding": "same"}, r"padding must be one of symmetric, tensorflow, not 'same' "),
        ("mobilenet_v2", {"normalization": "none"}, r"normalization must be one of imagenet, unit, not 'none' "),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(zoo.ZooError, match=message):
        zoo.build(name, **options)


def test_importing_the_zoo_does_not_import_torch():
    code = "import sys, tercel.sw.zoo, tercel.sw.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v1", {"width": 0.25, "size": 32}),
        ("mobilenet_v2", {"width": 0.1, "size": 32, "padding": "tensorflow"}),
        ("resnet20", {"size": 16}),
    ],
)
def test_the_machine_takes_the_networks(name, options):
    torch.manual_seed(0)
    network = zoo.build(name, classes=10, **options)
    images = torch.randn(4, *network.example().shape[1:])
    graph = import_exported(quantize(network, calibration=images), config=BASE).graph
    codes = run_reference(graph, input_codes(graph, images.numpy()))[graph.outputs[0]]
    with torch.no_grad():
        expected = network(images).numpy()
    values = from_codes(graph.tensors[graph.outputs[0]], codes).reshape(expected.shape)
    assert np.corrcoef(values.ravel(), expected.ravel())[0, 1] > 0.99
