"""Categorical probability quantization and DropBits against their formulas."""

import math

import pytest
import torch

from tercel.sw.training.category import log_likelihood, nearest_code, probability, round_by_category, whole_grid
from tercel.sw.training.category_weights import CategoryWeights, IdentityWeights
from tercel.sw.training.drop_bits import (
    HIGH,
    LOW,
    TEMPERATURE,
    DropBitsWeights,
    choose_codes,
    code_levels,
    draw_masks,
    keep_probability,
    kept_levels,
)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


ALPHA, SIGMA = number(0.7), number(0.7 / 3)


def weights(count=500, *, spread=2.5, seed=0):
    return spread * torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def grid(bits):
    return torch.arange(-(1 << bits - 1), 1 << bits - 1, dtype=torch.float64)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_probabilities_sum_to_one_over_the_grid(bits):
    x, k = weights()[:, None], grid(bits)
    p = probability(x, k, alpha=ALPHA, sigma=SIGMA)
    whole = whole_grid(x, alpha=ALPHA, sigma=SIGMA, low=int(k[0]), high=int(k[-1]))
    assert (p >= 0).all()
    torch.testing.assert_close((p / whole).sum(dim=1), torch.ones(len(x), dtype=torch.float64))


def test_probability_of_the_cell_that_a_weight_is_in_the_middle_of():
    k = grid(4)
    p = probability(k * ALPHA, k, alpha=ALPHA, sigma=SIGMA)
    torch.testing.assert_close(p, torch.full_like(p, math.tanh(3 / 4)))
    assert p[0] == pytest.approx(0.635149, abs=1e-6)


def test_probability_is_a_difference_of_two_logistic_functions():
    x, k = weights(), torch.round(weights(seed=1))
    upper, lower = ((k + 0.5) * ALPHA - x) / SIGMA, ((k - 0.5) * ALPHA - x) / SIGMA
    expected = torch.sigmoid(upper) - torch.sigmoid(lower)
    torch.testing.assert_close(probability(x, k, alpha=ALPHA, sigma=SIGMA), expected)
    difference = log_likelihood(x, k, alpha=ALPHA, sigma=SIGMA) - expected.log()
    near = expected > 1e-9
    torch.testing.assert_close(difference[near], difference[near][:1].expand(int(near.sum())), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("offset", "slope"), [(0.0, 0.0), (0.5, -0.6145), (-0.5, 0.6145)])
def test_slope_of_the_probability(offset, slope):
    x = number(2.0 + offset).requires_grad_()
    torch.autograd.backward(probability(x, number(2.0), alpha=number(1.0), sigma=number(1 / 3)))
    assert float(x.grad) == pytest.approx(slope, abs=1e-4)


def test_gradients_are_those_of_the_formulas():
    k = number(3.0)
    x, alpha, sigma = (number(value).requires_grad_() for value in (2.3, 0.7, 0.25))
    torch.autograd.backward(probability(x, k, alpha=alpha, sigma=sigma))
    upper, lower = ((3.5 * 0.7 - 2.3) / 0.25, (2.5 * 0.7 - 2.3) / 0.25)

    def density(u):
        s = 1 / (1 + math.exp(-u))
        return s * (1 - s)

    assert float(x.grad) == pytest.approx(-(density(upper) - density(lower)) / 0.25)
    assert float(alpha.grad) == pytest.approx((3.5 * density(upper) - 2.5 * density(lower)) / 0.25)
    assert float(sigma.grad) == pytest.approx(-(upper * density(upper) - lower * density(lower)) / 0.25)
    assert torch.autograd.gradcheck(lambda *values: probability(values[0], k, alpha=values[1], sigma=values[2]), (x, alpha, sigma))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_nearest_point_is_the_most_probable(bits):
    x, k = weights(), grid(bits)
    most = k[probability(x[:, None], k, alpha=ALPHA, sigma=SIGMA).argmax(dim=1)]
    assert torch.equal(nearest_code(x, alpha=ALPHA, low=int(k[0]), high=int(k[-1])), most)


def gradient(x, *, backward="literal", normalized=False, sigma=SIGMA):
    x = x.clone().requires_grad_()
    k = nearest_code(x, alpha=ALPHA, low=-8, high=7)
    y = round_by_category(x, k, alpha=ALPHA, sigma=sigma, low=-8, high=7, backward=backward, normalized=normalized)
    assert torch.allclose(y, ALPHA * k)
    return torch.autograd.grad(y.sum(), x)[0], k


def test_literal_backward_is_the_chosen_point_times_its_slope():
    x = weights()
    found, k = gradient(x)
    x.requires_grad_()
    slopes = torch.autograd.grad(probability(x, k, alpha=ALPHA, sigma=SIGMA).sum(), x)[0]
    torch.testing.assert_close(found, ALPHA * k * slopes)
    assert (found[k == 0] == 0).all() and (found[(k != 0)] != 0).all()


