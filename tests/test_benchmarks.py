"""The benchmark commands on the digits: figures, going on after an interruption, differences, errors."""

import json
from dataclasses import replace

import pytest
from benchmarks import accuracy, evaluation, network, proof
from benchmarks.checkpoints import CHECKPOINTS, read_set
from benchmarks.errors import command
from benchmarks.results import RowFile
from rich.progress import Progress

from tercel.sim.execution import execute_program
from tercel.sw.graph.reference import run_reference

OPTIONS = accuracy.Options(networks=("digits",), variants=("shift8", "shift8+bias"), bits=(8,), images=60, calibration=20, batch=25)


def measure(path, options=OPTIONS):
    with Progress(disable=True) as bars:
        return accuracy.measure(options, data=None, rows=RowFile(path), bars=bars)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    return path, measure(path)


def test_rows_count_what_the_integers_predict(measured):
    _, (plain, shifted, corrected) = measured
    samples = read_set(CHECKPOINTS["digits"], None, role="eval", count=60)
    assert plain.labels == tuple(samples.labels)
    assert plain.identity.scheme == "float" and plain.correct() == (
        sum(p == q for p, q in zip(plain.predictions, plain.labels, strict=True)),
        60,
    )
    for row in (shifted, corrected):
        right, total = row.correct()
        assert total == 60 and right >= 55
        assert row.agreeing(plain)[0] >= 55
        assert row.run_seconds > 0 and row.quantize_seconds > 0
    assert (shifted.identity.bias_correction, corrected.identity.bias_correction) == (False, True)


def test_finished_rows_are_not_measured_again(measured, monkeypatch):
    path, rows = measured

    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(evaluation, "float_row", never)
    monkeypatch.setattr(evaluation, "integer_row", never)
    assert measure(path) == rows
    with pytest.raises(AssertionError, match="measured again"):
        measure(path, replace(OPTIONS, images=61))


def test_a_line_cut_short_is_measured_again_and_gives_the_same(measured, tmp_path):
    path, rows = measured
    lines = path.read_text().splitlines()
    cut = tmp_path / "cut.jsonl"
    cut.write_text("\n".join(lines[:2]) + "\n" + lines[2][:100] + "\n")
    assert list(RowFile(cut).rows.values()) == rows[:2]
    again = measure(cut, replace(OPTIONS, threads=2, batch=7))
    assert [row.predictions for row in again] == [row.predictions for row in rows]
    assert list(RowFile(cut).rows) == [row.identity for row in rows]


def test_table_has_counts_shares_and_notes(measured):
    _, rows = measured
    text = accuracy.markdown(rows).splitlines()
    assert text[0].split(" | ")[:3] == ["| network", "bits", "scheme"]
    right = rows[1].correct()[0]
    assert f"| digits | W8A8 | shift8 | compensated | base | {right}/60 = {100 * right / 60:.2f} % |" in text[3]
    assert "shift8 + bias correction" in text[4]
    assert text[-1] == "* digits: trained by the package."


