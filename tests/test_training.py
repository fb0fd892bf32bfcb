"""Preparing small networks, training them for a few steps, and what converting them gives."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from small_torch_networks import DEQUANTIZE, Network, calls, constants, outputs, pictures, uneven

import tercel
from tercel.sim.cli import main
from tercel.sw.importer import import_exported
from tercel.sw.quantize import QuantizeError
from tercel.sw.training import (
    TRAINING_SCHEMES,
    TrainingScheme,
    convert,
    learned_bits,
    parameter_groups,
    prepare,
    regularizer,
    zero_shares,
)
from tercel.sw.zoo import build, load_weights, shipped_weights
from tercel.sw.zoo.digits_data import digits_part

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn import functional

OWN = [name for name in TRAINING_SCHEMES if name != "n2uq"]


@pytest.fixture(scope="module")
def network():
    return uneven(Network())


def fit(model, images, labels, *, steps, lr=2e-3):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(parameter_groups(model, lr=lr), lr=lr)
    model.train()
    for step in range(steps):
        chosen = torch.arange(step * 32, step * 32 + 32) % len(labels)
        loss = functional.cross_entropy(model(images[chosen]), labels[chosen]) + 1e-3 * regularizer(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def digits():
    model = build("digits")
    load_weights(model, shipped_weights("digits"))
    train, test = digits_part("train"), digits_part("test")
    return model, tuple((torch.from_numpy(part.normalized()), torch.from_numpy(part.labels)) for part in (train, test))


def test_eight_bits_compute_what_the_network_does(network):
    images = pictures(32)
    prepared = prepare(network, example=images, scheme="uniform", bits=8)
    with torch.no_grad():
        expected, found = network(images), prepared(images)
    assert not prepared.training
    assert (found - expected).square().mean() / expected.var() < 1e-2


def test_parameters_keep_their_names_and_the_model_stays(network):
    before = copy.deepcopy(network.state_dict())
    prepared = prepare(network, example=pictures(4))
    names = set(dict(prepared.named_parameters()))
    assert set(dict(network.named_parameters())) <= names
    assert {name.rpartition(".")[2] for name in names - set(before)} == {"log_scale"}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    frozen = copy.deepcopy(network)
    frozen.stem[0].weight.requires_grad_(False)
    assert not dict(prepare(frozen, example=pictures(4)).named_parameters())["stem.0.weight"].requires_grad


@pytest.mark.parametrize("scheme", OWN)
def test_every_scheme_trains_and_converts(network, scheme):
    """What is converted computes what the prepared network does in evaluation mode, but for a code where sums lie between two."""
    images = pictures(64)
    labels = torch.arange(64) % 10
    prepared = fit(prepare(copy.deepcopy(network).train(), example=images, scheme=scheme), images, labels, steps=3)
    program = convert(prepared)
    with torch.no_grad():
        expected = prepared(images[:16])
    step = program.graph.output_node().args[0][0].args[1]
    difference = (outputs(program, images[:16]) - expected).abs() / step
    assert difference.mean() < 0.02 and difference.max() < 2.5
    assert not calls(program, "batch_norm.default")
    for layer in calls(program, "conv2d.default") + calls(program, "linear.default"):
        assert str(layer.args[0].target).endswith(DEQUANTIZE)
        weights, scales, (low, high) = constants(program, layer.args[1])
        assert weights.dtype == torch.int8 and low <= weights.min() and weights.max() <= high
        bias, bias_scales, _ = constants(program, layer.args[2])
        assert bias.dtype == torch.int32 and bias.abs().max() < 1 << 30
        assert torch.equal(bias_scales, torch.tensor([layer.args[0].args[1]], dtype=torch.float32) * scales)
        ratios = np.log2((scales.max().double() / scales.double()).numpy())
        assert np.array_equal(ratios, np.round(ratios)) and ratios.max() <= 15


def test_widths_of_weights_and_activations(network):
    images = pictures(8)
    scheme = replace(TRAINING_SCHEMES["uniform"], activation_bits=3)
    program = convert(prepare(network, example=images, scheme=scheme, bits=4))
    layers = calls(program, "conv2d.default") + calls(program, "linear.default")
    assert [constants(program, layer.args[1])[2][1] for layer in layers] == [127] + [7] * 9 + [127]
    largest = [layer.args[0].args[4] for layer in layers]
    # The image, operands of adds, and what the last layer reads have 8 bits.
    assert largest == [255, 255, 7, 7, 7, 7, 7, 255, 7, 7, 255]
    named = convert(prepare(network, example=images, bits={"*": 5, "stem*": 3, "classifier.1": 6}))
    layers = calls(named, "conv2d.default") + calls(named, "linear.default")
    assert [constants(named, layer.args[1])[2][1] for layer in layers] == [3] + [15] * 9 + [31]


def test_training_and_evaluation_agree(digits):
    """With the statistics of a batch and with the running ones, images of the same kind come out alike."""
    model, ((images, labels), _) = digits
    prepared = fit(prepare(model, example=images[:64], scheme="tquant"), images, labels, steps=40)
    fit(prepared, images, labels, steps=15, lr=1e-4)
    shares = []
    for training in (False, True):
        prepared.train(training)
        with torch.no_grad():
            shares.append(float((prepared(images[:400]).argmax(1) == labels[:400]).double().mean()))
    assert shares[0] > 0.85 and abs(shares[0] - shares[1]) < 0.05


def test_the_integers_are_as_right_as_the_prepared_network_and_run_on_the_machine(digits):
    model, ((images, labels), (test_images, test_labels)) = digits
    prepared = fit(prepare(model, example=images[:64], scheme="cpq", bits=4), images, labels, steps=12)
    program = convert(prepared)
    imported = import_exported(program, config=tercel.configs.base)
    assert not imported.warnings
    assert {node.spec.weight_bits for node in imported.graph.nodes if node.spec.kind == "conv"} == {4, 8}
    network = tercel.compile(program, config=tercel.configs.small)
    few = test_images[:2].numpy()
    golden, reference = (network.run(few, on=on) for on in ("golden", "reference"))
    np.testing.assert_array_equal(golden.output, reference.output)
    integers = tercel.compile(program).run(test_images.numpy(), on="reference").output
    with torch.no_grad():
        predicted = prepared(test_images).argmax(1)
    share = (predicted == test_labels).double().mean()
    assert share > 0.9
    assert abs(float(share) - float((torch.from_numpy(integers).argmax(1) == test_labels).double().mean())) <= 0.003 + 1 / 397


def test_checkpoints(network):
    images, labels = pictures(64), torch.arange(64) % 10
    trained = fit(prepare(copy.deepcopy(network).train(), example=images, scheme="cpq_dropbits"), images, labels, steps=4)
    other = prepare(uneven(Network(), seed=5), example=pictures(4, seed=9), scheme="cpq_dropbits")
    other.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert torch.equal(other(images), trained(images))
    first, second = (convert(model).state_dict for model in (trained, other))
    assert first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def test_widths_that_were_learned_are_those_of_the_program(network):
    prepared = prepare(network, example=pictures(4), scheme="cpq_dropbits")
    assert set(learned_bits(prepared).values()) == {4, 8} and float(regularizer(prepared).detach()) > 20
    quantizer = prepared.get_submodule("blocks.0.expand.0.weight_quantizer")
    quantizer.keep_logits.data[1:] = -5.0
    widths = learned_bits(prepared)
    assert widths["blocks.0.expand.0"] == 2 and widths["blocks.1.expand.0"] == 4
    program = convert(prepared)
    grids = [constants(program, layer.args[1])[2] for layer in calls(program, "conv2d.default")]
    assert grids[:3] == [(-127, 127), (-2, 1), (-8, 7)]
    assert float(regularizer(prepare(network, example=pictures(4)))) == 0.0
    again = prepare(network, example=pictures(4), scheme="cpq", bits=widths)
    assert learned_bits(again) == widths


def test_shares_of_zeros(network):
    shares = {scheme: zero_shares(prepare(network, example=pictures(4), scheme=scheme)) for scheme in ("ternary_naive", "tquant", "mquant")}
    layer = "blocks.1.expand.0"
    assert shares["mquant"][layer] < shares["tquant"][layer] < shares["ternary_naive"][layer]
    assert shares["mquant"][layer] == pytest.approx(1 / 3, abs=0.1)


class Odd(nn.Module):
    """A layer used twice, layers without a batch norm, negative gains, a concatenation, a max pool, constant weights, dropout."""

    def __init__(self):
        super().__init__()
        self.left, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.right = nn.Conv2d(3, 4, 1)
        self.twice = nn.Conv2d(8, 8, 1)
        self.register_buffer("copy", torch.eye(8).reshape(8, 8, 1, 1))
        self.drop = nn.Dropout2d(0.1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        y = torch.cat([functional.relu(self.norm(self.left(x))), self.right(x)], 1)
        y = functional.conv2d(functional.max_pool2d(y, 2), self.copy)
        y = self.drop(self.twice(functional.relu(self.twice(y))))
        return self.head(y.mean((2, 3)))


@pytest.mark.parametrize("scheme", ["uniform", "tquant", "cpq"])
def test_odd_networks(scheme):
    torch.manual_seed(3)
    model = Odd()
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([1.0, -0.5, 2.0, -1.0]))
        model.norm.running_mean.normal_()
    model.eval()
    images = pictures(32)
    exact = prepare(model, example=images, scheme=scheme, bits={"*": 8})
    with torch.no_grad():
        expected = model(images)
        assert (exact(images) - expected).square().mean() / expected.var() < 1e-2
    prepared = fit(prepare(model.train(), example=images, scheme=scheme), images, torch.arange(32) % 5, steps=4)
    program = convert(prepared)
    import_exported(program, config=tercel.configs.base)
    with torch.no_grad():
        expected = prepared(images)
    step = program.graph.output_node().args[0][0].args[1]
    assert ((outputs(program, images) - expected).abs() / step).mean() < 0.02


def test_norms_that_stand_alone_train_and_dropout_drops():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 3))
    prepared = prepare(model, example=pictures(4, size=8))
    before = prepared.get_submodule("2").running_mean.clone()
    assert not torch.equal(prepared(pictures(4, size=8)), prepared(pictures(4, size=8)))
    assert not torch.equal(prepared.get_submodule("2").running_mean, before)
    assert prepared.eval()(pictures(7, size=8)).shape == (7, 3)


def test_learning_rates(network):
    prepared = prepare(network, example=pictures(4), scheme="cpq_dropbits")
    groups = parameter_groups(prepared, lr=0.1, weight_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(prepared.parameters()))
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(0.1, 0.5), (0.1, 0.0), (3.0, 0.0)}


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def test_errors(network):
    images = pictures(4)
    names = ", ".join(TRAINING_SCHEMES)
    for options, text in (
        ({"bits": 9}, r"^bits must be a whole number in 2\.\.8, not 9 \(2 bits are -1, 0, 1\)$"),
        ({"bits": {"stem*": 1}}, r"^bits\['stem\*'\] must be a whole number in 2\.\.8, not 1 \(2 bits are -1, 0, 1\)$"),
        ({"bits": {"nothing": 4}}, r"^bits\['nothing'\] must match a layer with weights, but matches none of 11 "),
        ({"scheme": "shift8"}, rf"^scheme must be one of {names}, not 'shift8' \(or a TrainingScheme of your own\)$"),
    ):
        with pytest.raises(QuantizeError, match=text):
            prepare(network, example=images, **options)
    for example, shown in (
        (images[0], r"\[3, 16, 16\]"),
        ("x", "str"),
        (images.long(), r"\[4, 3, 16, 16\]"),
        (images[:0], r"\[0, 3, 16, 16\]"),
    ):
        with pytest.raises(QuantizeError, match=rf"^example must be real numbers of the shape .*, not {shown} \(take a batch\)$"):
            prepare(network, example=example)
    with pytest.raises(QuantizeError, match=r"^example must be finite, but holds NaN or infinity \(check how the images are normalised\)$"):
        prepare(network, example=images * float("inf"))
    broken = copy.deepcopy(network)
    broken.stem[0].weight.data[0, 0, 0, 0] = float("nan")
    nan = r"^weight of module 'stem\.0' must be finite, but 1 of its 216 values are NaN or infinite \(load other weights\)$"
    with pytest.raises(QuantizeError, match=nan):
        prepare(broken, example=images)
    prepared = prepare(network, example=images)
    prepared.get_parameter("stem.0.weight").data[0, 0, 0, 0] = float("nan")
    with pytest.raises(QuantizeError, match=nan):
        convert(prepared)
    with pytest.raises(QuantizeError, match=r"^model must be one that torch\.export can capture: .*\(remove what depends on the values"):
        prepare(Branching(), example=images)
    with pytest.raises(QuantizeError, match=r"^prepared must be a network that tercel\.prepare made, not Network \("):
        convert(network)
    with pytest.raises(QuantizeError, match=r"^model must hold a convolution or linear layer with weights to train, but has none$"):
        prepare(nn.ReLU(), example=images)


def test_both_kinds_of_schemes_are_listed(capsys):
    assert main(["schemes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == ["quantize", "prepare"] and set(listed["prepare"]) == set(TRAINING_SCHEMES)
    assert listed["prepare"]["tquant"]["bits"] == 2 and listed["quantize"]["tquant"]["bits"] == 2
    assert main(["schemes"]) == 0
    assert "cpq_dropbits" in capsys.readouterr().out


def test_public_names():
    assert tercel.prepare is prepare and tercel.convert is convert
    assert all(isinstance(scheme, TrainingScheme) and scheme.name == name for name, scheme in TRAINING_SCHEMES.items())
