"""The table of post-training quantization, on the digits: what rows there are, what they hold, going on, errors."""

import numpy as np
import pytest
from benchmarks import evaluation, post_training, ternary_errors
from benchmarks.checkpoints import CHECKPOINTS
from benchmarks.errors import command
from benchmarks.post_training import TERNARY, UNIFORM, Method, Options
from benchmarks.results import RowFile
from rich.progress import Progress

METHODS = (
    Method(scheme="per_layer", equalization=True),
    Method(scheme="shift8", rounding="nearest", bias_correction=False),
    Method(scheme="shift8", rounding="learned"),
)
OPTIONS = Options(networks=("digits",), bits=(8, 2), roundings=("nearest",), images=30, calibration=8)


def measure(path, options=OPTIONS):
    with Progress(disable=True) as bars:
        return post_training.measure(options, data=None, rows=RowFile(path), bars=bars)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(post_training, "UNIFORM", METHODS)
        patch.setattr(post_training, "TERNARY", (Method(scheme="tquant", mixed=True),))
        rows = measure(path)
        patch.setattr(evaluation, "integer_row", None)
        patch.setattr(evaluation, "float_row", None)
        assert measure(path) == rows
    return rows


def test_rows_of_a_network():
    assert len(Options(bits=(8, 4)).rows()) == 2 * len(UNIFORM) and len(Options(bits=(2,)).rows()) == len(TERNARY)
    assert not any(method.rounding == "learned" for _, method in OPTIONS.rows())
    assert all(method.data_free for _, method in Options(roundings=()).rows())
    assert {method.rounding for method in UNIFORM} == {"", "nearest", "compensated", "learned"}


def test_what_is_quantized(measured):
    plain, free, images, ternary = measured
    assert plain.identity.scheme == "float" and plain.signal_to_noise is None
    assert (free.identity.calibration, free.identity.equalization, free.identity.bias_correction) == ("", True, True)
    assert images.identity.calibration and not images.identity.bias_correction and images.identity.rounding == "nearest"
    assert ternary.identity.bits == 2 and ternary.identity.wide.split()[0] == "features.0.0"
    assert free.correct()[0] >= 25 and images.correct()[0] >= 25
    assert free.signal_to_noise > 15 and images.signal_to_noise > 15 > ternary.signal_to_noise


def test_table(measured):
    text = post_training.markdown(measured).splitlines()
    right = measured[1].correct()[0]
    assert f"| digits | W8A8 | per_layer | none | nearest | yes | yes | {right}/30 = {100 * right / 30:.2f} % |" in text[3]
    assert "| W8A8 | shift8 | images | nearest |  |  |" in text[4] and "| W2A8, some W8 | tquant | none |" in text[5]
    assert text[-1] == "* digits: trained by the package."


def test_first_last_and_depthwise_layers():
    names = post_training.wide_layers(CHECKPOINTS["digits"].build(None)).split()
    model = CHECKPOINTS["digits"].build(None)
    groups = [model.get_submodule(name).groups for name in names[1:-1]]
    assert names[0] == "features.0.0" and names[-1].startswith("classifier") and min(groups) > 1


def test_decibels():
    plain = np.array([[1.0, -1.0], [2.0, 0.0]])
    assert evaluation.decibels(plain, plain + 5.0) > 200
    assert evaluation.decibels(plain, 1.1 * plain) == pytest.approx(20)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--networks", "none"], "networks must be among mobilenet_v1_0.25, "),
    (["--bits", "5"], "bits must be among 8, 6, 4, 2, not 5 (separate them with commas)"),
    (["--bits", "x"], "bits must be whole numbers with commas, not 'x' (for example 8,6,4,2)"),
    (["--roundings", "up"], "roundings must be among nearest, compensated, learned, not 'up' "),
    (["--networks", "mobilenet_v2"], "data must be a folder for mobilenet_v2, not left out "),
])  # fmt: skip
def test_errors(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TERCEL_DATA", raising=False)
    assert command(post_training.main, [*arguments, "-o", str(tmp_path / "table.md")]) == 2
    assert message in capsys.readouterr().err


def test_errors_of_ternary_weights(capsys):
    assert command(ternary_errors.main, ["--networks", "digits"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {name: float(value) for _, name, value, _ in (line.split("|") for line in lines[2:])}
    assert len(found) == 17 and found[" mquant_fitted "] > found[" mquant "] and found[" ternary "] > found[" tquant "]
    assert command(ternary_errors.main, ["--networks", "none"]) == 2
    assert "networks must be among mobilenet_v1_0.25, " in capsys.readouterr().err
