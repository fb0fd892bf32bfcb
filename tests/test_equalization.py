"""Cross-layer equalization: the network's function stays, ranges meet, clamps and growth stop it."""

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from tercel.sw.quantize import quantize
from tercel.sw.quantize.capture import capture
from tercel.sw.quantize.equalization import equalize_channels
from tercel.sw.quantize.flow import prepare_pt2e
from tercel.sw.quantize.links import channel_maxima, find_links
from tercel.sw.quantize.quantizer import TercelQuantizer

IMAGES = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def chain(clamp, *, seed=0):
    """A layer, a depthwise one and two more, with output channels up to 30 times apart."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), clamp, nn.ConstantPad2d((0, 1, 0, 1), 0.0), nn.Conv2d(8, 8, 3, groups=8), clamp, nn.Conv2d(8, 12, 1), clamp,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Conv2d):
                layer.weight *= 10 ** (1.5 * torch.rand(len(layer.weight), 1, 1, 1) - 1)
    return model.eval()


def uneven_pair():
    """Channels ten times apart, and as much the other way in the layer that reads them."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.ReLU(), nn.Conv2d(6, 6, 1, bias=False))
    with torch.no_grad():
        model[0].weight *= 10 ** torch.linspace(0, 1, 6).reshape(-1, 1, 1, 1)
        model[2].weight *= 10 ** -torch.linspace(0, 1, 6).reshape(1, -1, 1, 1) * 0.1
    return model.eval()


def equalized(model, *, times=1):
    """Links of the network after equalization; its function must be the same."""
    graph = prepare_pt2e(capture(model, IMAGES[:1]), TercelQuantizer())
    links = find_links(graph)
    for _ in range(times):
        equalize_channels(links, channel_maxima(graph, links, IMAGES.split(1)))
    with torch.no_grad():
        found = torch.cat([graph(image[None]) for image in IMAGES])
        assert torch.allclose(found, model(IMAGES), rtol=1e-4, atol=1e-5)
    return links


def spread(links):
    """Largest ratio of both ranges of a channel."""
    return max(float((link.output_ranges() / link.input_ranges()).log2().abs().max()) for link in links)


def test_links():
    links = equalized(chain(nn.ReLU6()))
    assert [(link.layer.name, link.reader.name, link.limit) for link in links] == [("0", "3", 6.0), ("3", "5", 6.0), ("5", "9", 6.0)]
    assert [link.reads_depthwise for link in links] == [True, False, False]


def test_ranges_meet_where_nothing_stops_them():
    model = uneven_pair()
    before = equalized(model, times=0)
    after = equalized(model)
    assert spread(before) > 3 and spread(after) < 0.01
    for old, new in zip(before, after, strict=True):
        assert torch.allclose(new.output_ranges(), (old.output_ranges() * old.input_ranges()).sqrt(), rtol=1e-2)


@pytest.mark.parametrize("clamp", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(0.0, 0.5)])
def test_a_chain_comes_nearer_and_settles(clamp):
    before, once, twice = (equalized(chain(clamp), times=times) for times in (0, 1, 2))
    assert sum(spread([link]) for link in once) < sum(spread([link]) for link in before)
    for one, two in zip(once, twice, strict=True):
        assert torch.allclose(one.output_ranges(), two.output_ranges(), rtol=0.02)


def test_no_channel_outgrows_the_largest():
    model = chain(nn.ReLU())
    graph = prepare_pt2e(capture(model, IMAGES[:1]), TercelQuantizer())
    links = find_links(graph)
    before = channel_maxima(graph, links, IMAGES.split(1))
    equalize_channels(links, before)
    after = channel_maxima(graph, links, IMAGES.split(1))
    assert all(float(after[node].max()) <= float(before[node].max()) * (1 + 1e-4) for node in before)


def test_channels_at_the_clamp_and_dead_ones_stay():
    model = chain(nn.ReLU6())
    with torch.no_grad():
        model[0].bias[:3] = 20.0
        model[0].weight[4] = 0.0
        model[0].bias[4] = 0.0
    moved = equalized(model)[0].output_ranges() != equalized(model, times=0)[0].output_ranges()
    assert not moved[[0, 1, 2, 4]].any() and moved[[3, 5, 6, 7]].any()


def test_one_scale_per_layer_fits_better():
    model = uneven_pair()
    with torch.no_grad():
        expected = model(IMAGES)

    def error(**options):
        program = quantize(model, calibration=IMAGES, scheme="per_layer", bits=5, rounding="nearest", **options)
        module = program.module()
        return float((torch.cat([module(image[None]) for image in IMAGES]) - expected).square().mean())

    assert error(equalization=True) < error() / 2
