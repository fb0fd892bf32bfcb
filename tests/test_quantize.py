"""Post-training quantization of small networks: the graph that comes out, its numbers, files and errors."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
from small_torch_networks import DEQUANTIZE, QUANTIZE, Network, calls, constants, outputs, pictures, uneven

from tercel.sw.quantize import SCHEMES, QuantizedFileError, QuantizeError, load_quantized, quantize, save_quantized

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn import functional


@pytest.fixture(scope="module")
def network():
    return uneven(Network())


@pytest.fixture(scope="module")
def program(network):
    return quantize(network, calibration=pictures().split(4))


def test_it_computes_what_the_network_does(network, program):
    images = pictures(seed=2)
    with torch.no_grad():
        expected = network(images)
    error = (outputs(program, images) - expected).square().mean() / expected.var()
    assert error < 1e-2


def test_the_model_stays_as_it_was(network):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    quantize(network, calibration=pictures(4))
    assert network.training and all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    network.eval()


def test_every_layer_is_codes(program):
    assert len(calls(program, "conv2d.default")) == 10 and len(calls(program, "linear.default")) == 1
    assert not calls(program, "batch_norm.default")
    for layer in calls(program, "conv2d.default") + calls(program, "linear.default"):
        assert str(layer.args[0].target).endswith(DEQUANTIZE)
        activation = layer.args[0].args
        assert activation[3:] == (0, 255, torch.uint8) and 0 <= activation[2] <= 255
        weights, scales, grid = constants(program, layer.args[1])
        bias, bias_scales, _ = constants(program, layer.args[2])
        assert weights.dtype == torch.int8 and grid == (-127, 127) and weights.abs().max() >= 120
        assert bias.dtype == torch.int32
        assert torch.equal(bias_scales, torch.tensor([activation[1]], dtype=torch.float32) * scales)
        ratios = np.log2((scales.max().double() / scales.double()).numpy())
        assert np.array_equal(ratios, np.round(ratios)) and ratios.max() <= 15


def test_sums_of_a_residual_are_rounded_once(program):
    adds = calls(program, "add.Tensor")
    assert len(adds) == 2
    for add in adds:
        kinds = sorted(str(operand.target).split(".")[1] for operand in add.args)
        assert kinds == ["conv2d", "dequantize_per_tensor"]
        assert [str(user.target).split(".")[1] for user in add.users] == ["quantize_per_tensor"]


def test_pads_reshapes_and_dropout_keep_their_input_scale(program):
    names = ("pad.default", "constant_pad_nd.default", "flatten.using_ints", "dropout.default")
    moves = [node for name in names for node in calls(program, name)]
    assert len(moves) == 5
    for move in moves:
        (after,) = move.users
        assert str(after.target).endswith(QUANTIZE) and after.args[1:] == move.args[0].args[1:]


def test_the_average_has_its_own_scale(program):
    (pool,) = calls(program, "adaptive_avg_pool2d.default")
    (after,) = pool.users
    assert after.args[1] < pool.args[0].args[1]


def test_names_and_source_lines_survive(program):
    layers = calls(program, "conv2d.default") + calls(program, "linear.default")
    names = [list(layer.meta["nn_module_stack"].values())[-1][0] for layer in layers]
    assert names[:3] == ["stem.0", "blocks.0.expand.0", "blocks.0.depthwise.0"] and names[-1] == "classifier.1"
    assert all("small_torch_networks.py" in layer.meta["stack_trace"] for layer in layers)
    assert all("x + y if self.residual" in add.meta["stack_trace"] for add in calls(program, "add.Tensor"))


def test_float_weights_are_gone(program):
    kinds = {name: value.dtype for name, value in program.state_dict.items() if not name.startswith(("_scale", "_zero_point"))}
    assert set(kinds.values()) == {torch.int8, torch.int32} and len(kinds) == 22


def test_the_same_twice(network, program):
    again = quantize(network, calibration=pictures().split(4))
    assert program.state_dict.keys() == again.state_dict.keys()
    assert all(torch.equal(value, again.state_dict[name]) for name, value in program.state_dict.items())


def test_bits_by_layer(network):
    mixed = quantize(network, calibration=pictures(2), bits={"*": 4, "stem*": 8, "classifier.*": 6}, bias_correction=False)
    grids = [constants(mixed, layer.args[1])[2] for layer in calls(mixed, "conv2d.default") + calls(mixed, "linear.default")]
    assert grids == [(-127, 127)] + [(-7, 7)] * 9 + [(-31, 31)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_converts(network, scheme):
    converted = quantize(network, calibration=pictures(2), scheme=scheme)
    weights, scales, grid = constants(converted, calls(converted, "conv2d.default")[1].args[1])
    assert grid == ((-1, 1) if SCHEMES[scheme].bits == 2 else (-127, 127))
    assert weights.abs().max() == grid[1]
    assert (len(scales.unique()) == 1) == scheme.endswith("per_layer")


def test_shifts_and_bias_correction_each_lower_the_error(network):
    images = pictures(32, seed=3)
    with torch.no_grad():
        expected = network(images)

    def error(**options):
        return float((outputs(quantize(network, calibration=pictures(16), **options), images) - expected).square().mean())

    plain, shifted = error(scheme="per_layer", bias_correction=False), error(bias_correction=False)
    assert shifted < plain / 2
    # Compensated rounding keeps the means itself where biases are not corrected.
    assert error(rounding="nearest") < error(rounding="nearest", bias_correction=False)


def test_corrected_channel_means():
    """In a network of one layer, the mean error of each channel over the calibration images is a fraction of a code."""
    torch.manual_seed(6)
    model = nn.Conv2d(3, 8, 3)
    images = pictures(16).abs()
    shift = {}
    for corrected in (False, True):
        quantized = quantize(model, calibration=images, bits=3, bias_correction=corrected)
        step = calls(quantized, QUANTIZE)[-1].args[1]
        with torch.no_grad():
            shift[corrected] = ((outputs(quantized, images) - model(images)).mean(dim=(0, 2, 3)) / step).abs().max()
    assert shift[True] < 0.1 and shift[False] > 1


def test_biases_of_dead_channels_stay_in_range():
    model = uneven(nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU6(), nn.Conv2d(6, 4, 1)))
    with torch.no_grad():
        model[0].weight[0] = 0.0
        model[0].weight[1] *= 1e-12
        model[1].running_var[2] = 1e-20
        model[1].bias.fill_(3.0)
        model[3].weight *= 1e-9
        model[3].bias.fill_(5.0)
    images = pictures(4)
    with torch.no_grad():
        expected = model(images)
    for scheme in SCHEMES:
        dead = quantize(model, calibration=images, scheme=scheme)
        for layer in calls(dead, "conv2d.default"):
            bias, _, _ = constants(dead, layer.args[2])
            assert bias.abs().max() < 1 << 30
        assert (outputs(dead, images) - expected).abs().max() < 0.1


class Odd(nn.Module):
    """In-place adds, a clamp beside another reader, concatenation of a pool, two convolutions in an add, a convolution used twice."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1, bias=False)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.pool = nn.MaxPool2d(2)
        self.twice = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5, bias=False)

    def forward(self, x):
        y = self.left(x)
        y += self.right(x)
        y = functional.relu(y)
        y = y + self.depthwise(y)
        y = torch.cat([self.pool(y), functional.avg_pool2d(y, 2)], 1)
        z = self.twice(y)
        z = self.twice(functional.hardtanh(z, -1.0, 1.0)) + functional.relu(z)
        return self.head(z.mean((2, 3)))


