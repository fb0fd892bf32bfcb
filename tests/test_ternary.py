"""Ternary operators: what each is the best or even at, with oracles that need no data, and the edges."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tercel.sw.quantize import QuantizeError
from tercel.sw.quantize.ternary import GAUSS_THRESHOLD, ternarize

OPERATORS = [
    {"operator": "naive"}, {"operator": "tquant"}, {"operator": "mquant"}, {"operator": "mquant", "mode": "empirical"},
]  # fmt: skip
SYMMETRIC = OPERATORS[:3]
LAYERS = arrays(np.float64, (3, 7), elements=st.integers(-1000, 1000).map(float))


def whole(weights, **options):
    return ternarize(np.asarray(weights, dtype=float).reshape(1, -1), **options)


def normal(count=90_000, *, seed=0):
    return np.random.default_rng(seed).normal(size=count)


def shares(result):
    return [float((result.codes == code).mean()) for code in (-1, 0, 1)]


@settings(max_examples=200, deadline=None)
@given(LAYERS)
def test_tquant_errs_by_a_third_of_the_largest_weight_at_most(weights):
    largest = np.abs(weights).max(axis=1)
    error = np.abs(ternarize(weights, operator="tquant").weights - weights).max(axis=1)
    assert (error <= largest / 3 * (1 + 1e-12)).all()
    assert np.allclose(error[largest > 0], (largest / 3)[largest > 0])  # the largest weight itself errs so much
    assert (np.abs(ternarize(weights, operator="naive").weights - weights).max(axis=1) <= largest / 2 * (1 + 1e-12)).all()


def test_no_other_threshold_and_scale_have_a_smaller_worst_error():
    weights = np.linspace(-1, 1, 2001)
    assert np.abs(whole(weights, operator="tquant").weights - weights).max() == pytest.approx(1 / 3)
    assert np.abs(whole(weights, operator="naive").weights - weights).max() == pytest.approx(1 / 2, abs=1e-3)
    worst = min(
        np.abs(np.sign(weights) * (np.abs(weights) > threshold) * scale - weights).max()
        for threshold in np.arange(0, 1, 0.02)
        for scale in np.arange(0, 1.5, 0.02)
    )
    assert worst >= 1 / 3 - 1e-9


def test_tquant_cuts_the_range_in_three():
    for third in (1, 2, 5, 100):
        counts = [int((whole(np.linspace(-2, 2, 3 * third), operator="tquant").codes == code).sum()) for code in (-1, 0, 1)]
        assert max(abs(count - third) for count in counts) <= 1


@pytest.mark.parametrize("draw", ["normal", "laplace", "exponential", "uniform", "lognormal"])
def test_tertiles_make_codes_of_equal_share(draw):
    for count in (3, 10, 299, 300, 301):
        weights = getattr(np.random.default_rng(count), draw)(size=count)
        counts = [int((whole(weights, operator="mquant", mode="empirical").codes == code).sum()) for code in (-1, 0, 1)]
        assert max(abs(found - count / 3) for found in counts) <= 1


def test_gauss_makes_equal_shares_of_normal_weights_only():
    limit = 3 * np.sqrt(2 / 9 / 90_000)
    random = np.random.default_rng(1)
    assert np.allclose(shares(whole(3.0 * normal(), operator="mquant")), 1 / 3, atol=limit)
    for weights in (random.laplace(size=90_000), random.uniform(-1, 1, size=90_000)):
        assert abs(shares(whole(weights, operator="mquant"))[1] - 1 / 3) > 5 * limit
    skewed = random.exponential(size=90_000)
    assert abs(shares(whole(skewed, operator="mquant"))[0] - 1 / 3) > 5 * limit


@settings(max_examples=200, deadline=None)
@given(LAYERS, st.integers(-20, 20), st.booleans())
@pytest.mark.parametrize("magnitude", ["round", "least_squares"])
@pytest.mark.parametrize("options", OPERATORS)
def test_larger_weights_have_larger_scales_and_the_same_codes(options, magnitude, weights, exponent, per_channel):
    plain = ternarize(weights, **options, magnitude=magnitude, per_channel=per_channel)
    scaled = ternarize(np.ldexp(weights, exponent), **options, magnitude=magnitude, per_channel=per_channel)
    assert np.array_equal(scaled.codes, plain.codes)
    assert np.allclose(scaled.scales, np.ldexp(plain.scales, exponent), rtol=1e-12, atol=0)


@pytest.mark.parametrize("factor", [0.0123, 3.7, 1e4])
@pytest.mark.parametrize("options", OPERATORS)
def test_any_positive_factor_goes_into_the_scales(options, factor):
    """Factors that are rounded, on weights that lie nowhere near a threshold."""
    weights = normal(3000).reshape(6, 500)
    plain, scaled = ternarize(weights, **options), ternarize(factor * weights, **options)
    assert np.array_equal(scaled.codes, plain.codes) and np.allclose(scaled.scales, factor * plain.scales, rtol=1e-12)


@settings(max_examples=200, deadline=None)
@given(LAYERS)
@pytest.mark.parametrize("options", SYMMETRIC)
def test_negative_weights_have_negative_codes(options, weights):
    plain, mirrored = ternarize(weights, **options), ternarize(-weights, **options)
    assert np.array_equal(mirrored.codes, -plain.codes) and np.array_equal(mirrored.scales, plain.scales)


def test_constants_of_a_normal_distribution():
    weights = normal(1_000_000)
    gauss = whole(weights, operator="mquant")
    fitted = whole(weights, operator="mquant", magnitude="least_squares")
    assert gauss.scales[0] == pytest.approx(0.861455, rel=3e-3) and fitted.scales[0] == pytest.approx(1.090799, rel=3e-3)
    assert np.square(gauss.weights - weights).mean() == pytest.approx(0.24184, rel=0.01)
    assert np.square(fitted.weights - weights).mean() == pytest.approx(0.20677, rel=0.01)
    assert np.abs(gauss.weights - weights).mean() == pytest.approx(0.34869, rel=0.01)


def test_operators_of_least_error_for_normal_weights():
    """MQuant is neither of them: with one scale, 0.612 and 1.224 have the least squared error, 0.51 and 1.02 the least absolute one."""
    weights = np.array([NormalDist().inv_cdf((place + 0.5) / 20_000) for place in range(20_000)])

    def error(threshold, scale, *, power):
        return (np.abs(np.sign(weights) * (np.abs(weights) > threshold) * scale - weights) ** power).mean()

    square, absolute = error(0.612, 1.224, power=2), error(0.51, 1.02, power=1)
    assert square == pytest.approx(0.19017, rel=2e-3) and absolute == pytest.approx(0.33973, rel=2e-3)
    for threshold in np.arange(0.2, 1.1, 0.1):
        for scale in np.arange(0.7, 1.6, 0.1):
            assert error(threshold, scale, power=2) > square - 1e-4 and error(threshold, scale, power=1) > absolute - 1e-4
    # Ternary weight networks: 0.7 of the mean magnitude, and the scale that is best for it.
    threshold = 0.7 * np.abs(weights).mean()
    assert error(threshold, np.abs(weights)[np.abs(weights) > threshold].mean(), power=2) == pytest.approx(0.19162, rel=2e-3)
    gauss = whole(weights, operator="mquant", magnitude="least_squares")
    assert np.square(gauss.weights - weights).mean() > 1.05 * square


@pytest.mark.parametrize(("largest", "naive", "tquant"), [(3.0, 0.866, 0.683), (4.0, 0.954, 0.818), (5.0, 0.988, 0.904)])
def test_share_of_zeros_of_normal_weights(largest, naive, tquant):
    weights = np.append(np.clip(normal(), -largest, largest), largest)
    zeros = {operator: shares(whole(weights, operator=operator))[1] for operator in ("naive", "tquant", "mquant")}
    assert zeros["naive"] == pytest.approx(naive, abs=0.006) and zeros["tquant"] == pytest.approx(tquant, abs=0.006)
    assert zeros["mquant"] == pytest.approx(1 / 3, abs=0.006) and zeros["mquant"] < zeros["tquant"] < zeros["naive"]


def test_an_outlier_makes_the_others_zero_except_with_tertiles():
    weights = normal(3000)
    outlier = weights.copy()
    outlier[np.abs(weights).argmax()] *= 10
    others = np.arange(3000) != np.abs(weights).argmax()
    for operator in ("naive", "tquant"):
        assert not whole(outlier, operator=operator).codes[0, others].any()
    for options in (OPERATORS[2], OPERATORS[3]):
        changed = whole(outlier, **options).codes[0, others] != whole(weights, **options).codes[0, others]
        assert changed.mean() < 0.1 and (options == OPERATORS[2] or not changed.any())


@settings(max_examples=100, deadline=None)
@given(LAYERS)
@pytest.mark.parametrize("options", OPERATORS)
def test_the_fitted_scale_has_the_least_squared_error(options, weights):
    fitted = ternarize(weights, **options, magnitude="least_squares")
    error = np.square(fitted.weights - weights).sum(axis=1)
    for factor in (0.0, 0.9, 1.1):
        assert (np.square(fitted.weights * factor - weights).sum(axis=1) >= error * (1 - 1e-12)).all()


@pytest.mark.parametrize("magnitude", ["round", "least_squares"])
@pytest.mark.parametrize("options", OPERATORS)
def test_edges(options, magnitude):
    made = ternarize([[0.0, 0.0], [0.0, -0.0]], **options, magnitude=magnitude)
    assert not made.codes.any() and not made.scales.any() and made.codes.dtype == np.int8
    one = ternarize([[-3.0], [2.0]], **options, magnitude=magnitude)
    assert one.codes.tolist() == [[-1], [1]] and (one.scales > 0).all()
    constant = ternarize(np.full((2, 3, 1, 2), 0.25), **options, magnitude=magnitude)
    assert constant.codes.shape == (2, 3, 1, 2) and (constant.codes == 1).all() and (constant.scales > 0).all()
    ties = ternarize([[0.0, 0.0, 0.0, 0.0, 1.0], [-1.0, 0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0, 1.0]], **options, magnitude=magnitude)
    assert np.array_equal(ties.codes, [[0, 0, 0, 0, 1], [-1, 0, 0, 0, 1], [0, 1, 1, 1, 1]]) and (ties.scales > 0).all()


def test_groups():
    weights = [[1.0, -0.3, 0.05], [0.04, 0.0, -0.1], [0.0, 0.0, 0.0]]
    channels = ternarize(weights, operator="tquant")
    assert channels.codes.tolist() == [[1, 0, 0], [1, 0, -1], [0, 0, 0]]
    assert channels.scales.tolist() == pytest.approx([2 / 3, 0.2 / 3, 0.0])
    layer = ternarize(weights, operator="tquant", per_channel=False)
    assert layer.codes.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]] and layer.scales.tolist() == pytest.approx([2 / 3] * 3)


def test_a_weight_at_the_threshold_is_zero():
    assert ternarize([[1.5, 0.5, -0.5, -0.75]], operator="tquant").codes.tolist() == [[1, 0, 0, -1]]
    assert ternarize([[1.0, 0.5, -0.5]], operator="naive").codes.tolist() == [[1, 0, 0]]


def test_gauss_threshold():
    assert pytest.approx(NormalDist().inv_cdf(2 / 3), rel=1e-15) == GAUSS_THRESHOLD


@pytest.mark.parametrize(("weights", "options", "message"), [
    ([[1.0, np.nan, np.inf]], {}, r"^weights of features\.0 must be finite, but 2 of 3 are NaN or infinite \(load other weights\)$"),
    (np.zeros((0, 3)), {}, r"^weights of features\.0 must have the shape \[output channels, \.\.\.\] and at least one value, not \(0, 3\)"),
    (1.0, {}, r"^weights of features\.0 must have the shape \[output channels, \.\.\.\] and at least one value, not \(\)"),
    ([1.0], {"operator": "nquant"}, r"^operator must be one of naive, tquant, mquant, not 'nquant'$"),
    ([1.0], {"mode": "tertiles"}, r"^mode must be one of gauss, empirical, not 'tertiles'$"),
    ([1.0], {"magnitude": "learned"}, r"^magnitude must be one of round, least_squares, not 'learned'$"),
])  # fmt: skip
def test_errors(weights, options, message):
    with pytest.raises(QuantizeError, match=message):
        ternarize(weights, **{"operator": "naive", "layer": "features.0", **options})