def test_backward_of_all_points_is_near_one_inside_and_zero_far_outside():
    found, k = gradient(weights(), backward="all")
    inside = (k > -7) & (k < 6)
    assert found[inside].min() > 0.7 and found[inside].max() < 1.3
    assert found[inside].mean() == pytest.approx(1.0, abs=0.05)
    x = weights().requires_grad_()
    points = grid(4)
    soft = (ALPHA * points * probability(x[:, None], points, alpha=ALPHA, sigma=SIGMA)).sum()
    torch.testing.assert_close(found, torch.autograd.grad(soft, x)[0])


def test_beyond_the_grid_raw_probabilities_pull_back_and_normalised_ones_do_not():
    beyond = number([7.9 * 0.7])  # the loss wants the end of the grid: less than nothing of the value is a descent to it
    raw, normalized = (gradient(beyond, normalized=flag)[0] for flag in (False, True))
    assert raw < 0 < normalized  # descent of -y moves x by +gradient: back, and outward


def test_sigma_to_zero():
    x = (torch.arange(-8, 8) + 0.3).double() * ALPHA
    k = nearest_code(x, alpha=ALPHA, low=-8, high=7)
    torch.testing.assert_close(probability(x, k, alpha=ALPHA, sigma=number(1e-3)), torch.ones_like(x))
    assert gradient(x, sigma=number(1e-3))[0].abs().max() < 1e-9
    border = (torch.arange(1, 7) + 0.4999).double() * ALPHA
    assert gradient(border, sigma=number(1e-3))[0].abs().min() > 100


def falls_on(x, noise):
    """Which grid points a weight with noise is rounded to: counts by code."""
    return nearest_code(x + noise, alpha=ALPHA, low=-8, high=7).long().bincount(minlength=8).double() / len(noise)


@pytest.mark.parametrize("offset", [2.0, 2.3, 2.5, 2.9])
def test_noise_makes_the_probabilities(offset):
    """Rounding with logistic noise falls on a point as often as its probability says; with uniform noise as wide as a step it is
    stochastic rounding: only the two neighbours, each the oftener the nearer, and the weight itself in the mean."""
    even = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    x = offset * ALPHA
    near = number([1.0, 2.0, 3.0, 4.0])
    logistic = falls_on(x + 2 * ALPHA, SIGMA * torch.logit(even))
    torch.testing.assert_close(logistic[3:7], probability(x, near, alpha=ALPHA, sigma=SIGMA), rtol=0, atol=2e-5)
    uniform = falls_on(x, ALPHA * (even - 0.5))
    expected = torch.zeros(8, dtype=torch.float64)
    expected[2], expected[3] = 3 - offset, offset - 2
    torch.testing.assert_close(uniform, expected, rtol=0, atol=2e-5)
    assert float(ALPHA * (uniform * torch.arange(8)).sum()) == pytest.approx(float(x), abs=1e-4)


def test_scales_and_noise_get_gradients():
    torch.manual_seed(0)
    weight = torch.randn(4, 30)
    quantizer = CategoryWeights(weight, bits=4)
    quantizer(weight.requires_grad_()).square().sum().backward()
    assert quantizer.log_scale.grad.abs() > 0 and quantizer.log_sigma.grad.abs() > 0
    assert weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", [CategoryWeights, IdentityWeights])
def test_weights_cluster_with_cpq_alone(kind):
    """Weights begin all over the cells of their targets, and the loss wants them there and a little more, as it does in a network that
    cannot have everything: CPQ moves them to the grid points, the straight-through estimator to the borders."""
    torch.manual_seed(0)
    alpha = 0.25
    target = alpha * torch.randint(1, 4, (1, 200)).float() * torch.randint(0, 2, (1, 200)).mul(2).sub(1)
    weight = (target + alpha * (torch.rand(1, 200) - 0.5)).requires_grad_()
    quantizer = kind(weight.detach(), bits=4)
    quantizer.requires_grad_(False)
    quantizer.log_scale.fill_(math.log(alpha))
    if kind is CategoryWeights:
        quantizer.log_sigma.fill_(math.log(alpha / 3))

    def spread():
        return float((weight / alpha - torch.round(weight / alpha)).detach().std())

    before = spread()
    assert before == pytest.approx(12**-0.5, rel=0.1)
    wanted = target + 0.1 * alpha * target.sign()
    for _ in range(400):
        (slope,) = torch.autograd.grad(torch.square(quantizer(weight) - wanted).sum(), weight)
        with torch.no_grad():
            weight -= 0.05 * slope
    stayed = torch.round(weight.detach() / alpha) * alpha == target
    if kind is CategoryWeights:
        assert spread() < 0.2 * before and stayed.float().mean() > 0.95
    else:
        assert spread() > 1.3 * before


