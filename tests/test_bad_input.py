"""Degenerate tensors and wrong arguments, for every scheme of quantization and of training: a documented result or a clear refusal."""

from dataclasses import replace

import numpy as np
import pytest
from qdq_models import Conv, Quant, export, only
from small_torch_networks import calls, constants, outputs
from test_importer_thresholds import LEVELS, RealPart, Thresholds, odd

from tercel.hw.config import BASE
from tercel.sim.execution import execute_program
from tercel.sim.tensors import input_codes
from tercel.sw.compiler import compile_graph
from tercel.sw.graph.codes import from_codes
from tercel.sw.graph.reference import run_reference
from tercel.sw.importer import UnsupportedError, import_exported
from tercel.sw.quantize import SCHEMES, QuantizeError, quantize
from tercel.sw.training import TRAINING_SCHEMES, convert, prepare

torch = pytest.importorskip("torch")
from torch import nn

# The other ternary schemes have the same operators.
OWN = [name for name in SCHEMES if name == "per_layer" or not name.endswith(("_per_layer", "tquant_per_channel", "_fitted"))]
WAYS = [*(("quantize", name) for name in OWN), *(("prepare", name) for name in TRAINING_SCHEMES)]
FREE = replace(BASE, per_channel_multiplier=True)
every_way = pytest.mark.parametrize(("way", "scheme"), WAYS, ids=["-".join(way) for way in WAYS])
every_training = pytest.mark.parametrize("scheme", TRAINING_SCHEMES)

TRAINED = ("uniform", "tquant", "cpq", "cpq_dropbits", "n2uq")
WIDE = {"shift8", "per_layer", "per_channel", "cpq", "cpq_all", "identity_ste", "cpq_dropbits"}


def network():
    """Three layers, the middle one without a norm; its output and the last layer's are all that a degenerate tensor reaches."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    ).eval()  # fmt: skip


def images(count=6):
    return torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(1))


def made(way, scheme, model, given):
    """The program of a model whose layers all have the scheme's bits, and the same after a step of training that changes nothing."""
    if way == "quantize":
        return quantize(model, calibration=given, scheme=scheme)
    prepared = prepare(model, example=given, scheme=scheme, bits={"*": TRAINING_SCHEMES[scheme].bits}).train()
    prepared(given).square().sum().backward()
    assert all(bool(torch.isfinite(one.grad).all()) for one in prepared.parameters() if one.grad is not None)
    return convert(prepared)


def run(program, given):
    """What a program computes, and one step of its output; the integers of a machine that stores M per channel agree to two steps."""
    graph = import_exported(program, config=FREE).graph
    (output,) = graph.outputs
    found = from_codes(graph.tensors[output], run_reference(graph, input_codes(graph, given.numpy()))[output])
    expected = outputs(program, given).double()
    assert bool(torch.isfinite(expected).all())
    step = graph.tensors[output].scale
    shape = expected.permute(0, 2, 3, 1).shape if expected.dim() == 4 else (len(expected), 1, 1, expected.shape[1])
    integers = torch.from_numpy(found.reshape(shape)).permute(0, 3, 1, 2).reshape(expected.shape)
    assert float((integers - expected).abs().max()) <= 2.01 * step
    return expected, step


@every_way
def test_a_channel_of_zeros_is_its_bias(way, scheme):
    model = network()
    with torch.no_grad():
        model[6].weight[1] = 0
        model[3].weight[2] = 0
        model[0].weight[3] = 0
    program = made(way, scheme, model, images())
    found, step = run(program, images())
    # Bias correction, and few bits in front, leave the bias as it is: nothing of the input passes.
    assert float((found[:, 1] - model[6].bias[1].detach()).abs().max()) <= step
    codes, scales, _ = constants(program, calls(program, "linear.default")[0].args[1])
    # Odd levels have no zero: their codes are the smallest, of a scale that is nothing beside the others.
    if scheme == "n2uq":
        assert codes[1].abs().max() == 1 and scales[1] < 1e-3 * scales[0]
    else:
        assert not codes[1].any() and codes[0].any()


@every_way
def test_layers_of_zeros_are_their_biases(way, scheme):
    model = network()
    for layer in (model[0], model[3], model[6]):
        nn.init.zeros_(layer.weight)
    found, step = run(made(way, scheme, model, images()), images())
    assert float((found - model[6].bias.detach()).abs().max()) <= step


@every_way
def test_constant_tensors_have_equal_codes(way, scheme):
    """Images of one colour, and weights of one value; tertiles that cannot be told apart are taken from the mean square."""
    model, given = network(), torch.full((3, 2, 4, 4), 0.5)
    for module, value in ((model[0], 0.25), (model[3], 0.25), (model[6], -0.25)):
        nn.init.constant_(module.weight, value)
    program = made(way, scheme, model, given)
    found, _ = run(program, given)
    assert torch.equal(found, found[:1].expand_as(found))
    for layer, sign in zip([*calls(program, "conv2d.default"), *calls(program, "linear.default")], (1, 1, -1), strict=True):
        codes = constants(program, layer.args[1])[0]
        assert all(len(row.unique()) == 1 for row in codes.flatten(1)) and (codes * sign > 0).all()