@pytest.fixture(scope="module")
def odd():
    torch.manual_seed(3)
    model = Odd().eval()
    return model, quantize(model, calibration=pictures())


def test_odd_network_computes_what_it_should(odd):
    model, quantized = odd
    images = pictures(seed=4)
    with torch.no_grad():
        expected = model(images)
    assert (outputs(quantized, images) - expected).abs().max() < 0.05 * expected.abs().max()


def test_of_two_convolutions_the_later_keeps_its_sums(odd):
    first, second, third = calls(odd[1], "add.Tensor")
    assert [str(operand.target).split(".")[1] for operand in first.args] == ["dequantize_per_tensor", "conv2d"]
    assert [str(user.target).split(".")[1] for user in first.users] == ["relu"]
    assert [str(operand.target).split(".")[1] for operand in second.args] == ["dequantize_per_tensor"] * 2  # depthwise
    assert [str(operand.target).split(".")[1] for operand in third.args] == ["conv2d", "dequantize_per_tensor"]


def test_a_concatenation_has_one_scale(odd):
    (cat,) = calls(odd[1], "cat.default")
    (after,) = cat.users
    assert {part.args[1:] for part in cat.args[0]} == {after.args[1:]}
    (pool,) = calls(odd[1], "max_pool2d.default")
    assert pool.args[0].args[1:3] == after.args[1:3]


