"""Published forms of weights into the zoo's networks, and files that do not fit."""

import numpy as np
import pytest
import torch
from rich.progress import Progress
from safetensors.torch import save_file
from torch import nn

from tercel.sw import zoo
from tercel.sw.zoo.digits_data import digits_part
from tercel.sw.zoo.train_digits import evaluate, train


def build(name="mobilenet_v2"):
    return zoo.build(name, width=0.25, size=32, classes=10) if name.startswith("mobilenet") else zoo.build(name)


def randomized(network, seed=0):
    """Batch norms with statistics of their own, as after training."""
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5), (module.running_var, 0.5)):
                tensor.data = torch.rand(tensor.shape, generator=random) + low
    return network


def folded(network):
    """The network's tensors with batch norms folded into weights and biases of the convolutions, computed in float64."""
    tensors, conv = {}, None
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            conv = (name, module.weight.double())
        elif isinstance(module, nn.BatchNorm2d):
            factor = module.weight.double() / (module.running_var.double() + module.eps).sqrt()
            tensors[f"{conv[0]}.weight"] = (conv[1] * factor[:, None, None, None]).float().detach()
            tensors[f"{conv[0]}.bias"] = (module.bias - module.running_mean * factor).float().detach()
        elif isinstance(module, nn.Linear):
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = module.weight.detach(), module.bias.detach()
    return tensors


def images(network, batch=2):
    return torch.randn(network.example(batch).shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_round_trip(tmp_path, suffix):
    source, target = randomized(build()), build()
    tensors = {name: value for name, value in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    path = tmp_path / f"weights{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    zoo.load_weights(target, path)
    assert torch.equal(target(images(target)), source(images(source)))


@pytest.mark.parametrize("wrap", [lambda t: {"state_dict": t}, lambda t: {"model": t}, lambda t: {f"module.{k}": v for k, v in t.items()}])
def test_wrapped_state(tmp_path, wrap):
    source, target = build(), build()
    torch.save(wrap(source.state_dict()), tmp_path / "w.pth")
    zoo.load_weights(target, tmp_path / "w.pth")
    assert torch.equal(target.classifier[1].weight, source.classifier[1].weight)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "resnet18", "resnet20", "digits"])
def test_folded_weights_come_back_to_the_last_bit(tmp_path, name):
    source, target = randomized(build(name)), randomized(build(name), seed=5)
    tensors = folded(source)
    torch.save(tensors, tmp_path / "w.pth")
    zoo.load_weights(target, tmp_path / "w.pth")
    again = folded(target)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], value) for key, value in tensors.items())
    for module in target.modules():
        if isinstance(module, nn.BatchNorm2d):
            probe = torch.randn(1, module.num_features, 2, 2)
            assert torch.equal(module(probe), probe + module.bias[:, None, None])
    with torch.no_grad():
        torch.testing.assert_close(target(images(target)), source(images(source)), rtol=1e-4, atol=1e-4)


def test_codes_and_scales(tmp_path):
    source = folded(randomized(build()))
    stored = {}
    for name, value in source.items():
        if name.endswith(".weight"):
            scale = value.flatten(1).abs().amax(1) / 127
            stored[f"{name}_scale"] = scale
            stored[name] = (value / scale.reshape(-1, *[1] * (value.dim() - 1))).round().to(torch.int8)
        else:
            stored[name] = value
    torch.save(stored, tmp_path / "w.pth")
    target = build()
    zoo.load_weights(target, tmp_path / "w.pth")
    weight = target.features[3].conv[1][0].weight
    key = "features.3.conv.1.0.weight"
    assert torch.equal(weight, stored[key].float() * stored[f"{key}_scale"][:, None, None, None])


def test_keras_names(tmp_path):
    source = randomized(build("mobilenet_v1"))
    stored = {}
    for name, value in source.state_dict().items():
        layer, _, parameter = name.rpartition(".")
        parts = layer.split(".")
        if layer == "classifier.1":
            stored[f"conv_preds.{parameter}"] = value[:, :, None, None] if parameter == "weight" else value
        elif parameter != "num_batches_tracked":
            kind = "conv1" if parts[1] == "0" else f"conv_{('dw', 'pw')[int(parts[3])]}_{parts[1]}"
            stored[f"{kind}{('', '_bn')[int(parts[-1])]}.{parameter}"] = value
    assert {"conv1_bn.weight", "conv_dw_13.weight", "conv_pw_13_bn.running_var"} <= stored.keys()
    torch.save(stored, tmp_path / "w.pth")
    target = build("mobilenet_v1")
    zoo.load_weights(target, tmp_path / "w.pth")
    assert torch.equal(target(images(target)), source(images(source)))