@pytest.mark.parametrize(("way", "scheme"), [("quantize", "shift8"), ("prepare", "uniform"), ("prepare", "n2uq")])
@pytest.mark.parametrize("value", [0.5, 0.0, -2.0])
def test_images_of_one_colour(way, scheme, value):
    given = torch.full((3, 2, 4, 4), value)
    found, _ = run(made(way, scheme, network(), given), given)
    assert torch.equal(found, found[:1].expand_as(found))


@every_way
def test_one_weight_one_pixel_one_image(way, scheme):
    """The schemes of even steps lose next to nothing of one number; the uniform one may clip it, the ternary ones choose its size."""
    torch.manual_seed(3)
    model, given = nn.Conv2d(1, 1, 1), torch.tensor([[[[0.7]]]])
    found, step = run(made(way, scheme, model, given), given)
    if scheme in WIDE:
        expected = model.weight.detach().item() * 0.7 + model.bias.detach().item()
        assert float(found) == pytest.approx(expected, abs=0.02 * abs(expected) + step)


@every_way
@pytest.mark.parametrize("bits", [1, 9, 0, -4, 4.0, "4", True])
def test_bits(way, scheme, bits):
    with pytest.raises(QuantizeError, match=rf"^bits must be a whole number in 2\.\.8, not {bits!r} \(2 bits are -1, 0, 1\)$"):
        if way == "quantize":
            quantize(nn.Conv2d(2, 1, 1), calibration=images(1), scheme=scheme, bits=bits)
        else:
            prepare(nn.Conv2d(2, 1, 1), example=images(1), scheme=scheme, bits=bits)


@every_training
@pytest.mark.parametrize("name", ["bits", "activation_bits", "edge_bits"])
@pytest.mark.parametrize("bits", [1, 9, 2.5])
def test_bits_of_a_scheme_of_ones_own(scheme, name, bits):
    with pytest.raises(QuantizeError, match=rf"^{name} must be a whole number in 2\.\.8, not {bits} \(2 bits are -1, 0, 1\)$"):
        replace(TRAINING_SCHEMES[scheme], **{name: bits})
    if name == "bits":
        with pytest.raises(QuantizeError, match=rf"^bits must be a whole number in 2\.\.8, not {bits} "):
            replace(SCHEMES["shift8"], bits=bits)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_calibration_without_images(scheme):
    for given, text in (
        ([], r"^calibration must hold at least one image, but is empty \(a few dozen are enough\)$"),
        (iter(()), r"^calibration must hold at least one image, but is empty \(a few dozen are enough\)$"),
        (images(0), r"^calibration\[0\] must hold at least one image, not 0 \(a few dozen are enough\)$"),
        (None, r"^calibration must be given, not left out \(some images; or example, an input, to quantize without images\)$"),
    ):
        with pytest.raises(QuantizeError, match=text):
            quantize(network(), calibration=given, scheme=scheme)


@every_training
def test_an_example_without_images(scheme):
    with pytest.raises(QuantizeError, match=r"^example must be real numbers of the shape .*, not \[0, 2, 4, 4\] \(take a batch\)$"):
        prepare(network(), example=images(0), scheme=scheme)