def test_a_clamp_that_is_not_alone_works_on_codes(odd):
    (clamp,) = calls(odd[1], "hardtanh.default")
    (after,) = clamp.users
    assert after.args[1:] == clamp.args[0].args[1:]


def test_a_module_called_twice_has_two_biases(odd):
    twice = [node for node in calls(odd[1], "conv2d.default") if list(node.meta["nn_module_stack"].values())[-1][0] == "twice"]
    assert len(twice) == 2 and twice[0].args[2].args[0] is not twice[1].args[2].args[0]


class Overwrites(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.conv(x)
        self.relu(y)
        return y


def test_an_overwritten_tensor_keeps_its_new_value():
    torch.manual_seed(5)
    assert outputs(quantize(Overwrites(), calibration=pictures(2)), pictures(2)).min() == 0


def test_unknown_operators_stay_in_float_between_codes():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 4, 1)).eval()
    quantized = quantize(model, calibration=pictures(2))
    (sigmoid,) = calls(quantized, "sigmoid.default")
    assert str(sigmoid.args[0].target).endswith(DEQUANTIZE)
    assert [str(user.target).split(".")[1] for user in sigmoid.users] == ["quantize_per_tensor"]


def test_progress(network):
    seen = []
    quantize(network, calibration=pictures(6).split(2), progress=lambda *step: seen.append(step))
    assert [step for step in seen if step[2] == "calibrate"] == [(1, 3, "calibrate"), (2, 3, "calibrate"), (3, 3, "calibrate")]
    assert [step for step in seen if step[2] == "round weights"][-1] == (11, 11, "round weights")
    assert seen[0] == (0, 1, "capture") and seen[-1] == (1, 1, "convert")


def test_a_generator_is_read_once(network):
    seen = []
    quantize(network, calibration=(image[None] for image in pictures(3)), progress=lambda *step: seen.append(step))
    assert [step for step in seen if step[2] == "calibrate"] == [(1, 0, "calibrate"), (2, 0, "calibrate"), (3, 0, "calibrate")]


def test_save_and_load(program, tmp_path):
    path = tmp_path / "network.tq"
    save_quantized(program, path)
    loaded = load_quantized(path)
    image = pictures(1)
    assert torch.equal(loaded.module()(image), program.module()(image))
    assert list(calls(loaded, "conv2d.default")[0].meta["nn_module_stack"].values())[-1][0] == "stem.0"
    assert list(tmp_path.iterdir()) == [path]
    weights = sum(constants(program, node.args[1])[0].numel() for node in calls(program, "conv2d.default"))
    assert path.stat().st_size < 4 * weights + 400_000


