"""A compiled network on the RTL."""

import numpy as np
import pytest
from small_networks import mobile_block

import tercel
from tercel.sim.report import measured_lane_cycles, render_report
from tercel.sim.verify import VERIFY_CONFIGS

PRIME = VERIFY_CONFIGS["prime"]


@pytest.fixture(scope="module")
def network():
    return tercel.compile(mobile_block(PRIME), config=PRIME)


@pytest.fixture(scope="module")
def codes():
    return np.random.default_rng(0).integers(0, 256, (2, 6, 6, 8))


def test_rtl_gives_the_reference_codes_near_the_predicted_time(network, codes):
    steps = []
    result = network.run(codes, on="verilator", progress=lambda *step: steps.append(step))
    np.testing.assert_array_equal(result.codes["classifier_out"], network.run(codes, on="reference").codes["classifier_out"])
    # In 1500 cycles the few dozen between instructions count; tests/test_cycles_rtl.py holds the model to account.
    assert result.cycles == pytest.approx(network.profile.cycles, rel=0.06)
    for lanes in measured_lane_cycles(network.profile, result).values():
        assert lanes.useful + sum(lanes.lost.values()) == lanes.total
    assert f"{result.cycles:,} (the cycle model is" in render_report(network, title="block", measured=result)


def test_comparison_with_the_golden_model(network, codes):
    assert network.compare(codes, "golden", "verilator").equal
    assert len(network.compare(codes[:1], "golden", "verilator", layers="block.*").tensors) == 3