@pytest.mark.parametrize(("way", "scheme"), [("quantize", "shift8"), ("quantize", "tquant"), *(("prepare", name) for name in TRAINED)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_none(way, scheme, value):
    """In images, in weights, in statistics."""

    def refused(text, model, given):
        with pytest.raises(QuantizeError, match=text):
            made(way, scheme, model, given)

    bad = images()
    bad[1, 0, 2, 2] = value
    refused(
        r"^(calibration\[0\]|example) must be finite, but holds NaN or infinity \(check how the images are normalised\)$", network(), bad
    )
    for name, module in (("weight", 3), ("bias", 6), ("running_var", 1)):
        model = network()
        getattr(model[module], name).data.flatten()[0] = value
        refused(rf"^{name} of module '{module}' must be finite, but 1 of its \d+ values are NaN or infinite \(", model, images())
    model = network()
    model[1].running_var[0] = -1.0
    refused(r"^the output of module '\d' \(aten.*\) must be finite on ", model, images())


@every_training
def test_what_training_made_no_number_is_named(scheme):
    prepared = prepare(network(), example=images(), scheme=scheme, bits={"*": TRAINING_SCHEMES[scheme].bits})
    names = [name for name, _ in prepared.named_parameters() if "quantizer" in name]
    assert any("activation_quantizer" in name for name in names)
    for name in names:
        parameter = prepared.get_parameter(name)
        before = parameter.detach().clone()
        parameter.data.flatten()[0] = torch.nan
        module, _, attribute = name.rpartition(".")
        with pytest.raises(QuantizeError, match=rf"^{attribute} of module '{module}' must be finite, but 1 of its \d+ values are NaN"):
            convert(prepared)
        parameter.data.copy_(before)
    convert(prepared)


def counting(**slopes):
    """A network whose middle tensor counts thresholds behind a PReLU."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.PReLU(4), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    for channel, slope in slopes.items():
        model[1].weight.data[int(channel.removeprefix("c"))] = slope
    return prepare(model, example=images(), scheme="n2uq", bits={"*": 4})


def test_slopes_that_fall_are_refused_with_their_layer():
    import_exported(convert(counting(c2=0.0)), config=BASE)
    text = r"\n  1: aten\.prelu\.default.*: slope below zero of channel 2 must be at least 0 before thresholds, not -0\.125 \(train"
    with pytest.raises(UnsupportedError, match=text):
        import_exported(convert(counting(c2=-0.125, c1=-0.01)), config=BASE)


@pytest.mark.parametrize("name", ["input_scale", "output_scale"])
@pytest.mark.parametrize("value", [0.0, -0.5])
def test_scales_that_turned_are_refused_with_their_module(name, value):
    prepared = counting()
    prepared.get_parameter(f"1.activation_quantizer.{name}").data.fill_(value)
    text = rf"^module '1\.activation_quantizer': {name} must be positive, not {value:.4g} \(train at a lower rate; see parameter_groups\)$"
    with pytest.raises(QuantizeError, match=text):
        convert(prepared)


def test_thresholds_that_crossed_are_held_apart():
    """Segments of negative width: the thresholds stay in order, and network and machine agree on them."""
    prepared = counting()
    quantizer = prepared.get_submodule("1.activation_quantizer")
    quantizer.lengths.data[3:9] = -0.7
    assert (quantizer.input_thresholds().diff() > 0).all()
    with torch.no_grad():
        expected = prepared(images())
    found, step = run(convert(prepared), images())
    assert float((found - expected).abs().max()) <= 2 * step


@pytest.mark.parametrize("levels", [[0.9, 0.1, -0.5], [0.3, 0.3, 0.3], [-torch.inf, 0.1, torch.inf], [-1e30, 0.1, 1e30]])
def test_thresholds_in_any_order(levels):
    """The number of thresholds passed does not depend on their order; of the same ones all are passed at once."""
    graph, sorted_graph = (
        import_exported(export(nn.Sequential(Quant(0.02, 3), Conv(odd(2, 4, 6, 1, 1)), Thresholds(row)), 6, 3, 3), config=BASE).graph
        for row in (levels, sorted(levels))
    )
    codes = np.random.default_rng(1).integers(-128, 128, (1, 3, 3, 6))
    (found,), (expected,) = (run_reference(one, {one.inputs[0]: codes}).values() for one in (graph, sorted_graph))
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 1 or len(set(levels)) == 1
    golden = execute_program(compile_graph(graph, BASE), {graph.inputs[0]: codes}, on="golden").tensors[graph.outputs[0]]
    np.testing.assert_array_equal(golden, expected)
    order = np.argsort(levels, kind="stable")
    np.testing.assert_array_equal(only(graph).thresholds[:, order], only(sorted_graph).thresholds)


def spoiled(module, name, value):
    getattr(module, name).data[1] = value
    return module


NO_NUMBERS = {
    "slope": (lambda: nn.LeakyReLU(torch.nan), r"2: aten\.leaky_relu\.default: slopes must be numbers, not NaN or infinity \(load other"),
    "slopes": (lambda: spoiled(nn.PReLU(8), "weight", torch.inf), r"2: aten\.prelu\.default: slopes must be numbers, not NaN or infinity "),
    "gains": (
        lambda: spoiled(nn.BatchNorm2d(8).eval(), "weight", torch.nan),
        r"2: aten\.batch_norm\.default: gains and offsets must be numbers, not NaN or infinity \(load other weights\)$",
    ),
    "variance": (
        lambda: spoiled(nn.BatchNorm2d(8).eval(), "running_var", -1.0),
        r"2: aten\.batch_norm\.default: gains and offsets must be numbers, not NaN or infinity \(load other weights\)$",
    ),
    "falling slope": (
        lambda: nn.LeakyReLU(-0.1),
        r"2: aten\.leaky_relu\.default: slope below zero of channel 0 must be at least 0 before th",
    ),
    "falling behind a max pool": (
        lambda: nn.Sequential(nn.MaxPool2d(2), RealPart(8, spread=1.0)),
        r"3\.multi_threshold: .*: function between a max pool and thresholds must be rising in all channels, not falling in some \(quan",
    ),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_cannot_become_thresholds_is_refused_by_name(name):
    make, text = NO_NUMBERS[name]
    model = nn.Sequential(Quant(0.02, 3), Conv(odd(2, 8, 6, 1, 1)), make(), Thresholds(LEVELS[2]))
    with pytest.raises(UnsupportedError, match=rf"^1 operator of the network cannot run:\n  {text}"):
        import_exported(export(model, 6, 4, 4), config=BASE)


def test_thresholds_that_are_no_numbers():
    model = nn.Sequential(Quant(0.02, 3), Conv(odd(2, 8, 6, 1, 1)), Thresholds([0.1, torch.nan, 0.5]))
    with pytest.raises(UnsupportedError, match=r"\n  2\.multi_threshold: .*: thresholds must be numbers, not NaN or infinity \(load other"):
        import_exported(export(model, 6, 4, 4), config=BASE)
