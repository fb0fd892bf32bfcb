"""N2UQ: the method's formulas against finite differences, worked numbers and properties."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tercel.sw.quantize import QuantizeError
from tercel.sw.training import parameter_groups
from tercel.sw.training.n2uq.generalized_ste import boundaries, expected_levels, levels, thresholds
from tercel.sw.training.n2uq.learned_thresholds import SHORTEST, LearnedThresholds
from tercel.sw.training.n2uq.odd_weights import OddWeights
from tercel.sw.training.n2uq.rprelu import RPReLU

BITS = (2, 3, 4)


def drawn(*shape: int, seed: int = 0, width: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * width


def segments(bits: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A start and lengths that are far from even."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.rand((1 << bits) - 1, generator=random, dtype=torch.float64) + 0.05
    return torch.tensor([-0.13], dtype=torch.float64), lengths


def inside(start: Tensor, lengths: Tensor, *, count: int = 200) -> Tensor:
    """Values in all segments and beyond both ends, none near a boundary."""
    ends = boundaries(start, lengths)
    spread = torch.linspace(float(ends[0]) - 0.5, float(ends[-1]) + 0.5, count, dtype=torch.float64)
    return spread[(spread[:, None] - ends).abs().min(dim=1).values > 1e-4]


def gradients(values: Tensor, start: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
    """Of the hard levels by the estimator, for the sum over ``values``."""
    leaves = [tensor.clone().requires_grad_() for tensor in (values, start, lengths)]
    return torch.autograd.grad(levels(*leaves).sum(), leaves)


@pytest.mark.parametrize("bits", BITS)
def test_at_the_start_it_is_even_rounding_with_the_clipped_estimator(bits: int) -> None:
    quantizer = LearnedThresholds(torch.tensor([2.0]), bits=bits)
    assert [quantizer.input_scale.item(), quantizer.output_scale.item()] == pytest.approx([1, 1])
    # Off the ties, where float32 thresholds decide.
    x = torch.linspace(-1, 3, 1201)
    x = x[((x * quantizer.largest_code / 2).frac().abs() - 0.5).abs() > 1e-3].requires_grad_()
    step = 2 / quantizer.largest_code
    y = quantizer(x)
    torch.testing.assert_close(y, torch.round(x.clamp(0, 2) / step) * step)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope, ((x > 0) & (x <= 2)).float())


def test_worked_numbers() -> None:
    start, lengths, z = torch.tensor([0.0]), torch.tensor([0.4, 0.6, 1.0]), torch.tensor([0.5])
    assert thresholds(start, lengths).tolist() == pytest.approx([0.2, 0.7, 1.5])
    assert levels(z, start, lengths).item() == 1
    assert expected_levels(z, start, lengths).item() == pytest.approx(7 / 6)
    to_z, to_start, to_lengths = gradients(z, start, lengths)
    assert to_z.item() == pytest.approx(5 / 3) and to_start.item() == pytest.approx(-5 / 3)
    assert to_lengths.tolist() == pytest.approx([-5 / 3, -0.1 / 0.36, 0])


@pytest.mark.parametrize("bits", BITS)
def test_gradients_are_those_of_the_expectation(bits: int) -> None:
    start, lengths = segments(bits)
    values = inside(start, lengths)

    def differences(position: int, index: int) -> float:
        moved = []
        for sign in (1, -1):
            tensors = [values.clone(), start.clone(), lengths.clone()]
            tensors[position][index] += sign * 1e-6
            moved.append(float(expected_levels(*tensors).sum()))
        return (moved[0] - moved[1]) / 2e-6

    found = gradients(values, start, lengths)
    for position, gradient in enumerate(found):
        expected = [differences(position, index) for index in range(len(gradient))]
        assert gradient.tolist() == pytest.approx(expected, abs=1e-5), position


@pytest.mark.parametrize("bits", BITS)
def test_the_expectation_is_continuous_and_saturates(bits: int) -> None:
    start, lengths = segments(bits)
    ends = boundaries(start, lengths)
    for move in (-1e-9, 0.0, 1e-9):
        torch.testing.assert_close(expected_levels(ends + move, start, lengths), torch.arange(len(ends)).double(), atol=1e-7, rtol=0)
    assert expected_levels(torch.tensor([-9.0, 99.0]).double(), start, lengths).tolist() == [0, len(lengths)]
    to_z, _, _ = gradients(torch.tensor([-9.0, 99.0]).double(), start, lengths)
    assert to_z.tolist() == [0, 0]


@pytest.mark.parametrize("bits", BITS)
def test_shift_and_sum_rules(bits: int) -> None:
    start, lengths = segments(bits)
    ends = boundaries(start, lengths)
    for value in inside(start, lengths, count=40):
        to_z, to_start, to_lengths = gradients(value.reshape(1), start, lengths)
        assert to_start.item() == pytest.approx(-to_z.item())
        segment = int((value > ends).sum()) - 1
        if 0 <= segment < len(lengths):
            assert (lengths[segment] * to_lengths[segment] + (value - ends[segment]) * to_z).item() == pytest.approx(0, abs=1e-12)
            assert not to_lengths[segment + 1 :].any() and (to_lengths[:segment] == -to_z).all()


@pytest.mark.parametrize("bits", BITS)
def test_levels_rise_are_even_and_few(bits: int) -> None:
    quantizer = LearnedThresholds(torch.tensor([1.7]), bits=bits)
    with torch.no_grad():
        quantizer.start[0], quantizer.input_scale[0], quantizer.output_scale[0] = -0.2, 1.4, 0.8
        quantizer.lengths.copy_(segments(bits)[1])
        y = quantizer(torch.linspace(-3, 9, 4001))
    assert (y.diff() >= 0).all()
    found = y.unique()
    assert len(found) == 1 << bits
    torch.testing.assert_close(found, torch.arange(1 << bits) * torch.tensor(quantizer.scale))


def test_all_parameters_learn_through_the_scales() -> None:
    quantizer = LearnedThresholds(torch.tensor([1.7]), bits=3)
    x = torch.linspace(-0.5, 2.5, 50).requires_grad_()
    weights = torch.linspace(-1, 1, 50)
    (quantizer(x) * weights).sum().backward()
    beta1, beta2 = quantizer.input_scale.item(), quantizer.output_scale.item()
    z = (beta1 * x).detach().requires_grad_()
    (slope,) = torch.autograd.grad(expected_levels(z, quantizer.start, quantizer.get_lengths()).sum() * quantizer.step, z)
    torch.testing.assert_close(x.grad, weights * slope * beta1 * beta2)
    assert quantizer.input_scale.grad.item() == pytest.approx(float((weights * slope * x.detach()).sum()) * beta2, rel=1e-4)
    assert quantizer.output_scale.grad.item() == pytest.approx(float((weights * quantizer(x).detach() / beta2).sum()), rel=1e-4)


def test_short_segments_are_held_open_and_get_no_gradient() -> None:
    quantizer = LearnedThresholds(torch.tensor([2.0]), bits=2)
    with torch.no_grad():
        quantizer.lengths[1] = -0.3
    assert quantizer.get_lengths().tolist() == pytest.approx([2 / 3, SHORTEST, 2 / 3])
    quantizer(torch.linspace(0, 2, 99)).sum().backward()
    gradient = quantizer.lengths.grad
    assert gradient[1] == 0 and gradient[0] != 0 and gradient[2] != 0


def test_codes_are_the_levels() -> None:
    quantizer = LearnedThresholds(drawn(400, seed=4).float(), bits=4)
    with torch.no_grad():
        quantizer.lengths.mul_(1 + 0.3 * drawn(15).float())
    x = drawn(3, 5, 8, 8, seed=2, width=2.0).float()
    codes = torch.ops.tercel.multi_threshold(x, quantizer.input_thresholds())
    assert quantizer.zero_point > 0
    torch.testing.assert_close((codes.float() - quantizer.zero_point) * quantizer.scale, quantizer(x).detach())
    assert codes.unique().tolist() == list(range(16))


@pytest.mark.parametrize(("name", "use"), [("input_scale", "input_thresholds"), ("output_scale", "scale")])
def test_scales_must_stay_positive(name: str, use: str) -> None:
    quantizer = LearnedThresholds(torch.tensor([2.0]), bits=2)
    with torch.no_grad():
        getattr(quantizer, name).neg_()
    with pytest.raises(QuantizeError, match=rf"^{name} must be positive, not -1 \(train at a lower rate; see parameter_groups\)$"):
        found = getattr(quantizer, use)
        found()


def test_widths_outside_the_method() -> None:
    with pytest.raises(
        QuantizeError, match=r"^bits must be 2, 3 or 4, not 5 \(learned thresholds: the machine compares with 15 at most\)$"
    ):
        LearnedThresholds(torch.ones(1), bits=5)
    with pytest.raises(QuantizeError, match=r"^bits must be 2, 3 or 4, not 8 \(odd levels: at 8 bits take even steps\)$"):
        OddWeights(bits=8)


def shares(codes: Tensor) -> Tensor:
    return torch.unique(codes, return_counts=True)[1] / codes.numel()


def entropy(codes: Tensor) -> float:
    return float(-(shares(codes) * shares(codes).log2()).sum())


@pytest.mark.parametrize("bits", BITS)
def test_even_weights_use_all_levels_alike(bits: int) -> None:
    codes, _ = OddWeights(bits=bits).codes(torch.linspace(-1, 1, 1 << 16).reshape(1, -1))
    assert shares(codes).tolist() == pytest.approx([2.0**-bits] * 2**bits, abs=1e-3)
    assert codes.unique().tolist() == list(range(1 - 2**bits, 2**bits, 2))


@pytest.mark.parametrize(("bits", "expected"), [(2, 1.984), (3, 2.979), (4, 3.948)])
def test_entropy_of_gaussian_weights(bits: int, expected: float) -> None:
    even = (torch.arange(1 << 18, dtype=torch.float64) + 0.5) / (1 << 18)
    gaussian = torch.special.ndtri(even).reshape(1, -1)
    laplace = (torch.sign(even - 0.5) * -torch.log(1 - 2 * (even - 0.5).abs())).reshape(1, -1)
    codes, _ = OddWeights(bits=bits).codes(gaussian)
    assert entropy(codes) == pytest.approx(expected, abs=1e-3)
    if bits == 2:
        assert shares(codes).tolist() == pytest.approx([0.2125, 0.2875, 0.2875, 0.2125], abs=1e-4)
    assert entropy(OddWeights(bits=bits).codes(laplace)[0]) == pytest.approx({2: 1.949, 3: 2.910, 4: 3.848}[bits], abs=1e-3)


@pytest.mark.parametrize("bits", BITS)
def test_codes_do_not_see_the_size_of_a_filter(bits: int) -> None:
    weight, quantizer = drawn(5, 3, 3, 3).float(), OddWeights(bits=bits)
    codes, scales = quantizer.codes(weight)
    factors = torch.tensor([0.01, 0.3, 1.0, 7.0, 100.0])
    scaled, larger = quantizer.codes(weight * factors.reshape(-1, 1, 1, 1))
    assert torch.equal(codes, scaled)
    torch.testing.assert_close(larger, scales * factors)
    torch.testing.assert_close(scales, weight.abs().mean(dim=(1, 2, 3)) / 2 ** (bits - 1))
    torch.testing.assert_close(quantizer(weight), codes * scales.reshape(-1, 1, 1, 1))


def test_gradient_of_weights_passes_whole_over_their_scale() -> None:
    weight, quantizer = drawn(4, 6).float().requires_grad_(), OddWeights(bits=2)
    (gradient,) = torch.autograd.grad(quantizer(weight).sum(), weight)
    factor = 2 / (3 * weight.detach().abs().mean(dim=1, keepdim=True))
    torch.testing.assert_close(gradient, factor.expand_as(weight))


def test_a_filter_of_zeros_stays_finite() -> None:
    codes, scales = OddWeights(bits=2).codes(torch.zeros(2, 3))
    assert codes.abs().unique().tolist() == [1] and (scales > 0).all() and bool(torch.isfinite(scales).all())


def test_convolution_of_codes_is_the_fake_quantized_one() -> None:
    activations, weights = LearnedThresholds(drawn(500, seed=5).float(), bits=3), OddWeights(bits=3)
    x, weight = drawn(2, 6, 7, 7, seed=6).float(), drawn(4, 6, 3, 3, seed=7).float()
    with torch.no_grad():
        fake = functional.conv2d(activations(x), weights(weight), padding=1)
    codes, scales = weights.codes(weight)
    levels_ = torch.ops.tercel.multi_threshold(x, activations.input_thresholds())
    sums = functional.conv2d(levels_.double() - activations.zero_point, codes.double(), padding=1)
    # The machine's weights: 2 * d + 1.
    assert torch.equal((codes - 1) // 2 * 2 + 1, codes)
    torch.testing.assert_close(sums.float() * (scales * activations.scale).reshape(1, -1, 1, 1), fake)


def test_rprelu_never_falls() -> None:
    part = RPReLU(3)
    with torch.no_grad():
        part.shift_in.copy_(torch.tensor([0.5, -0.2, 0.0]).reshape(3, 1, 1))
        part.slope.copy_(torch.tensor([0.25, -0.4, 1.5]))
        part.shift_out.fill_(0.1)
    x = torch.linspace(-2, 2, 101).reshape(1, 1, 1, -1).expand(1, 3, 1, -1)
    y = part(x)
    assert (y.diff(dim=3) >= 0).all()
    assert y[0, 0, 0, 0].item() == pytest.approx(-1.5 * 0.25 + 0.1)
    assert (y[0, 1, 0, :50] == 0.1).all()


def test_thresholds_learn_at_a_tenth_of_the_rate() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), RPReLU(2), LearnedThresholds(torch.ones(1), bits=2))
    fast, slow = parameter_groups(model, lr=0.02)
    assert fast["lr"] == 0.02 and slow["lr"] == pytest.approx(0.002)
    assert {id(parameter) for parameter in slow["params"]} == {id(parameter) for parameter in model[2].parameters()}
    assert len(slow["params"]) == 4 and len(fast["params"]) == 5