def damaged_files(tmp_path, program):
    good = tmp_path / "good.tq"
    save_quantized(program, good)
    data = good.read_bytes()
    with zipfile.ZipFile(good) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        inside = data.index(archive.read(largest.filename)[:32])
    flipped = bytearray(data)
    flipped[inside + 40] ^= 1
    foreign = tmp_path / "foreign.pt2"
    torch.export.save(program, foreign)
    other = tmp_path / "other.pt2"
    torch.export.save(program, other, extra_files={"tercel.json": '{"format": "tercel quantized network", "version": 99}'})
    return {
        r"cut short: File is not a zip file \(make it again\)": data[: len(data) // 2],
        r"not a quantized network, or cut short: File is not a zip file": b"hello",
        r"damaged: checksum of .* differs \(copy or make the file again\)": bytes(flipped),
        r"an archive without tercel.json \(write it with save_quantized\)": foreign.read_bytes(),
        r"format must be \('tercel quantized network', 1\), not \('tercel quantized network', 99\)": other.read_bytes(),
    }


def test_damaged_and_foreign_files(program, tmp_path):
    for message, data in damaged_files(tmp_path, program).items():
        path = tmp_path / "bad.tq"
        path.write_bytes(data)
        with pytest.raises(QuantizedFileError, match=message) as caught:
            load_quantized(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    with pytest.raises(QuantizedFileError, match=r"none.tq: no such file$"):
        load_quantized(tmp_path / "none.tq")


def fails(message, model, **options):
    with pytest.raises(QuantizeError, match=message) as caught:
        quantize(model, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], r"^calibration must hold at least one image, but is empty \(a few dozen are enough\)$"),
        ([pictures(0)], r"^calibration\[0\] must hold at least one image, not 0"),
        (pictures(2)[0], r"^calibration\[0\] must have the shape \[images, channels, height, width\], not \[3, 16, 16\]"),
        ([(pictures(1), 3)], r"^calibration\[0\] must be a tensor of images, not tuple \(leave out the labels\)$"),
        ([pictures(1).to(torch.uint8)], r"^calibration\[0\] must hold real numbers, not torch.uint8"),
        ([pictures(1), pictures(1, 12)], r"^calibration\[1\] must hold images of \[3, 16, 16\] as calibration\[0\] does, not \[3, 12,"),
        ([pictures(1), pictures(1) / 0], r"^calibration\[1\] must be finite, but holds NaN or infinity"),
        ([pictures(1)[:, :2]], r"^model must accept calibration images of shape \(1, 2, 16, 16\): Given groups=1, "),
    ],
)
def test_bad_calibration(network, calibration, message):
    fails(message, network, calibration=calibration)


def test_bad_arguments(network):
    fails(r"^scheme must be one of", network, calibration=pictures(1), scheme="none")
    fails(r"^bits must be a whole number in 2..8, not 9", network, calibration=pictures(1), bits=9)
    fails(r"^bits\['no'\] must match a layer with weights, but matches none of 11 ", network, calibration=pictures(1), bits={"no": 4})


def test_values_that_are_not_finite():
    model = uneven(Network())
    model.blocks[1].project[0].weight.data[0, 0] = torch.nan
    fails(r"^weight of module 'blocks.1.project.0' must be finite, but 1 of its 512 values are NaN", model, calibration=pictures(1))
    model = uneven(Network())
    model.blocks[1].project[0].weight.data.fill_(1e30)
    model.blocks[1].project[1].weight.data.fill_(1e30)
    fails(r"^the output of module 'blocks.*' \(aten.*\) must be finite on the calibration images", model, calibration=pictures(1))


def test_a_model_that_cannot_be_captured():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    message = r"^model must be one that torch.export can capture: .* \(remove what depends on the values of tensors\)$"
    fails(message, Branches(), calibration=pictures(1))


def test_importing_the_package_leaves_torch_alone_and_quantizing_is_silent():
    script = (
        "import sys; from tercel.sw.quantize import quantize, SCHEMES; assert 'torch' not in sys.modules\n"
        "import torch; quantize(torch.nn.Conv2d(3, 2, 1), calibration=torch.randn(2, 3, 4, 4))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "" and result.stderr == ""
