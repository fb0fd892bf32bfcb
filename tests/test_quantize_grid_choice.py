"""Choosing the grid of a layer's weights by what its outputs lose."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from tercel.sw.quantize import SCHEMES
from tercel.sw.quantize.calibration import CalibrationImages, calibrate
from tercel.sw.quantize.capture import capture
from tercel.sw.quantize.compensated_rounding import RoundingProblem, round_weights
from tercel.sw.quantize.flow import prepare_pt2e
from tercel.sw.quantize.grid_choice import round_on_best_grids
from tercel.sw.quantize.input_moments import input_patches
from tercel.sw.quantize.prepared_graph import weighted_layers
from tercel.sw.quantize.quantizer import TercelQuantizer
from tercel.sw.quantize.weight_scales import choose_weight_scales


def prepared_layer(*, bits, scheme="shift8", outputs=24, inputs=48, groups=1):
    torch.manual_seed(3)
    model = nn.Conv2d(inputs, outputs, 3 if groups > 1 else 1, groups=groups)
    with torch.no_grad():
        model.weight.copy_(torch.distributions.Laplace(0.0, 0.1).sample(model.weight.shape))  # clipping its tails gains most
        model.weight /= model.weight.flatten(1).abs().amax(dim=1)[:, None, None, None]
        model.weight[1:] *= 0.55 * 2.0 ** -(torch.arange(1, outputs) % 4)[:, None, None, None]  # barely out of reach of a finer grid
    images = torch.randn(4, inputs, 12, 12) + 0.5
    graph = prepare_pt2e(capture(model, images[:1]), TercelQuantizer(scheme=scheme, bits=bits))
    kept = calibrate(graph, CalibrationImages(images), progress=lambda *_: None)
    choose_weight_scales(graph)
    (layer,) = weighted_layers(graph)
    return layer, kept


def scales_of(layer):
    return layer.weight_observer.calculate_qparams()[0]


def gain(problem, rounded):
    """Regression of outputs with rounded weights on those with real ones, mean over the outputs."""
    weights, covariance = problem.weights[0], problem.inputs.covariance[0]
    rows = rounded.reshape(weights.shape).double()
    reads = weights @ covariance
    return float(((reads * rows).sum(dim=1) / (reads * weights).sum(dim=1)).mean())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_outputs_keep_their_gain(bits):
    layer, images = prepared_layer(bits=bits)
    problem = RoundingProblem.of(layer, images, mean_counts=False)
    plain = abs(gain(problem, round_weights(layer, images).on_grid) - 1)
    chosen = abs(gain(problem, round_on_best_grids(layer, images, mean_counts=False).on_grid) - 1)
    assert chosen < 0.002 < plain or chosen < 0.2 * plain


@pytest.mark.parametrize("mean_counts", [False, True])
@pytest.mark.parametrize("groups", [1, 24])
def test_weights_lie_on_grids_a_power_of_two_apart(groups, mean_counts):
    layer, images = prepared_layer(bits=4, groups=groups, inputs=24)
    rounded = round_on_best_grids(layer, images, mean_counts=mean_counts).on_grid
    scales = scales_of(layer)
    shifts = torch.log2(scales.max() / scales)
    assert torch.equal(shifts, shifts.round()) and shifts.max() <= 15
    codes = rounded / scales[:, None, None, None]
    assert torch.allclose(codes, codes.round(), atol=1e-4) and codes.abs().max() <= 7.001


def test_outputs_err_less():
    layer, images = prepared_layer(bits=4)
    problem = RoundingProblem.of(layer, images, mean_counts=False)

    def error(rounded):
        change = rounded.reshape(problem.weights.shape).double() - problem.weights
        wrong = ((change @ problem.inputs.covariance) * change).sum(dim=2)
        true = ((problem.weights @ problem.inputs.covariance) * problem.weights).sum(dim=2)
        return float((wrong / true).sum())

    plain = error(round_weights(layer, images).on_grid)
    assert error(round_on_best_grids(layer, images, mean_counts=False).on_grid) < 0.8 * plain


def test_eight_bits_stay():
    layer, images = prepared_layer(bits=8)
    before = scales_of(layer).clone()
    assert torch.equal(round_on_best_grids(layer, images, mean_counts=False).on_grid, round_weights(layer, images).on_grid)
    assert torch.equal(scales_of(layer), before)


@pytest.mark.parametrize("scheme", ["per_channel", "shift_search", "ternary"])
def test_other_schemes_get_their_gain_back_and_keep_the_ratios(scheme):
    layer, images = prepared_layer(bits=3, scheme=scheme)
    before = scales_of(layer).clone()
    round_on_best_grids(layer, images, mean_counts=False)
    ratios = scales_of(layer) / before
    assert torch.allclose(ratios, ratios[:1].expand_as(ratios), rtol=1e-6) and 1.0 < ratios[0] < 1.2


def test_a_layer_of_zeros():
    layer, images = prepared_layer(bits=4)
    layer.replace_weight(torch.zeros_like(layer.weight))
    assert not round_on_best_grids(layer, images, mean_counts=False).on_grid.any()
    assert bool(torch.isfinite(scales_of(layer)).all())


def test_grids_of_the_channel_shift():
    ranges, least = np.array([1.0, 0.5, 0.3, 0.0, 2.0**-15]), np.zeros(5)
    scales = SCHEMES["shift8"].scales(ranges[:, None], bits=4, least=least)
    offered = SCHEMES["shift8"].grids(scales, ranges, bits=4, least=least)
    assert offered.shape == (8, 2, 5) and (offered[0, 0] == scales).all()
    for turn, (coarse, fine) in enumerate(offered):
        assert coarse.max() == pytest.approx(scales.max() * 2 ** (-turn / 8))
        assert (np.log2(coarse.max() / np.stack([coarse, fine])) % 1 == 0).all()
        assert ((coarse / fine)[:4] == 2).all() and (turn or (coarse / fine)[4] == 1)
    assert (offered[1, 0] * 7 >= ranges)[1:4].all()  # only the largest may clip on the coarser grids


def test_grids_keep_biases_in_range():
    ranges, least = np.array([1.0, 0.25]), np.array([0.1, 0.03])
    scales = SCHEMES["shift8"].scales(ranges[:, None], bits=4, least=least)
    offered = SCHEMES["shift8"].grids(scales, ranges, bits=4, least=least)
    assert len(offered) >= 2 and (offered >= least).all()
    assert SCHEMES["per_channel"].grids(scales, ranges, bits=4, least=least).tolist() == [[scales.tolist()]]


@pytest.mark.parametrize(("size", "stride", "padding"), [((64, 48), 1, 1), ((65, 47), 2, 0), ((1, 300), 1, 1), ((12, 12), 2, 1)])
def test_positions_of_large_maps_are_some_of_all(size, stride, padding):
    """Patches of large maps are columns of the whole unfolded map, spread over it."""
    torch.manual_seed(2)
    images = torch.randn(3, 4, *size)
    kernel = (min(3, size[0] + 2 * padding), 3)
    model = nn.Conv2d(4, 4, kernel, stride=stride, padding=padding, groups=4)
    graph = prepare_pt2e(capture(model, images[:1]), TercelQuantizer(scheme="shift8", bits=4))
    (layer,) = weighted_layers(graph)
    patches = input_patches(layer, [image[None] for image in images] * 40)
    whole = nn.functional.unfold(images, kernel, stride=stride, padding=padding)
    assert patches.shape[:2] == (4, kernel[0] * 3) and 0 < patches.shape[2] <= 120 * whole.shape[2]
    if whole.shape[2] > 256:
        assert patches.shape[2] <= 120 * 256
    known = {tuple(column) for column in whole.transpose(1, 2).flatten(0, 1).tolist()}
    found = [tuple(column) for column in patches.permute(2, 0, 1).flatten(1).tolist()]
    assert set(found) <= known and len(set(found)) >= min(len(known), 3 * 20)
