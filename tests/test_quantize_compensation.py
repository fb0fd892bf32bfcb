"""Rounding weights so that their errors cancel."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tercel.sw.quantize.calibration import CalibrationImages, calibrate  # noqa: E402
from tercel.sw.quantize.capture import capture  # noqa: E402
from tercel.sw.quantize.compensated_rounding import compensate, round_on_finer_grids, round_weights  # noqa: E402
from tercel.sw.quantize.flow import prepare_pt2e  # noqa: E402
from tercel.sw.quantize.prepared_graph import weighted_layers  # noqa: E402
from tercel.sw.quantize.quantizer import TercelQuantizer  # noqa: E402
from tercel.sw.quantize.weight_scales import choose_weight_scales  # noqa: E402


def sample(*, groups=2, outputs=8, count=12, samples=2000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(groups, count, count, generator=generator, dtype=torch.float64)
    patches = mixing @ torch.randn(groups, count, samples, generator=generator, dtype=torch.float64) + 3.0
    weights = torch.randn(groups, outputs, count, generator=generator, dtype=torch.float64)
    return weights, weights.abs().amax(dim=2) / 7, patches


def error(weights, rounded, patches):
    difference = (rounded - weights) @ patches
    return float((difference - difference.mean(dim=2, keepdim=True)).square().mean())


def nearest(weights, scales):
    return torch.clamp(torch.round(weights / scales[:, :, None]), -7, 7) * scales[:, :, None]


def test_the_outputs_of_correlated_inputs_change_less():
    weights, scales, patches = sample()
    rounded = compensate(weights, scales, patches, limit=7)
    assert error(weights, rounded, patches) < 0.7 * error(weights, nearest(weights, scales), patches)


def test_the_grid_is_kept():
    weights, scales, patches = sample()
    codes = compensate(weights, scales, patches, limit=7) / scales[:, :, None]
    assert torch.allclose(codes, codes.round(), atol=1e-9) and codes.abs().max() <= 7.0 + 1e-9


def test_weights_on_the_grid_stay():
    weights, scales, patches = sample()
    on_grid = nearest(weights, scales)
    assert torch.allclose(compensate(on_grid, scales, patches, limit=7), on_grid)


def test_independent_inputs_are_rounded_to_the_nearest():
    weights, scales, _ = sample(count=4)
    eye = torch.eye(4, dtype=torch.float64)
    patches = torch.cat([eye, -eye], dim=1).expand(2, 4, 8)
    assert torch.allclose(compensate(weights, scales, patches, limit=7), nearest(weights, scales))


def test_few_samples_change_little():
    """With fewer samples than inputs, chance correlations must not move weights away from the nearest codes by much."""
    weights, scales, patches = sample(count=64)
    few = compensate(weights, scales, patches[:, :, :8], limit=7)
    assert error(weights, few, patches) < 1.2 * error(weights, nearest(weights, scales), patches)


@pytest.mark.parametrize("patches", [torch.zeros(2, 12, 5), torch.ones(2, 12, 1)])
def test_inputs_without_variance(patches):
    weights, scales, _ = sample()
    assert torch.allclose(compensate(weights, scales, patches, limit=7), nearest(weights, scales))


def test_means_are_kept_where_biases_do_not():
    weights, scales, patches = sample()
    change = {}
    for counts in (False, True):
        rounded = compensate(weights, scales, patches, limit=7, mean_counts=counts)
        change[counts] = ((rounded - weights) @ patches).mean(dim=2).abs().mean()
    assert change[True] < 0.5 * change[False]


def prepared_layer(weight, *, bits, scheme="shift8"):
    model = nn.Conv2d(weight.shape[1], len(weight), 1)
    with torch.no_grad():
        model.weight.copy_(weight)
    torch.manual_seed(0)
    images = torch.randn(4, weight.shape[1], 8, 8)
    graph = prepare_pt2e(capture(model, images[:1]), TercelQuantizer(scheme=scheme, bits=bits))
    kept = calibrate(graph, CalibrationImages(images), progress=lambda *_: None)
    choose_weight_scales(graph)
    (layer,) = weighted_layers(graph)
    return layer, kept


def channels():
    """Sixty-four weights each: an outlier that barely fails to fill half the codes, then two of even magnitudes."""
    torch.manual_seed(1)
    weight = torch.randn(3, 64, 1, 1) * 0.1
    weight[0, 0] = 1.0
    weight[1] = weight[1].clamp(-0.1, 0.1)
    weight[1, 0] = 0.51
    weight[2] = torch.where(torch.arange(64) % 2 == 0, 0.93, -0.93)[:, None, None]
    return weight


def test_a_channel_takes_a_finer_grid_where_its_outputs_err_less():
    layer, images = prepared_layer(channels(), bits=4)
    before = layer.weight_observer.calculate_qparams()[0].clone()
    plain = round_weights(layer, images)
    finer = round_on_finer_grids(layer, images, mean_counts=False)
    after = layer.weight_observer.calculate_qparams()[0]
    assert (before / after).tolist() == [2.0 if moved else 1.0 for moved in (before != after).tolist()] and (before != after)[1]
    assert after[2] == before[2] and torch.equal(finer[2], plain[2])
    codes = finer / after[:, None, None, None]
    assert torch.allclose(codes, codes.round(), atol=1e-5) and codes.abs().max() <= 7.001


@pytest.mark.parametrize(("bits", "scheme"), [(8, "shift8"), (4, "per_channel"), (4, "shift_search")])
def test_other_grids_stay(bits, scheme):
    layer, images = prepared_layer(channels(), bits=bits, scheme=scheme)
    before = layer.weight_observer.calculate_qparams()[0].clone()
    assert torch.equal(round_on_finer_grids(layer, images, mean_counts=False), round_weights(layer, images))
    assert torch.equal(layer.weight_observer.calculate_qparams()[0], before)
