"""Weight and activation quantizers of the training schemes: their grids, scales and gradients."""

import math

import pytest
import torch
from torch.nn import functional

from tercel.sw.training.norm import ShiftNorm, ShiftScales, nearest_exponents
from tercel.sw.training.ternary_weights import TernaryWeights, ternary_thresholds
from tercel.sw.training.uniform_activations import UniformActivations
from tercel.sw.training.uniform_weights import UniformWeights, best_scales

OPERATORS = ("naive", "tquant", "mquant")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def columns(values, weight):
    return values.reshape(-1, *[1] * (weight.dim() - 1))


@pytest.mark.parametrize("operator", OPERATORS)
def test_ternary_weights_are_their_thresholds(operator):
    weight = normal(4, 6, 3, 3)
    quantizer = TernaryWeights(operator=operator)
    codes, scales = quantizer.codes(weight)
    thresholds = columns(ternary_thresholds(weight, operator=operator), weight)
    assert torch.equal(codes, (weight.sign() * (weight.abs() > thresholds)).long())
    assert torch.equal(scales, 2 * thresholds.flatten())
    assert torch.equal(quantizer(weight), codes * columns(scales, weight))
    assert quantizer.code_range == (-1, 1) and quantizer.bits == quantizer.learned_bits == 2


def test_thresholds():
    weight = normal(1, 40_000)
    largest = float(weight.abs().max())
    naive, tquant, mquant = (float(ternary_thresholds(weight, operator=operator)) for operator in OPERATORS)
    assert (naive, tquant) == pytest.approx((largest / 2, largest / 3))
    assert mquant == pytest.approx(0.430727, abs=0.005)
    shares = [float((TernaryWeights(operator=operator).codes(weight)[0] == 0).float().mean()) for operator in OPERATORS]
    assert shares[2] == pytest.approx(1 / 3, abs=0.01) and shares[2] < shares[1] < shares[0]


@pytest.mark.parametrize("operator", OPERATORS)
def test_ternary_scale_and_sign_of_the_weights(operator):
    weight, quantizer = normal(3, 50), TernaryWeights(operator=operator)
    codes, scales = quantizer.codes(weight)
    larger, larger_scales = quantizer.codes(4 * weight)
    assert torch.equal(larger, codes) and torch.equal(larger_scales, 4 * scales)
    assert torch.equal(quantizer.codes(-weight)[0], -codes)


@pytest.mark.parametrize("operator", OPERATORS)
def test_ternary_gradient_passes_straight_through(operator):
    weight = normal(3, 50).requires_grad_()
    slopes = normal(3, 50, seed=1)
    (TernaryWeights(operator=operator)(weight) * slopes).sum().backward()
    assert torch.equal(weight.grad, slopes)


def test_a_channel_of_zeros():
    weight = normal(2, 20)
    weight[1] = 0
    for operator in OPERATORS:
        codes, scales = TernaryWeights(operator=operator).codes(weight)
        assert not codes[1].any() and (scales > 0).all()


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_uniform_weights_and_their_gradients(bits):
    weight = normal(4, 60).requires_grad_()
    quantizer = UniformWeights(weight, bits=bits)
    limit = (1 << bits - 1) - 1
    scales = quantizer.scales(weight).detach()
    ratio = weight.detach() / scales[:, None]
    rounded = ratio.round().clamp(-limit, limit)
    output = quantizer(weight)
    torch.testing.assert_close(output, rounded * scales[:, None])
    assert torch.equal(quantizer.codes(weight)[0], rounded.long()) and quantizer.code_range == (-limit, limit)
    slopes = normal(4, 60, seed=2)
    (output * slopes).sum().backward()
    inside = (ratio.round() >= -limit) & (ratio.round() <= limit)
    assert torch.equal(weight.grad, slopes * inside)
    step = torch.where(inside, rounded - ratio, rounded)
    expected = (slopes * step).sum(dim=1) / math.sqrt(60 * limit) * scales
    torch.testing.assert_close(quantizer.log_scale.grad, expected, rtol=1e-4, atol=1e-5)


def test_best_scales_lose_no_more_than_others():
    rows = normal(5, 400, seed=3)
    best = best_scales(rows, low=-7, high=7)

    def error(scales):
        return ((rows / scales[:, None]).round().clamp(-7, 7) * scales[:, None] - rows).square().sum(dim=1)

    for factor in (0.8, 0.9, 1.1, 1.25):
        assert (error(best) <= error(best * factor)).all()


def test_alignment_makes_powers_of_two():
    weight, gains = normal(16, 40), 10 ** normal(16, seed=4)
    for bits in (3, 8):
        quantizer = UniformWeights(weight, bits=bits)
        before = quantizer.scales(weight).detach()
        quantizer.align(weight, gains)
        after = quantizer.scales(weight).detach()
        logarithms = (after * gains).log2()
        torch.testing.assert_close(logarithms, logarithms.round(), rtol=0, atol=1e-4)
        assert (after / before).min() > 0.7 and (after / before).max() < 2


