"""The command line: reports, files and exit codes, without a traceback."""

import json

import pytest

from tercel.hw.config import SMALL
from tercel.sim import layer_command
from tercel.sim.backend import GoldenBackend
from tercel.sim.cli import main
from tercel.sim.layer_command import run_layer
from tercel.sim.parse import UsageError, parse_padding, parse_pair, parse_shape
from tercel.sw.assembly import disassemble
from tercel.sw.layer_spec import LayerSpec
from tercel.sw.program import Program
from tercel.sw.reference_page import reference_page


@pytest.mark.parametrize(
    "arguments",
    [
        "conv --input 8x9x12 --out 10 --kernel 3 --padding same --weight-bits 2",
        "conv --input 8x9x12 --out 10 --kernel 1x3 --padding 0,1,0,1 --dilation 1x2 --stride 2 --thresholds 5",
        "residual --input 8x8x12 --out 10 --signed",
        "depthwise --input 8x9x12 --stride 2",
        "pool --input 8x8x12",
        "pool --input 7x7x12 --kernel 7 --average",
        "linear --input 40 --out 10",
        "linear --input 40 --out 10 --array",
    ],
)
def test_layers(arguments, capsys):
    assert main(["layer", *arguments.split(), "--config", "small", "--on", "golden"]) == 0
    text = capsys.readouterr().out
    assert "equal: golden, reference" in text
    assert "cycles, estimate" in text and "utilization" in text and "total" in text


def test_json_and_files(tmp_path, capsys):
    program, trace = tmp_path / "layer.tnpu", tmp_path / "trace.json"
    options = ["--on", "golden", "--json", "-o", str(program), "--trace", str(trace), "--memory-bytes", "4"]
    assert main(["layer", "conv", "--input", "6x6x16", "--out", "8", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["equal"] and report["output"] == [6, 6, 8] and report["macs"] == 6 * 6 * 16 * 8
    lanes = report["lane_cycles"]
    assert lanes["useful"] == 4 * report["macs"]
    assert lanes["useful"] + sum(lanes["lost"].values()) == lanes["total"] == 448 * report["estimated_cycles"]
    loaded = Program.load(program)
    assert loaded.config.memory_width == 4
    assert len(json.loads(trace.read_text())["traceEvents"]) == 4 + len(loaded.words) - 1
    assert main(["disasm", str(program)]) == 0
    assert capsys.readouterr().out == disassemble(loaded.words)


def test_isa_page(capsys):
    assert main(["isa"]) == 0
    assert capsys.readouterr().out == reference_page()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("layer conv --input 5x5x5 --out 3 --kernel 9 --on golden", "kernel must be no larger than the padded input, not (9, 9) "),
        ("layer conv --input 5x5 --out 3 --on golden", "input must be HxWxC, or C for one pixel, not '5x5' (for example 56x56x24)"),
        ("layer pool --input 7x7x64 --on board", "on must be golden, verilator or both with a comma, not 'board' (the backends)"),
        ("layer pool --input 7x7x64 --config huge", "config must be one of tiny, nano, small, base, large, not 'huge'"),
        ("layer pool --input 7x7x64 --memory-bytes 9", "memory_width must be a power of two up to lanes=8, not 9"),
        ("layer pool --input 7x7x64 --config tiny --on golden", "kind must be conv or linear, not max_pool"),
        ("layer pool --input 7x7x64 --wave x.vcd --on golden", "on must contain verilator for wave, not 'golden'"),
        ("disasm /nowhere.tnpu", "/nowhere.tnpu cannot be read: No such file or directory"),
    ],
)
def test_wrong_input_is_exit_code_2(arguments, message, capsys):
    assert main(arguments.split()) == 2
    text = capsys.readouterr()
    assert text.err.splitlines()[-1].startswith(f"tercel: {message}") and "Traceback" not in text.err + text.out


@pytest.mark.parametrize("arguments", ["nonsense", "layer conv", "layer conv --input 1x1x1 --out x", "layer conv --out 3 --nothing"])
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    assert main(arguments.split()) == 2
    assert "Usage: tercel" in capsys.readouterr().err


def test_a_difference_is_exit_code_1(monkeypatch, capsys):
    right = layer_command.layer_reference

    def wrong(*arguments):
        expected = right(*arguments)
        expected[1, 2, 3] ^= 1
        return expected

    monkeypatch.setattr(layer_command, "layer_reference", wrong)
    assert main(["layer", "conv", "--input", "4x4x8", "--out", "8", "--on", "golden"]) == 1
    assert "different: golden: 1 of 128 codes differ, first at row 1, column 2, channel 3: " in capsys.readouterr().out


def test_run_layer_report():
    report = run_layer(LayerSpec(kind="conv", input=(6, 6, 8), out=8, z_out=128), SMALL, [GoldenBackend()])
    assert report.equal and not report.measured
    assert set(report.seconds) == {"golden"}


def test_parsing():
    assert parse_shape("3x4x5") == (3, 4, 5) and parse_shape("7") == (1, 1, 7)
    assert parse_pair("kernel", "3") == (3, 3) and parse_pair("kernel", "3x5") == (3, 5)
    assert parse_padding("1", kernel=(3, 3), dilation=(1, 1)) == (1, 1, 1, 1)
    assert parse_padding("same", kernel=(4, 3), dilation=(1, 2)) == (1, 2, 2, 2)
    with pytest.raises(UsageError, match=r"^kernel must be one number or HxW, not 'a' \(whole numbers\)$"):
        parse_pair("kernel", "a")
    with pytest.raises(UsageError, match=r"^padding must be one number, top,left,bottom,right or same, not '1,2' \(for example 0,0,1,1\)$"):
        parse_padding("1,2", kernel=(3, 3), dilation=(1, 1))
