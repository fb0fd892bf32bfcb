"""Rounding weights so that their errors cancel."""

import pytest

torch = pytest.importorskip("torch")

from tercel.sw.quantize.compensated_rounding import compensate, input_moments  # noqa: E402


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


@pytest.mark.parametrize("mean_counts", [False, True])
def test_what_the_layers_before_lost_is_given_back(mean_counts):
    weights, scales, real = sample()
    patches = drifted(real)

    def lost(rounded):
        difference = rounded @ patches - weights @ real
        return float((difference if mean_counts else difference - difference.mean(dim=2, keepdim=True)).square().mean())

    inputs = input_moments(patches, real)
    alone = compensate(weights, scales, input_moments(patches), limit=7, mean_counts=mean_counts)
    target = inputs.restoring(weights, mean_counts=mean_counts)
    restored = compensate(target, scales, inputs, limit=7, mean_counts=mean_counts)
    assert lost(target) < 0.1 * lost(weights)
    assert lost(restored) < 0.5 * lost(alone)


def test_weights_stay_where_nothing_is_lost():
    weights, _, patches = sample()
    assert torch.equal(input_moments(patches, patches).restoring(weights, mean_counts=True), weights)
    assert torch.equal(input_moments(patches).restoring(weights, mean_counts=False), weights)


def test_a_shift_that_carries_nothing_is_the_bias_to_correct():
    weights, _, patches = sample()
    inputs = input_moments(patches + 1.0, patches)
    assert torch.allclose(inputs.restoring(weights, mean_counts=False), weights)
    assert not torch.allclose(inputs.restoring(weights, mean_counts=True), weights, atol=1e-3)