def test_uniform_activations_and_their_gradients():
    values = (normal(8, 30) * 2).requires_grad_()
    quantizer = UniformActivations(values, bits=4)
    scale, zero = quantizer.scale, quantizer.zero_point
    assert 0 < zero < 15 and quantizer.largest_code == 15
    codes = (values.detach() / scale).round() + zero
    output = quantizer(values)
    torch.testing.assert_close(output, (codes.clamp(0, 15) - zero) * scale)
    output.sum().backward()
    inside = (codes >= 0) & (codes <= 15)
    assert torch.equal(values.grad, inside.float()) and not inside.all()
    step = torch.where(inside, codes - zero - values.detach() / scale, codes.clamp(0, 15) - zero)
    expected = float(step.sum() / math.sqrt(30 * 15) * scale)
    assert float(quantizer.log_scale.grad) == pytest.approx(expected, rel=1e-3)
    positive = UniformActivations(functional.relu(values), bits=2)
    assert positive.zero_point == 0 and positive.largest_code == 3


def test_exponents():
    wanted = torch.tensor([1.0, 0.74, 0.70, 2.9, 2.0**-20, 0.0])
    assert nearest_exponents(wanted).tolist() == [0, 0, -1, 2, -13, -13]
    previous = torch.tensor([0.0, 0, 0, 1, -13, -13])
    assert nearest_exponents(wanted, previous).tolist() == [0, 0, 0, 1, -14, -14]


def test_a_norm_holds_the_folded_scales_to_powers_of_two():
    channels, scales = 8, 0.1 + normal(8, seed=5).abs()
    norm = ShiftNorm(1 + normal(channels, seed=6), normal(channels), normal(channels), 10 ** normal(channels), momentum=1e-6, eps=1e-5)
    norm.choose_exponents(scales, hold=False)
    values = normal(32, channels, 4, 4) * 3 + 1
    for mode in (True, False):
        norm.train(mode)
        expected_mean = values.mean(dim=(0, 2, 3)) if mode else norm.running_mean
        deviation = (values.var(dim=(0, 2, 3), unbiased=False) if mode else norm.running_var).add(1e-5).sqrt()
        folded = (norm.running_var + 1e-5).sqrt() * torch.exp2(norm.exponents) / scales
        output = norm(values, scales)
        expected = (values - columns4(expected_mean)) / columns4(deviation) * columns4(folded) + columns4(norm.bias)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
        learned = norm.weight.detach().abs()
        assert (folded / learned).log2().abs().max() <= 0.66
    powers, bias = norm.folded(scales, torch.zeros(channels))
    sums = values / columns4(scales)
    torch.testing.assert_close(sums * columns4(powers) + columns4(bias.float()), norm(values, scales), rtol=1e-4, atol=1e-4)


def columns4(values):
    return values.reshape(1, -1, 1, 1)


def test_the_learned_gain_gets_the_gradient_of_the_held_one():
    norm = ShiftNorm(torch.full((4,), 1.3), torch.zeros(4), torch.zeros(4), torch.ones(4), momentum=0.1, eps=1e-9)
    values = normal(16, 4, 3, 3)
    scales = torch.full((4,), 0.3)
    norm.choose_exponents(scales, hold=False)
    norm(values, scales).square().sum().backward()
    assert torch.isfinite(norm.weight.grad).all() and (norm.weight.grad > 0).all()


def test_a_norm_leaves_the_constant_of_a_channel_of_zeros_alone():
    """Its scale says nothing; the difference of its value from the running mean has the learned gain, not one of 2**45."""
    channels, scales = 3, torch.tensor([0.3, 2.0**-60, 0.1])
    norm = ShiftNorm(torch.full((channels,), 1.5), normal(channels), normal(channels), torch.full((channels,), 4.0), momentum=0.1, eps=0.0)
    norm.choose_exponents(scales, hold=False)
    values = normal(8, channels, 2, 2, seed=7)
    values[:, 1] = 0.7
    expected = ((0.7 - norm.running_mean[1]) / 2 * 1.5 + norm.bias[1]).detach()
    torch.testing.assert_close(norm.eval()(values, scales)[:, 1].mean().detach(), expected)
    _, bias = norm.folded(scales, torch.full((channels,), 0.7))
    assert float(bias[1].detach()) == pytest.approx(float(expected), rel=1e-6)


def test_scales_without_a_norm():
    weight = normal(6, 10).requires_grad_()
    quantizer = TernaryWeights(operator="tquant")
    shifts = ShiftScales(6)
    scales = quantizer.scales(weight)
    shifts.choose_exponents(scales, hold=False)
    output = shifts(quantizer(weight), scales)
    codes = quantizer.codes(weight)[0]
    powers, _ = shifts.folded(torch.zeros(6))
    torch.testing.assert_close(output, codes * powers[:, None])
    assert ((powers / scales).log2().abs() <= 0.5).all()
    output.sum().backward()
    torch.testing.assert_close(weight.grad, (powers / scales)[:, None].expand_as(weight))
