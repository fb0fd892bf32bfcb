"""Cutting prepared graphs into blocks, and running them one by one."""

import pytest

torch = pytest.importorskip("torch")

from small_torch_networks import Network, pictures, uneven
from torch import nn

from tercel.sw.quantize.block_run import advance
from tercel.sw.quantize.blocks import find_blocks
from tercel.sw.quantize.calibration import CalibrationImages, calibrate
from tercel.sw.quantize.capture import capture
from tercel.sw.quantize.flow import prepare_pt2e
from tercel.sw.quantize.prepared_graph import weighted_layers
from tercel.sw.quantize.quantizer import TercelQuantizer
from tercel.sw.quantize.weight_scales import choose_weight_scales


def ready(model, images, *, bits=4):
    """A calibrated graph whose weight scales are chosen."""
    prepared = prepare_pt2e(capture(model, images[:1]), TercelQuantizer(bits=bits))
    calibrate(prepared, CalibrationImages(images), progress=lambda done, total: None)
    choose_weight_scales(prepared)
    return prepared


def names(model, images):
    return [[layer.name for layer in block.layers] for block in find_blocks(ready(model, images))]


class Separable(nn.Sequential):
    """Pairs of depthwise and pointwise layers in a chain."""

    def __init__(self):
        super().__init__()
        for channels in (3, 8):
            self.append(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.ReLU6()))
            self.append(nn.Sequential(nn.Conv2d(channels, 8, 1), nn.ReLU6()))


class BasicBlocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first, self.second, self.shortcut = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))
        return self.head(x.mean(dim=[2, 3]))


class Dense(nn.Module):
    """Every layer reads all before it: nowhere is one tensor alone."""

    def __init__(self, depth=8):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 2 * number, 2, 1) for number in range(depth))

    def forward(self, x):
        tensors = [x]
        for layer in self.layers:
            tensors.append(torch.relu(layer(torch.cat(tensors, 1))))
        return torch.cat(tensors, 1)


class Reshapes(nn.Module):
    """Knows that there is one image."""

    def __init__(self):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        x = torch.relu(self.convolution(x)).mean(dim=[2, 3]).reshape(1, 4)
        return self.head(x)


def test_inverted_residuals_with_the_stem_and_the_head_apart():
    found = names(uneven(Network()), pictures(2))
    assert [len(block) for block in found] == [1, 3, 3, 3, 1]
    assert found[1] == ["blocks.0.expand.0", "blocks.0.depthwise.0", "blocks.0.project.0"]


def test_a_depthwise_layer_goes_with_the_layer_over_all_channels_behind_it():
    assert names(Separable(), pictures(2)) == [["0.0", "1.0"], ["2.0", "3.0"]]


def test_a_residual_is_one_block():
    assert names(BasicBlocks(), pictures(2)) == [["stem"], ["first", "second", "shortcut"], ["head"]]


def test_chains_are_cut_after_three_layers():
    chain = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(7)])
    assert [len(block) for block in names(chain, pictures(2))] == [3, 3, 1]


def test_without_places_to_cut_layers_are_taken_one_by_one():
    assert [len(block) for block in names(Dense(), pictures(2))] == [1] * 8


@pytest.mark.parametrize("make", [Network, Separable, BasicBlocks, Dense, Reshapes])
@pytest.mark.parametrize("real", [True, False])
def test_blocks_one_after_the_other_are_the_network(make, real):
    """In float they compute what the model does; with codes what the graph with codes does."""
    model, images = uneven(make()), pictures(5)
    prepared = ready(model, images, bits=8)
    blocks = find_blocks(prepared)
    assert [layer.node for block in blocks for layer in block.layers] == [layer.node for layer in weighted_layers(prepared)]
    values = {node: images[:, None] for node in prepared.graph.nodes if node.op == "placeholder"}
    for block in blocks:
        advance(prepared, block, values, real=real)
    last = values[blocks[-1].outputs[-1]].flatten(0, 1)
    expected = torch.cat([model(image[None]) for image in images]).detach()
    tolerance = 1e-5 if real else 0.1
    assert (last - expected).square().mean() < tolerance**2 * expected.square().mean()


def test_what_is_local_and_what_takes_batches():
    inside = find_blocks(ready(uneven(Network()), pictures(2)))
    assert [block.local for block in inside] == [True, True, True, True, False]
    assert all(block.batched for block in inside)
    assert not find_blocks(ready(Reshapes(), pictures(2)))[-1].batched
