"""From a trained network to codes on the machine, by the commands and by the demo."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tercel
from tercel.hw.config import SMALL
from tercel.sim.cli import main
from tercel.sim.demo import Width, layer_bits, run_demo
from tercel.sw import zoo
from tercel.sw.zoo.digits_data import digits_part


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Calibration and test images, and the network quantized and compiled by the commands."""
    folder = tmp_path_factory.mktemp("digits")
    np.save(folder / "calibration.npy", digits_part("calibration").normalized()[:32])
    np.save(folder / "images.npy", digits_part("test").normalized()[:20])
    bits = ["--bits", "4", "--bits", "classifier*=8"]
    assert main(["quantize", "digits", "--calibrate", str(folder / "calibration.npy"), *bits, "-o", str(folder / "digits.tq")]) == 0
    assert main(["compile", str(folder / "digits.tq"), "--config", "small", "-o", str(folder / "digits.tnpu")]) == 0
    return folder


def test_explain(folder, capsys):
    assert main(["explain", str(folder / "digits.tq"), "--config", "small", "--json"]) == 0
    verdicts = {operator["name"]: operator["verdict"] for operator in json.loads(capsys.readouterr().out)}
    assert verdicts["features.0.0"] == "placed" and verdicts["features.0.2"] == "fused"
    assert main(["explain", str(folder / "digits.tq"), "--config", "small"]) == 0
    text = capsys.readouterr().out
    assert "features.1.add" in text and "quantize_per_tensor" not in text and "18 placed" in text


def test_the_file_says_how_images_become_input(folder):
    program = tercel.load(folder / "digits.tnpu").program
    assert program.image_format == zoo.build("digits").image_format
    assert {mark.digits for mark in program.marks if mark.engine == "array" and mark.name != "classifier.1"} == {2}


def test_the_network_still_reads_digits(folder, capsys):
    assert main(["run", str(folder / "digits.tnpu"), "-i", str(folder / "images.npy"), "--on", "reference", "--json"]) == 0
    output = json.loads(capsys.readouterr().out)["outputs"]["classifier.1"]
    assert np.mean(np.array(output["top"]) == digits_part("test").labels[:20]) >= 0.9


@pytest.mark.parametrize("executions", ["fake-quantized,golden", "float,fake-quantized", "reference,float"])
def test_comparisons_with_floating_point(folder, executions, capsys):
    files = ["compare", str(folder / "digits.tnpu"), "-i", str(folder / "images.npy"), "--quantized", str(folder / "digits.tq")]
    assert main([*files, "--on", executions, "--network", "digits", "--layers", "*", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["tensors"]) == 18 and found["agreement"] > 0.8
    least = min(tensor["sqnr"] for tensor in found["tensors"])
    assert least > (25 if "float" not in executions.split(",") else 5)
    assert main([*files, "--on", executions, "--network", "digits", "--limit", "100"]) == 1


def test_demo(tmp_path):
    widths = (Width(name="8-bit", scheme="shift8", bits=8), Width(name="ternary-trained", scheme="ternary", bits=2, trained=True))
    result = run_demo(SMALL, tmp_path, widths=widths, rtl=False)
    assert result.equal and result.images == 397
    assert result.float_accuracy > 0.95
    eight, ternary = result.widths
    assert eight.accuracy > 0.95 and ternary.accuracy > 0.9
    assert eight.golden_equal == eight.golden_images > 0 and eight.rtl_images == 0
    assert ternary.cycles < eight.cycles
    for width in result.widths:
        assert ">features.1.add</td>" in Path(width.report).read_text()
        assert tercel.load(width.program).config.name == "small"
    assert json.loads(json.dumps(result.as_json()))["equal"] is True


def test_weights_trained_to_be_ternary_stay_as_they_are():
    model = zoo.build("digits")
    zoo.load_weights(model, zoo.shipped_weights("digits", ternary=True))
    bits = layer_bits(model, 2)
    assert bits["*"] == 2 and bits["classifier.1"] == bits["features.0.0"] == bits["features.1.conv.0.0"] == 8
    weights = model.get_submodule("features.2.conv.0.0").weight.detach().numpy().reshape(64, -1)
    levels = np.abs(weights).max(axis=1, keepdims=True)
    assert set(np.unique(weights / levels)) <= {-1.0, 0.0, 1.0}


def test_captured_networks_from_elsewhere(folder, tmp_path, capsys):
    captured = tmp_path / "digits.pt2"
    captured.write_bytes((folder / "digits.tq").read_bytes())
    assert main(["compile", str(captured), "--config", "small", "-o", str(tmp_path / "digits.tnpu"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == 18
    assert main(["compile", str(captured), "--config", "tiny", "-o", str(tmp_path / "digits.tnpu")]) == 4
    assert capsys.readouterr().err.startswith("tercel: ")
    captured.write_text("text")
    assert main(["explain", str(captured)]) == 2
    assert capsys.readouterr().err.startswith(f"tercel: {captured}: not an archive of torch.export, or cut short ")
    captured.unlink()
    assert main(["explain", str(captured)]) == 2
    assert capsys.readouterr().err.startswith(f"tercel: {captured}: cannot be read: No such file or directory ")


def test_unsupported_networks_have_exit_code_3(tmp_path, capsys):
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(torch.nn.Conv2d(1, 2, 3), (torch.zeros(1, 1, 8, 8),)), path)
    assert main(["explain", str(path), "--config", "small"]) == 3
    assert "1 rejected" in capsys.readouterr().out
    assert main(["compile", str(path), "--config", "small", "-o", str(tmp_path / "net.tnpu")]) == 3
    assert capsys.readouterr().err.startswith("tercel: 1 operator of the network cannot run:\n  conv2d: aten.conv2d.default: output ")