def test_other_code_or_weights_make_another_row(measured):
    _, rows = measured
    identity = rows[1].identity
    assert len({identity, replace(identity, code="x"), replace(identity, weights="x"), rows[2].identity}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "vgg"], "networks must be among mobilenet_v1_0.25, mobilenet_v2, "),
        (["--networks", "digits", "--schemes", "best"], "schemes must be among per_layer, shift8"),
        (["--networks", "digits", "--rounding", "best"], "rounding must be among nearest, compensated, learned, not 'best'"),
        (["--networks", "digits", "--bits", "9"], "bits must be among 2, 3, 4, 5, 6, 7, 8, not 9"),
        (["--networks", "digits", "--bits", "x"], "bits must be whole numbers with commas, not 'x'"),
        (["--networks", "mobilenet_v2"], "data must be a folder for mobilenet_v2, not left out (give --data or set TERCEL_DATA"),
        (["--networks", "mobilenet_v2", "--data", "."], "weights/mobilenet_v2_1.0_bnfolded.pth: no such file"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.delenv("TERCEL_DATA", raising=False)
    assert command(accuracy.main, [*arguments, "-o", str(tmp_path / "a.md")]) == 2
    assert message in capsys.readouterr().err


def test_mirrored_images_come_after_the_others():
    samples = read_set(CHECKPOINTS["digits"], None, role="calib", count=3)
    both = samples.with_mirrored()
    assert both.images.shape[0] == len(both.labels) == len(both.sources) == 6
    assert (both.images[3:] == samples.images[:, :, ::-1]).all() and (both.images[:3] == samples.images).all()


def test_learned_rounding_keeps_its_blocks_beside_the_rows(tmp_path, monkeypatch):
    asked = []

    def quantized(*_, rounding, checkpoint, **__):
        asked.append((rounding, checkpoint))
        raise InterruptedError

    monkeypatch.setattr(evaluation, "quantize", quantized)
    for rounding in ("learned", "compensated"):
        with pytest.raises(InterruptedError):
            measure(tmp_path / "rows.jsonl", replace(OPTIONS, rounding=rounding))
    assert [rounding for rounding, _ in asked] == ["learned", "compensated"]
    assert asked[0][1].parent == tmp_path / "rows" and asked[1][1] is None


def test_whole_network_on_the_golden_model(tmp_path, capsys):
    file = tmp_path / "digits.tq"
    arguments = ["digits", "--images", "1", "--calibration", "10", "--batch", "2", "--quantized", str(file), "--json"]
    assert command(network.main, arguments) == 0
    made = json.loads(capsys.readouterr().out)
    assert file.is_file() and made["equal"] and made["layers"] == 18 and made["config"] == "base"
    plain, kept = made["programs"]
    assert (plain["kept"], kept["kept"]) == (False, True)
    assert plain["runs"][0]["codes"] == 10 and kept["runs"][0]["tensors"] == 18
    assert 0 < plain["estimated_cycles"] <= kept["estimated_cycles"]
    assert made["throughput"]["reference"] > 0


def test_a_code_that_differs_is_named(tmp_path, monkeypatch, capsys):
    def wrong(graph, inputs, *, keep=False):
        tensors = run_reference(graph, inputs, keep=keep)
        if keep:
            tensors["features.2.conv.2"][0, 1, 2, 3] ^= 1
        return tensors

    monkeypatch.setattr(proof, "run_reference", wrong)
    arguments = ["digits", "--images", "1", "--calibration", "10", "--batch", "1", "--bits", "4"]
    assert command(network.main, arguments) == 1
    text = capsys.readouterr().out
    assert "different: reference and golden differ first in layer features.2.conv.2" in text
    assert "(row 1, column 2), channel 3, image 0" in text


def test_network_refuses_what_it_does_not_know(capsys):
    assert command(network.main, ["vgg"]) == 2
    assert "network must be one of mobilenet_v1_0.25," in capsys.readouterr().err
    assert command(network.main, ["digits", "--on", "fpga"]) == 2
    assert "on must be among golden, verilator, not 'fpga'" in capsys.readouterr().err


def test_cycles_are_held_against_the_estimate(monkeypatch, capsys):
    """The simulation is replaced by the golden model with a clock of its own: the RTL itself is compared in other tests."""
    asked = []

    def clocked(program, inputs, *, on, options, expected_cycles, progress):
        ran = execute_program(program, inputs, on="golden", options=options, progress=progress)
        asked.append((on, len(next(iter(inputs.values()))), expected_cycles))
        return replace(ran, on=on, cycles=(2 * expected_cycles,) * 2)

    monkeypatch.setattr(proof, "execute_program", clocked)
    arguments = ["digits", "--images", "2", "--calibration", "10", "--batch", "1", "--on", "verilator", "--json"]
    assert command(network.main, arguments) == 0
    made = json.loads(capsys.readouterr().out)
    plain, kept = made["programs"]
    assert asked == [("verilator", 1, plain["estimated_cycles"]), ("verilator", 2, kept["estimated_cycles"])]
    assert [program["runs"][0]["cycles"] for program in (plain, kept)] == [2 * plain["estimated_cycles"], 2 * kept["estimated_cycles"]]
    assert plain["runs"][0]["percent"] == -50