def test_levels_of_codes():
    assert code_levels(grid(3)).tolist() == [3, 3, 2, 1, 1, 2, 3, 3]
    assert code_levels(grid(8)).bincount(minlength=9).tolist() == [0, 2, 2, 4, 8, 16, 32, 64, 128]
    assert DropBitsWeights(torch.randn(2, 8), bits=5).keep_logits.shape == (4,)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_with_all_masks_one_it_is_plain_cpq(bits, monkeypatch):
    torch.manual_seed(1)
    weight = torch.randn(6, 40)
    plain, masked = CategoryWeights(weight, bits=bits), DropBitsWeights(weight, bits=bits)
    monkeypatch.setattr(masked, "masks", lambda: torch.ones(bits - 1))
    gradients = []
    for quantizer in (plain, masked):
        x = weight.clone().requires_grad_()
        y = quantizer(x)
        y.square().sum().backward()
        gradients.append((y, x.grad, quantizer.log_scale.grad))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_without_the_top_level_it_is_one_bit_less(bits):
    x = weights(spread=5.0)
    masks = torch.ones(bits - 1)
    masks[-1] = 0
    chosen = choose_codes(x, alpha=ALPHA, sigma=SIGMA, masks=masks)
    assert torch.equal(chosen, nearest_code(x, alpha=ALPHA, low=-(1 << bits - 2), high=(1 << bits - 2) - 1))


def test_a_masked_point_can_lose_to_a_farther_one():
    x = number([1.55]) * ALPHA  # next to 2, of the third level; 1 is of the second
    for mask, k in ((1.0, 2), (0.5, 1), (0.0, 1)):
        assert choose_codes(x, alpha=ALPHA, sigma=SIGMA, masks=torch.tensor([1.0, mask])) == k


def test_independent_masks_leave_holes():
    x = grid(4) * ALPHA
    chosen = choose_codes(x, alpha=ALPHA, sigma=SIGMA, masks=torch.tensor([1.0, 0.0, 1.0]))
    assert set(code_levels(chosen).tolist()) == {1, 2, 4}


def test_masks_are_zero_as_often_as_told():
    logits = torch.tensor([0.0, 1.5, -2.0])
    noise = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    masks = draw_masks(logits, noise)
    assert masks.min() == 0 and masks.max() == 1 and ((masks > 0) & (masks < 1)).any()
    torch.testing.assert_close((masks > 0).float().mean(dim=0), keep_probability(logits), rtol=0, atol=4e-3)
    assert float(keep_probability(torch.zeros(()))) == pytest.approx(0.8318, abs=1e-4)
    assert pytest.approx(1.598597, abs=1e-6) == -TEMPERATURE * math.log(-LOW / HIGH)


def test_learned_widths():
    torch.manual_seed(0)
    weight = torch.randn(3, 50)
    quantizer = DropBitsWeights(weight, bits=5).eval()
    for logits, bits in (([3, 3, 3, 3], 5), ([3, 3, 3, -3], 4), ([3, -3, 3, 3], 2), ([-3, 3, 3, 3], 2)):
        quantizer.keep_logits.data = torch.tensor(logits, dtype=torch.float32)
        assert quantizer.learned_bits == bits
        assert quantizer.code_range == (-(1 << bits - 1), (1 << bits - 1) - 1)
        codes, scales = quantizer.codes(weight)
        low, high = quantizer.code_range
        expected = nearest_code(weight, alpha=quantizer.log_scale.exp(), low=low, high=high)
        assert torch.equal(codes, expected.long()) and len(scales.unique()) == 1
    assert kept_levels(torch.tensor([-2.39, -2.41])).tolist() == [True, False]
    holes = DropBitsWeights(weight, bits=4, nested=False).eval()
    holes.keep_logits.data = torch.tensor([3.0, -3.0, 3.0])
    assert holes.learned_bits == 4 and set(code_levels(holes.codes(weight)[0]).flatten().tolist()) <= {1, 2, 4}


def test_the_penalty_counts_levels_and_narrows_them():
    quantizer = DropBitsWeights(torch.randn(3, 50), bits=4)
    kept = keep_probability(quantizer.keep_logits.detach())
    assert float(quantizer.penalty().detach()) == pytest.approx(float(kept[0] + kept[0] * kept[1] + kept.prod()))
    independent = DropBitsWeights(torch.randn(3, 50), bits=4, nested=False)
    assert float(independent.penalty().detach()) == pytest.approx(3 * float(kept[0]))
    optimizer = torch.optim.Adam([quantizer.keep_logits], lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        quantizer.penalty().backward()
        optimizer.step()
    assert quantizer.learned_bits < 4
    quantizer.settle()
    assert quantizer.penalty() is None and quantizer.training and not quantizer.keep_logits.requires_grad
    codes = quantizer(torch.randn(3, 50)) / quantizer.log_scale.exp()
    assert int(code_levels(codes.round()).max()) <= quantizer.learned_bits
