"""The proof that trained networks run on the machine as they were trained."""

import json
from dataclasses import replace

import pytest
from benchmarks.errors import command
from benchmarks.trained_networks import Proof, trained_networks

GOOD = Proof(
    method="CPQ",
    images=400,
    trained=90.0,
    integers=90.25,
    golden_images=2,
    golden_equal=2,
    rtl_images=1,
    rtl_equal=1,
    rtl_cycles=100,
    predicted_cycles=100,
)


@pytest.mark.parametrize("change", [{"integers": 90.5}, {"golden_equal": 1}, {"rtl_equal": 0}])
def test_what_counts(change):
    assert GOOD.ok
    assert not replace(GOOD, **change).ok


def test_one_method_without_rtl(capsys):
    assert command(trained_networks, ["--methods", "CPQ W3A8", "--golden", "1", "--rtl", "0", "--json"]) == 0
    (proof,) = json.loads(capsys.readouterr().out)
    assert proof["golden_equal"] == 1
    assert proof["images"] == 397
    assert proof["integers"] > 30
    assert proof["predicted_cycles"] > 1000


def test_no_such_method(capsys):
    assert command(trained_networks, ["--methods", "XYZ"]) == 2
    assert "methods must match one of float, naive ternary" in capsys.readouterr().err
