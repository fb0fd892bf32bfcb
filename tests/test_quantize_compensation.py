"""Rounding weights so that their errors cancel."""

import pytest

torch = pytest.importorskip("torch")

from tercel.sw.quantize.compensated_rounding import compensate
from tercel.sw.quantize.input_moments import input_moments
from tercel.sw.quantize.restored_weights import least_squares_change, restored


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
    rounded = compensate(weights, scales, input_moments(patches), limit=7)
    assert error(weights, rounded, patches) < 0.7 * error(weights, nearest(weights, scales), patches)


def test_the_grid_is_kept():
    weights, scales, patches = sample()
    codes = compensate(weights, scales, input_moments(patches), limit=7) / scales[:, :, None]
    assert torch.allclose(codes, codes.round(), atol=1e-9) and codes.abs().max() <= 7.0 + 1e-9


def test_weights_on_the_grid_stay():
    weights, scales, patches = sample()
    on_grid = nearest(weights, scales)
    assert torch.allclose(compensate(on_grid, scales, input_moments(patches), limit=7), on_grid)


def test_independent_inputs_are_rounded_to_the_nearest():
    weights, scales, _ = sample(count=4)
    eye = torch.eye(4, dtype=torch.float64)
    patches = torch.cat([eye, -eye], dim=1).expand(2, 4, 8)
    assert torch.allclose(compensate(weights, scales, input_moments(patches), limit=7), nearest(weights, scales))


def test_few_samples_change_little():
    """With fewer samples than inputs, chance correlations must not move weights away from the nearest codes by much."""
    weights, scales, patches = sample(count=64)
    few = compensate(weights, scales, input_moments(patches[:, :, :8]), limit=7)
    assert error(weights, few, patches) < 1.2 * error(weights, nearest(weights, scales), patches)


@pytest.mark.parametrize("patches", [torch.zeros(2, 12, 5), torch.ones(2, 12, 1)])
def test_inputs_without_variance(patches):
    weights, scales, _ = sample()
    assert torch.allclose(compensate(weights, scales, input_moments(patches), limit=7), nearest(weights, scales))


def test_means_are_kept_where_biases_do_not():
    weights, scales, patches = sample()
    change = {}
    for counts in (False, True):
        rounded = compensate(weights, scales, input_moments(patches), limit=7, mean_counts=counts)
        change[counts] = ((rounded - weights) @ patches).mean(dim=2).abs().mean()
    assert change[True] < 0.5 * change[False]


def drifted(patches, *, seed=1):
    """Patches as the layers before them could have changed them: a little noise, some gain lost, a mean shifted."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(patches.shape, generator=generator, dtype=torch.float64)
    gains = 1 + 0.2 * torch.randn(patches.shape[:2], generator=generator, dtype=torch.float64)
    return patches * gains[:, :, None] + 0.1 * noise + 0.3


def halves(patches, real):
    """Moments of two thirds of the samples and of the others."""
    cut = patches.shape[2] * 2 // 3
    return input_moments(patches[:, :, :cut], real[:, :, :cut]), input_moments(patches[:, :, cut:], real[:, :, cut:])


@pytest.mark.parametrize("mean_counts", [False, True])
def test_what_the_layers_before_lost_is_given_back(mean_counts):
    weights, scales, real = sample()
    patches = drifted(real)

    def lost(rounded):
        difference = rounded @ patches - weights @ real
        return float((difference if mean_counts else difference - difference.mean(dim=2, keepdim=True)).square().mean())

    alone = compensate(weights, scales, input_moments(patches), limit=7, mean_counts=mean_counts)
    one, two = halves(patches, real)
    target = restored(weights, (one, two), mean_counts=mean_counts)
    rounded = compensate(target, scales, one.with_more(two), limit=7, mean_counts=mean_counts)
    assert lost(target) < 0.1 * lost(weights)
    assert lost(rounded) < 0.5 * lost(alone)


def test_weights_stay_where_nothing_is_lost():
    weights, _, patches = sample()
    assert torch.equal(restored(weights, halves(patches, patches), mean_counts=True), weights)


def test_a_shift_that_carries_nothing_is_the_bias_to_correct():
    weights, _, patches = sample()
    shifted = halves(patches + 1.0, patches)
    assert torch.allclose(restored(weights, shifted, mean_counts=False), weights)
    assert not torch.allclose(restored(weights, shifted, mean_counts=True), weights, atol=1e-3)


def test_what_holds_on_few_samples_only_is_left():
    """Twice as many weights as samples: a regression could give back all that was lost there, and harm everywhere else."""
    weights, _, real = sample(count=64)
    generator = torch.Generator().manual_seed(4)
    patches = real + 0.5 * torch.randn(real.shape, generator=generator, dtype=torch.float64)

    def lost(aimed_at, samples):
        difference = (aimed_at @ patches - weights @ real)[:, :, samples]
        return float((difference - difference.mean(dim=2, keepdim=True)).square().mean())

    few, others = slice(0, 32), slice(1000, 2000)
    one, two = halves(patches[:, :, few], real[:, :, few])
    greedy = weights + least_squares_change(weights, one.with_more(two), damping=0.0, mean_counts=False)
    careful = restored(weights, (one, two), mean_counts=False)
    assert lost(greedy, few) < 0.5 * lost(weights, few)
    assert lost(greedy, others) > 1.02 * lost(careful, others)
    assert lost(careful, others) < 1.02 * lost(weights, others)


def test_moments_of_halves_are_those_of_the_whole():
    _, _, real = sample()
    patches = drifted(real)
    one, two = halves(patches, real)
    whole, merged = input_moments(patches, real), one.with_more(two)
    assert merged.samples == whole.samples
    for name in ("covariance", "mean", "lost_covariance", "lost_mean"):
        assert torch.allclose(getattr(merged, name), getattr(whole, name))
