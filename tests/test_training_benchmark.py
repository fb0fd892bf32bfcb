"""The table of trained networks on a part of the digits: figures, going on after an interruption, widths, errors."""

import pytest
from benchmarks import training
from benchmarks.errors import command
from benchmarks.training_methods import METHODS
from benchmarks.training_rows import mean_bits, spread_bits
from rich.progress import Progress

LEARNED, FIXED = "CPQ + DropBits, learned widths", "CPQ, fixed widths, as many bits"
METHOD_NAMES = ("uniform W3A3", "TQuant, post-training", "CPQ*widths*")
OPTIONS = training.Options(size="digits", methods=training.chosen_methods(METHOD_NAMES))


def measure(folder):
    rows = training.RowFile(folder / "rows.jsonl")
    with Progress(disable=True) as bars:
        training.measure(OPTIONS, data=None, rows=rows, folder=folder / "networks", processes=1, bars=bars)
    return rows


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return folder, measure(folder)


def test_rows(measured):
    _, rows = measured
    found = {identity.method: row for identity, row in rows.rows.items()}
    assert set(found) == {"float", "uniform W3A3", "TQuant, post-training", LEARNED, FIXED}
    assert all(row.total == 397 and row.seconds > 0 for row in found.values())
    assert found["float"].correct > 150 and found["uniform W3A3"].correct > 80
    for name in ("uniform W3A3", LEARNED, FIXED):
        assert abs(found[name].correct - found[name].prepared) <= 2
        assert 0 < found[name].zeros < 1
    assert found["uniform W3A3"].bits == 3 and found["TQuant, post-training"].bits == 2
    assert found[FIXED].bits == pytest.approx(found[LEARNED].bits, abs=0.3)


def test_finished_rows_are_not_measured_again(measured, monkeypatch):
    folder, rows = measured

    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(training, "measure_row", never)
    assert measure(folder).rows == rows.rows


def test_table(measured):
    _, rows = measured
    table = list(training.lines(OPTIONS, rows))
    text = training.markdown("digits", table)
    assert len(table) == 5 and text.count("\n|") == 6
    (line,) = (line for line in table if line[1] == LEARNED)
    plain, learned, fixed = (
        next(row for identity, row in rows.rows.items() if identity.method == name) for name in ("float", LEARNED, FIXED)
    )
    assert line[0] == "resnet" and line[4] == f"{100 * learned.correct / 397:.2f}" and line[5] == "(1)"
    assert line[6] == f"{100 * (learned.correct - plain.correct) / 397:+.2f}"
    assert line[7] == FIXED and line[8] == f"{100 * (learned.correct - fixed.correct) / 397:+.2f}"


def test_widths_with_a_mean():
    widths, sizes = {"first": 8, "a": 4, "b": 4, "c": 4, "last": 8}, {"first": 5, "a": 100, "b": 200, "c": 100, "last": 5}
    for average, expected in ((3.0, (3, 3, 3)), (3.25, (4, 3, 3)), (3.7, (4, 4, 3)), (4.0, (4, 4, 4)), (2.1, (2, 2, 2))):
        spread = spread_bits(widths, average=average, sizes=sizes)
        assert tuple(spread[name] for name in "abc") == expected and spread["first"] == spread["last"] == 8
    assert mean_bits({"a": 2, "b": 4, "c": 4, "first": 8, "last": 8}, inner=widths, sizes=sizes) == 3.5


def test_rows_are_compared_with_rows():
    assert all(method.against in METHODS and method.like in METHODS for method in METHODS.values() if method.against and method.like)
    assert [method.label for method in training.chosen_methods(["N2UQ W2A2"])] == ["float", "N2UQ W2A2"]
    assert [method.label for method in training.chosen_methods([FIXED])] == ["float", FIXED, LEARNED]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["tiny"], "size must be one of digits, quick, full, not 'tiny' (quick takes an hour and a half on two cores)"),
        (["digits", "--methods", "N3*"], "methods must match one of float, "),
        (["digits", "--network", "vgg"], "network must be one of resnet, not 'vgg' (or leave it out)"),
        (["quick", "--methods", "float"], "data must be a folder with fashion_mnist/fashion_mnist.npz, not None"),
    ],
)
def test_errors(arguments, text, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TERCEL_DATA", raising=False)
    assert command(training.main, [*arguments, "-o", str(tmp_path / "table.md")]) == 2
    assert text in capsys.readouterr().err
