"""A few dozen random and hostile programs on two configs that differ in every parameter; ``tercel verify`` runs thousands."""

from dataclasses import fields

import pytest

from tercel.sim.cli import main
from tercel.sim.verify import COMPOSITE, PRIME, TERNARY, verify


def test_configs_differ_in_every_parameter():
    """But for that of the depthwise engine, which only one of them has; ``composite`` takes the other value."""
    same = [field.name for field in fields(PRIME) if getattr(PRIME, field.name) == getattr(TERNARY, field.name)]
    assert same == ["depthwise_taps"]
    assert COMPOSITE.depthwise_taps != PRIME.depthwise_taps


@pytest.mark.parametrize("config", [PRIME, TERNARY], ids=lambda config: config.name)
def test_golden_equals_rtl(config):
    parts = list(verify(config, programs=30, hostile=30))
    assert [failure for part in parts for failure in part.failures] == []
    assert sum(part.programs for part in parts) == 30
    faults = sum((part.faults for part in parts), start=parts[0].faults.__class__())
    assert sum(faults.values()) + sum(part.skipped for part in parts) == 30
    assert len(faults) >= 3


def test_unknown_config(capsys):
    assert main(["verify", "odd"]) == 2
    message = "tercel: config must be one of prime, composite, ternary, small, base, not 'odd' (the configs made for verification)\n"
    assert capsys.readouterr().err == message