def test_one_error_lists_everything_that_does_not_fit(tmp_path):
    tensors = dict(build().state_dict())
    for index in range(1, 6):
        del tensors[f"features.{index}.conv.1.weight" if index == 1 else f"features.{index}.conv.2.weight"]
    tensors["head.weight"] = torch.zeros(3)
    tensors["classifier.1.weight"] = torch.zeros(1000, 1280)
    torch.save(tensors, tmp_path / "w.pth")
    network = build()
    before = network.classifier[1].bias.clone()
    message = (
        r"^w\.pth does not fit the network: 5 missing: features\.1\.conv\.1\.weight, features\.2\.conv\.2\.weight, "
        r"features\.3\.conv\.2\.weight and 2 more; 1 unexpected: head\.weight; "
        r"1 of another shape: classifier\.1\.weight is \(1000, 1280\), not \(10, 1280\) "
        r"\(build the network with the width and classes of the weights\)$"
    )
    with pytest.raises(zoo.WeightsError, match=message):
        zoo.load_weights(network, tmp_path / "w.pth")
    assert torch.equal(network.classifier[1].bias, before)


def test_weights_of_another_network(tmp_path):
    torch.save(zoo.build("resnet20").state_dict(), tmp_path / "w.pth")
    with pytest.raises(zoo.WeightsError, match=r"missing: .*unexpected: .* \(choose the network that the weights are of\)$"):
        zoo.load_weights(build(), tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers(tmp_path, value):
    tensors = build().state_dict()
    tensors["features.2.conv.0.0.weight"].flatten()[:2] = value
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(zoo.WeightsError, match=r"^w\.pth: features\.2\.conv\.0\.0\.weight has 2 of \d+ values NaN or infinite"):
        zoo.load_weights(build(), tmp_path / "w.pth")


def test_files_that_hold_no_weights(tmp_path):
    cases = {
        "w.onnx": (b"", r"^w\.onnx: weights must be one of \.pth, \.pt, \.safetensors \(save model\.state_dict\(\)"),
        "w.pth": (b"no zip", r"^w\.pth: cannot be read as tensors: "),
        "w.safetensors": (b"\x10\0\0\0\0\0\0\0{}", r"^w\.safetensors: not a whole safetensors file: "),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(zoo.WeightsError, match=message):
            zoo.load_weights(build(), tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(zoo.WeightsError, match=r"^list\.pth: holds no plain dictionary of tensors \(save model\.state_dict\(\)\)$"):
        zoo.load_weights(build(), tmp_path / "list.pth")
    torch.save(build(), tmp_path / "module.pth")
    with pytest.raises(zoo.WeightsError, match=r"^module\.pth: cannot be read as tensors: "):
        zoo.load_weights(build(), tmp_path / "module.pth")
    with pytest.raises(zoo.WeightsError, match=r"none\.pth: no such file"):
        zoo.load_weights(build(), tmp_path / "none.pth")


def test_parts_of_the_digits_are_whole_and_apart():
    parts = {name: digits_part(name) for name in ("train", "calibration", "test")}
    assert [len(part.labels) for part in parts.values()] == [1300, 100, 397]
    images = np.concatenate([part.images.reshape(len(part.images), -1) for part in parts.values()])
    assert images.dtype == np.uint8 and images.max() == 255
    for part in parts.values():
        assert set(part.labels) == set(range(10))
        assert part.normalized().shape == (len(part.labels), 1, 16, 16)
        assert np.array_equal(part.normalized()[:, 0], part.images / np.float32(255))


def test_the_same_seed_trains_the_same_weights():
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        network = zoo.build("digits")
        with Progress(disable=True) as progress:
            train(network, epochs=1, seed=seed, progress=progress)
        states.append(torch.cat([value.flatten().float() for value in network.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_shipped_digits():
    network = zoo.build("digits")
    path = zoo.shipped_weights("digits")
    zoo.load_weights(network, path)
    score = evaluate(network)
    assert score.total == 397
    assert score.correct >= 0.97 * score.total
    assert path.stat().st_size < 500_000
    assert zoo.shipped_weights("mobilenet_v2") is None
