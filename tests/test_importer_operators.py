"""The importer against the captured networks themselves: what stands around convolutions, in all its forms."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from qdq_models import Bias, Conv, Linear, Net, Quant, Weight, agree, only, sandwich
from torch import Tensor, nn

SHIFTED = [0.004 * 2.0 ** -(index % 5) for index in range(16)]


ACTIVATIONS = {
    "relu": (nn.ReLU(), -7, 127),
    "relu in place": (nn.ReLU(inplace=True), -7, 127),
    "relu6": (nn.ReLU6(), -7, 54),
    "relu6 in place": (nn.ReLU6(inplace=True), -7, 54),
    "hardtanh": (nn.Hardtanh(-1.0, 2.0), -17, 13),
    "clamp": (Net(lambda net, x: torch.clamp(x, min=-2.5)), -32, 127),
    "clamp_": (Net(lambda net, x: x.clamp_(max=3.0)), -128, 23),
    "functional": (Net(lambda net, x: F.relu6(x)), -7, 54),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_clamps(name: str) -> None:
    module, low, high = ACTIVATIONS[name]
    imported = agree(sandwich(nn.Sequential(Conv(Weight((16, 6, 1, 1))), module)), 6, 5, 5)
    spec = only(imported.graph).spec
    assert (spec.low, spec.high) == (low, high)
    assert [
        (report.verdict, report.reason) for report in imported.operators if "conv2d" not in report.operator and "aten" in report.operator
    ] == [("fused", "in layer 1.0.conv2d")]


@pytest.mark.parametrize("bias", [False, True])
def test_linear(bias: bool) -> None:
    layer = only(agree(sandwich(Linear(Weight((20, 30)), Bias(20, 0.0002) if bias else None)), 30, batch=40).graph)
    assert (layer.spec.kind, layer.spec.input, layer.spec.out, layer.name) == ("linear", (1, 1, 30), 20, "1.linear")


@pytest.mark.parametrize("flatten", [nn.Flatten(), Net(lambda net, x: x.view(x.shape[0], -1)), Net(lambda net, x: x.reshape(-1, 60))])
def test_linear_of_an_image(flatten: nn.Module) -> None:
    """A convolution by the whole image, with the columns of the weights in its order."""
    weight = Weight((20, 60), scales=0.005)
    layer = only(agree(sandwich(nn.Sequential(flatten, Linear(weight))), 5, 4, 3, batch=40).graph)
    assert (layer.spec.kind, layer.spec.kernel, layer.spec.output) == ("conv", (4, 3), (1, 1, 20))
    np.testing.assert_array_equal(layer.weights, weight.codes.numpy().reshape(20, 5, 4, 3).transpose(0, 2, 3, 1))


def test_views_between_quantizers() -> None:
    """Quantize and dequantize around a view that keep the scale are nothing."""
    model = nn.Sequential(Quant(0.02, 3), nn.Flatten(), Quant(0.02, 3), nn.Dropout(), Linear(Weight((20, 60), scales=0.005)), Quant(0.0987))
    assert len(agree(model, 5, 4, 3, batch=40).graph.nodes) == 1


def residual_block(add: Callable[[Tensor, Tensor], Tensor], *, depthwise: bool = False, order: bool = False) -> nn.Module:
    def run(net: Net, x: Tensor) -> Tensor:
        x = net.input(x)
        y = net.conv(x)
        return net.output(add(x, y) if order else add(y, x))

    weight = Weight((16, 1, 3, 3), scales=SHIFTED) if depthwise else Weight((16, 16, 1, 1), scales=SHIFTED)
    options = {"groups": 16, "padding": 1} if depthwise else {}
    return Net(run, input=Quant(0.02, 3), conv=Conv(weight, **options), output=Quant(0.0512, -9))


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(
    "add", [lambda a, b: a + b, lambda a, b: a.add_(b) if a.requires_grad else a + b, lambda a, b: F.relu(a + b), torch.add]
)
def test_residual_in_the_convolution(add: Callable[[Tensor, Tensor], Tensor], depthwise: bool, order: bool) -> None:
    """One layer, one rounding; on the array also where the convolution is depthwise."""
    imported = agree(residual_block(add, depthwise=depthwise, order=order), 16, 5, 5)
    layer = only(imported.graph)
    assert (layer.spec.kind, layer.spec.residual, layer.residual) == ("conv", True, layer.input)
    ratio = layer.spec.res_multiplier * 2.0 ** (layer.spec.res_shift - layer.spec.shift)
    assert ratio == pytest.approx(0.02 / 0.0512, rel=2**-15)
    report = next(report for report in imported.operators if ".add" in report.operator)
    assert (report.verdict, report.reason) == ("fused", "in layer conv.conv2d")


def test_residual_in_place() -> None:
    """``y += x`` after the convolution; ``y`` is the sum from there on."""

    def run(net: Net, x: Tensor) -> Tensor:
        x = net.input(x)
        y = net.conv(x)
        y += x
        F.relu_(y)
        return net.output(y)

    net = Net(run, input=Quant(0.02, 3), conv=Conv(Weight((16, 16, 1, 1), scales=SHIFTED)), output=Quant(0.0512, -9))
    layer = only(agree(net, 16, 5, 5).graph)
    assert (layer.spec.residual, layer.spec.low) == (True, -9)


def test_sum_of_two_tensors() -> None:
    """A layer of its own: a weight of 1 a channel, and the residual; the finer scale is the input."""

    def run(net: Net, x: Tensor) -> Tensor:
        x = net.input(x)
        y = net.middle(net.conv(x))
        return net.output(F.relu(x + y))

    net = Net(run, input=Quant(0.02, 3), conv=Conv(Weight((16, 16, 1, 1))), middle=Quant(0.011, 5), output=Quant(0.04, -100))
    imported = agree(net, 16, 5, 5, share=0.02)
    conv, add = imported.graph.layers()
    assert (add.name, add.input, add.residual) == ("add", conv.output, "x")
    assert (add.spec.groups, add.spec.weight_bits, add.spec.low) == (2, 2, -100)
    np.testing.assert_array_equal(add.weights[:, 0, 0], np.tile(np.eye(8), (2, 1)))


@pytest.mark.parametrize(
    ("pool", "kernel", "output"),
    [
        (nn.AvgPool2d(3, stride=2), (3, 3), (3, 3)),
        (nn.AvgPool2d(3, stride=2, padding=1), (3, 3), (4, 4)),
        (nn.AdaptiveAvgPool2d(1), (7, 7), (1, 1)),
        (nn.AdaptiveAvgPool2d((7, 1)), (1, 7), (7, 1)),
        (Net(lambda net, x: x.mean((2, 3), keepdim=True)), (7, 7), (1, 1)),
        (Net(lambda net, x: x.mean([-1, -2])), (7, 7), (1, 1)),
        (nn.AvgPool2d((7, 5), stride=(7, 2)), (7, 5), (1, 2)),
    ],
)
def test_average_pools(pool: nn.Module, kernel: tuple[int, int], output: tuple[int, int]) -> None:
    layer = only(agree(sandwich(pool, scale=0.004, zero_point=5), 10, 7, 7, batch=20, share=0.01).graph)
    assert (layer.spec.kind, layer.spec.kernel, layer.spec.output) == ("average_pool", kernel, (*output, 10))


def test_average_over_a_large_image() -> None:
    """Two steps, with a warning."""
    program = agree(sandwich(nn.AdaptiveAvgPool2d(1), scale=0.02, zero_point=3), 4, 32, 18, batch=20, share=0.5, at_least=3)
    first, second = program.graph.layers()
    assert (first.spec.kernel, first.spec.dilation, second.spec.kernel) == ((16, 9), (2, 2), (2, 2))
    assert program.warnings == (
        "1: window of the average should be at most 16 pixels high and wide, not 32x18 (it runs in two steps with a rounding between them)",
    )


@pytest.mark.parametrize(
    ("pool", "padding", "output"),
    [
        (nn.MaxPool2d(2), (0, 0, 0, 0), (3, 3)),
        (nn.MaxPool2d(3, stride=2, padding=1), (1, 1, 1, 1), (4, 4)),
        (nn.MaxPool2d(2, ceil_mode=True), (0, 0, 1, 1), (4, 4)),
        (nn.MaxPool2d(2, stride=1, dilation=3), (0, 0, 0, 0), (4, 4)),
    ],
)
def test_max_pools(pool: nn.Module, padding: tuple[int, ...], output: tuple[int, int]) -> None:
    layer = only(agree(sandwich(pool, scale=0.02, zero_point=3), 10, 7, 7, share=0.0).graph)
    assert (layer.spec.kind, layer.spec.padding, layer.spec.output) == ("max_pool", padding, (*output, 10))


def test_max_pool_before_the_quantizer() -> None:
    """conv, relu, pool, quantize: the maximum and the rounding change places."""
    model = sandwich(nn.Sequential(Conv(Weight((16, 6, 3, 3), scales=0.004)), nn.ReLU(), nn.MaxPool2d(2)))
    conv, pool = agree(model, 6, 9, 9).graph.layers()
    assert (conv.spec.low, pool.spec.kind, pool.spec.z_in) == (-7, "max_pool", -7)


def test_max_pool_and_another_scale() -> None:
    pool, requantized = agree(sandwich(nn.MaxPool2d(2), scale=0.03), 8, 6, 6).graph.layers()
    assert (pool.spec.kind, requantized.spec.kind, requantized.spec.output) == ("max_pool", "conv", (3, 3, 8))


@pytest.mark.parametrize("quantized", [False, True])
def test_padding_before_a_convolution(quantized: bool) -> None:
    """Folded, with or without quantizers between the two."""
    between = [Quant(0.02, 3)] if quantized else []
    model = sandwich(nn.Sequential(nn.ZeroPad2d((0, 1, 2, 3)), *between, Conv(Weight((16, 6, 3, 3), scales=0.004), padding=1)))
    assert only(agree(model, 6, 8, 8).graph).spec.padding == (3, 1, 4, 2)


def test_padding_before_an_average() -> None:
    model = sandwich(nn.Sequential(nn.ConstantPad2d((1, 0, 1, 0), 0.0), nn.AvgPool2d(2)), scale=0.0107)
    assert only(agree(model, 6, 7, 7, share=0.02).graph).spec.padding == (1, 1, 0, 0)


@pytest.mark.parametrize("relu", [False, True])
def test_padding_before_a_maximum(relu: bool) -> None:
    """Zeros that may win are stored; after a ReLU they cannot."""
    conv = nn.Sequential(Conv(Weight((8, 6, 1, 1))), *([nn.ReLU()] if relu else []), Quant(0.0987, -7))
    model = nn.Sequential(Quant(0.02, 3), conv, nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2), Quant(0.0987, -7))
    graph = agree(model, 6, 7, 7).graph
    assert [layer.spec.kind for layer in graph.layers()] == (["conv", "max_pool"] if relu else ["conv", "conv", "max_pool"])


def test_padding_that_is_stored() -> None:
    """Before a sum there is no window that could fold it."""

    def run(net: Net, x: Tensor) -> Tensor:
        x = net.input(x)
        return net.output(net.conv(x) + F.pad(x, (1, 1, 1, 1)))

    net = Net(run, input=Quant(0.02, 3), conv=Conv(Weight((8, 8, 1, 1)), padding=1), output=Quant(0.0987, -9))
    pad, conv = agree(net, 8, 5, 5).graph.layers()
    assert (pad.spec.padding, pad.spec.output, conv.residual) == ((1, 1, 1, 1), (7, 7, 8), pad.output)


def test_shortcut_of_every_second_pixel() -> None:
    """The parameter-free shortcut of small ResNets: a copy that subsamples and adds channels of zeros, exactly."""

    def run(net: Net, x: Tensor) -> Tensor:
        x = net.input(x)
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return net.output(F.relu(net.conv(x) + shortcut))

    net = Net(run, input=Quant(0.02, 3), conv=Conv(Weight((16, 8, 3, 3), scales=0.004), stride=2, padding=1), output=Quant(0.0987, -9))
    graph = agree(net, 8, 9, 9).graph
    copy, conv = graph.layers()
    assert (copy.spec.stride, copy.spec.output, conv.residual) == (2, (5, 5, 16), copy.output)
    assert graph.tensors[copy.output].scale == 0.02


def test_concat() -> None:
    """Branches take the joint scale; a tensor of that scale joins as it is, one of another through a layer."""

    def run(net: Net, x: Tensor) -> Tensor:
        x = net.input(x)
        y = net.middle(net.first(x))
        return net.output(torch.cat([net.second(x), y, x], 1))

    net = Net(
        run,
        input=Quant(0.02, 3),
        first=Conv(Weight((8, 6, 1, 1))),
        second=Conv(Weight((8, 6, 3, 3), scales=0.004), padding=1),
        middle=Quant(0.0987, -9),
        output=Quant(0.0987, -9),
    )
    graph = agree(net, 6, 5, 5).graph
    join = graph.nodes[-1]
    assert (join.name, join.inputs) == ("cat", ("second.conv2d", "first.conv2d", "x.requantize"))


def test_requantize() -> None:
    layer = only(agree(sandwich(nn.Identity(), scale=0.05), 12, 5, 5).graph)
    assert (layer.name, layer.spec.kind, layer.spec.weight_bits, layer.spec.groups) == ("input.requantize", "conv", 2, 1)


@pytest.mark.parametrize("alone", [True, False])
def test_relu_of_a_stored_tensor(alone: bool) -> None:
    """Into the layer before where nothing else reads it, with the scale kept; otherwise a layer."""

    def run(net: Net, x: Tensor) -> Tensor:
        y = net.middle(net.conv(net.input(x)))
        z = net.again(F.relu(y))
        return z if alone else net.last(net.other(y) + z)

    net = Net(
        run,
        input=Quant(0.02, 3),
        conv=Conv(Weight((8, 6, 1, 1))),
        middle=Quant(0.0987, -9),
        again=Quant(0.0987, -9),
        other=Conv(Weight((8, 8, 1, 1))),
        last=Quant(0.2),
    )
    imported = agree(net, 6, 5, 5)
    found = list(imported.graph.layers())
    assert [layer.spec.low for layer in found] == ([-9] if alone else [-128, -9, -128])
    relu = next(report for report in imported.operators if "relu" in report.operator)
    assert relu.reason == ("in layer conv.conv2d" if alone else "in layer conv.conv2d.requantize")
