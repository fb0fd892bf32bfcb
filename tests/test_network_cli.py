"""The network flow on the command line: files, output for people and for scripts, exit codes, errors."""

import json

import numpy as np
import pytest
from PIL import Image
from small_networks import chain, mobile_block

from tercel.hw.config import SMALL
from tercel.sim import network as network_module
from tercel.sim.api import compile_network
from tercel.sim.cli import main
from tercel.sim.execution import DeviceError, execute_program
from tercel.sim.parse import UsageError
from tercel.sim.quantize_cli import calibration_files, parse_bits
from tercel.sw.image_format import ImageFormat
from tercel.sw.layer_spec import LayerSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A compiled network, codes and floats for it; and one for photographs."""
    folder = tmp_path_factory.mktemp("networks")
    compile_network(mobile_block(), config=SMALL).save(folder / "block.tnpu")
    codes = np.random.default_rng(3).integers(0, 256, (2, 6, 6, 8))
    np.save(folder / "codes.npy", codes)
    np.savez(folder / "floats.npz", x=np.moveaxis(codes * 0.1, -1, 1))
    photo = chain(("stem", LayerSpec(kind="conv", input=(8, 8, 3), out=4, kernel=(3, 3), z_out=128)))
    compile_network(photo, config=SMALL, image_format=ImageFormat(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)).save(folder / "photo.tnpu")
    Image.fromarray(np.random.default_rng(4).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / "cat.png")
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(folder / "large.png")
    return folder


def test_run_shows_the_best_classes(folder, capsys):
    assert main(["run", str(folder / "block.tnpu"), "--input", str(folder / "codes.npy")]) == 0
    text = capsys.readouterr().out
    assert "classifier_out: class (value)" in text and "golden: " in text and "top 5" in text


def test_run_for_scripts_and_into_files(folder, tmp_path, capsys):
    written = tmp_path / "out.npz"
    arguments = ["run", str(folder / "block.tnpu"), "--input", str(folder / "floats.npz"), "--on", "reference"]
    assert main([*arguments, "--json", "-o", str(written)]) == 0
    result = json.loads(capsys.readouterr().out)
    output = result["outputs"]["classifier_out"]
    assert result["on"] == "reference" and result["cycles"] is None
    arrays = np.load(written)
    np.testing.assert_array_equal(arrays["classifier_out"], output["values"])
    np.testing.assert_array_equal(arrays["classifier_out.codes"][:, 0, 0], output["codes"])
    assert output["top"] == arrays["classifier_out"].argmax(axis=1).tolist()


def test_run_of_some_layers(folder, capsys):
    assert main(["run", str(folder / "block.tnpu"), "--input", str(folder / "codes.npy"), "--layers", "block.*"]) == 0
    assert "block.project_out: 2x8x6x6, " in capsys.readouterr().out


def test_photographs(folder, capsys):
    assert main(["run", str(folder / "photo.tnpu"), "--input", str(folder / "cat.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["stem_out"]["shape"] == [1, 4, 6, 6]
    arguments = ["run", str(folder / "photo.tnpu"), "-i", str(folder / "cat.png"), "-i", str(folder / "large.png"), "--json"]
    assert main([*arguments, "--resize", "--normalization", "imagenet"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["stem_out"]["shape"] == [2, 4, 6, 6]
    assert main(arguments) == 2
    assert "large.png: image is 30x20, the network takes 8x8" in capsys.readouterr().err


def test_compare(folder, capsys, monkeypatch):
    arguments = ["compare", str(folder / "block.tnpu"), "--input", str(folder / "codes.npy"), "--on", "reference,golden"]
    assert main(arguments) == 0
    assert "reference and golden are equal: 20 codes in 1 tensors" in capsys.readouterr().out
    assert main([*arguments, "--layers", "*", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["tensors"]) == 5

    def wrong(program, inputs, **more):
        execution = execute_program(program, inputs, **more)
        for codes in execution.tensors.values():
            codes[0, 0, 0, 1] += 1
        return execution

    monkeypatch.setattr(network_module, "execute_program", wrong)
    assert main(arguments) == 1
    text = capsys.readouterr().out
    assert "reference and golden differ first in layer block.expand, tile 0, pixel 0 (row 0, column 0), channel 1, image 0: " in text


def test_disassembly_of_some_layers(folder, capsys):
    assert main(["disasm", str(folder / "block.tnpu")]) == 0
    everything = capsys.readouterr().out.splitlines()
    assert main(["disasm", str(folder / "block.tnpu"), "--layers", "block.depthwise"]) == 0
    some = capsys.readouterr().out.splitlines()
    assert set(some) < set(everything) and sum(line.startswith("DEPTHWISE") for line in some) >= 1
    assert main(["disasm", str(folder / "block.tnpu"), "--layers", "x"]) == 2
    assert "layers must match a layer of the program, not 'x' (the first are block.expand, " in capsys.readouterr().err


def test_report(folder, tmp_path, capsys):
    page = tmp_path / "block.html"
    assert main(["report", str(folder / "block.tnpu"), "-o", str(page)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(page), str(page.with_suffix(".trace.json"))]
    assert page.read_text().count("<svg") == 4
    assert main(["report", str(folder / "block.tnpu"), "--json", "--clock-mhz", "50"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["frames_per_second"] == pytest.approx(50e6 / figures["cycles"])
    assert len(figures["layers"]) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run {0}/none.tnpu --input x.npy", "{0}/none.tnpu cannot be read: No such file or directory"),
        ("run {0}/block.tnpu --input {0}/none.npy", "input must be an array file, but {0}/none.npy is not: "),
        ("run {0}/block.tnpu --input {0}/block.tnpu", "input must be a .npy or .npz file, not {0}/block.tnpu (the program does not say "),
        ("run {0}/block.tnpu --input {0}/cat.png --normalization unit", "normalization must be left out for an input of 6x6x8 (give "),
        ("run {0}/photo.tnpu --input {0}/cat.png --normalization none", "normalization must be one of imagenet, unit, not 'none' "),
        ("run {0}/photo.tnpu --input {0}/codes.npy", "x must have shape [8, 8, 3] (height, width, channels of codes) with or without a "),
        ("run {0}/block.tnpu -i {0}/codes.npy --on board", "on must be reference, golden, verilator or board:PORT, not 'board' "),
        ("run {0}/block.tnpu -i {0}/codes.npy --layers x", "pattern must match at least one layer, not 'x' (close: block.expand, "),
        ("compare {0}/block.tnpu -i {0}/codes.npy --on golden", "on must be two different executions with a comma, not 'golden' "),
        ("quantize resnet20 --calibrate {0} -o {0}/net.tq", "weights must be given for resnet20, not left out (a file with its trained "),
        ("quantize digits --calibrate {0}/none.npy -o {0}/net.tq", "calibrate must be an array file or a folder, but {0}/none.npy is "),
        ("quantize digits -o {0}/net.tq", "calibrate must be given, or --data-free (a folder of photographs tells more than "),
        ("quantize digits --calibrate {0} --data-free -o {0}/net.tq", "calibrate must be left out with --data-free (a folder of "),
        ("quantize digits --data-free --rounding learned -o {0}/net.tq", "rounding must be nearest or left out without calibration, "),
        ("quantize lenet --calibrate {0} -o {0}/net.tq", "network must be one of digits, "),
        ("quantize mobilenet_v2,width=9 --calibrate {0} -o {0}/net.tq", "width must be a number in 0.1..4, not 9 "),
        ("quantize resnet20,7 --calibrate {0} -o {0}/net.tq", "network must be NAME or NAME,option=value,..., not 'resnet20,7' "),
        ("compare {0}/block.tnpu -i {0}/codes.npy --on float,golden", "quantized must be given for float,golden, not left out "),
        ("compile {0}/none.tq --config huge -o {0}/net.tnpu", "config must be one of tiny, nano, small, base, large, not 'huge' "),
        ("demo --config huge", "config must be one of tiny, nano, small, base, large, not 'huge' "),
    ],
)
def test_wrong_input_is_exit_code_2(folder, arguments, message, capsys):
    assert main(arguments.format(folder).split()) == 2
    text = capsys.readouterr()
    lines = text.err.splitlines()
    assert lines[-1].startswith(f"tercel: {message.format(folder)}"), text.err
    assert "Traceback" not in text.err + text.out


def test_quantize_without_images(tmp_path, capsys):
    written = tmp_path / "net.tq"
    options = ["--data-free", "--equalize", "--scheme", "tquant", "--bits", "*=8", "--json"]
    assert main(["quantize", "digits", *options, "-o", str(written)]) == 0
    assert json.loads(capsys.readouterr().out)["calibration_images"] == 0 and written.is_file()
    assert main(["schemes"]) == 0
    assert "mquant_tertiles_per_channel" in capsys.readouterr().out


def test_faults_and_internal_errors_have_their_own_exit_codes(folder, monkeypatch, capsys):
    def raiser(error):
        def fail(*_, **__):
            raise error

        return fail

    arguments = ["run", str(folder / "block.tnpu"), "--input", str(folder / "codes.npy")]
    monkeypatch.setattr(network_module, "execute_program", raiser(DeviceError("golden ended with DEADLOCK")))
    assert main(arguments) == 6
    assert capsys.readouterr().err.splitlines()[-1] == "tercel: golden ended with DEADLOCK"
    monkeypatch.setattr(network_module, "execute_program", raiser(IndexError("list")))
    assert main(arguments) == 70
    assert capsys.readouterr().err.splitlines()[-1].startswith("tercel: error in Tercel itself: IndexError: list (TERCEL_TRACEBACK=1 ")
    monkeypatch.setenv("TERCEL_TRACEBACK", "1")
    with pytest.raises(IndexError):
        main(arguments)


def test_calibration_images_are_spread_over_the_folder(tmp_path):
    for name in "abcdef":
        Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    assert [path.stem for path in calibration_files(tmp_path, count=3)] == ["a", "c", "e"]
    assert len(calibration_files(tmp_path, count=100)) == 6
    (tmp_path / "labels.csv").write_text("file,label,role\nb.png,0,calib\nc.png,1,eval\nf.png,1,calib\n")
    assert [path.stem for path in calibration_files(tmp_path, count=100)] == ["b", "f"]


def test_bits():
    assert parse_bits([]) is None
    assert parse_bits(["4"]) == 4
    assert parse_bits(["4", "features.0*=8"]) == {"*": 4, "features.0*": 8}
    with pytest.raises(UsageError, match=r"^bits must be N or PATTERN=N, not 'x=y' \(for example 4, or 'features\.0\*=8'\)$"):
        parse_bits(["x=y"])
