"""The speed benchmark's command on a small network."""

import re

import pytest
from benchmarks.errors import command
from benchmarks.reference_speed import main


def test_three_programs_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(main, ["--network", "resnet20", "--size", "32", "--batch", "1", "--rounds", "1"]) == 0
    heading, _, *rows = capsys.readouterr().out.splitlines()
    assert heading == "resnet20, 32x32, batch 1, 1 thread, best of 1"
    assert [row[:24].strip() for row in rows] == ["float32", "float32, channels last", "integer reference"]
    assert all(re.search(r"[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ \([\d.]+ CPU\)$", row) for row in rows)
