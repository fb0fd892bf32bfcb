"""Cycles by layer and the report."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from small_networks import mobile_block

from tercel.hw.config import SMALL, TINY
from tercel.sim import plots
from tercel.sim.api import compile_network
from tercel.sim.cli import main
from tercel.sim.network import NetworkResult
from tercel.sim.profile import profile
from tercel.sim.report import measured_lane_cycles, render_report
from tercel.sw.random_program import random_program


@pytest.fixture(scope="module")
def network():
    return compile_network(mobile_block(), config=SMALL)


class _Checker(HTMLParser):
    """Counts tags and finds what is not closed."""

    def __init__(self):
        super().__init__()
        self.open, self.counts = [], {}

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_cycle_belongs_to_a_layer(network):
    layers = network.profile.layers
    assert sum(layer.cycles for layer in layers) == pytest.approx(network.profile.cycles)
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    assert all(before.start <= after.start for before, after in pairwise(layers))
    for layer in layers:
        assert 0 < layer.steady <= 1
        assert sum(layer.waits.values()) <= layer.cycles
        assert layer.macs == next(node.spec.macs for node in network.graph.layers() if node.name == layer.name)
    moved = sum(layer.loaded + layer.stored for layer in layers) / SMALL.memory_width
    events = network.profile.predicted.events
    assert moved == events["load.beat"] + events["store.beat"]


def test_lane_cycles_add_up_in_any_program():
    for config in (SMALL, TINY):
        for seed in range(15):
            found = profile(random_program(config, seed=seed).program)
            assert sum(layer.cycles for layer in found.layers) == pytest.approx(found.cycles)
            for lanes in found.lane_cycles.values():
                assert lanes.useful + sum(lanes.lost.values()) == lanes.total
                assert all(count > 0 for count in lanes.lost.values())
                assert not any(name.endswith(".other") for name in lanes.lost)


def test_bound_says_what_takes_longest(network):
    slow = profile(network.program, memory_rate=0.05)
    assert {layer.bound for layer in slow.layers} == {"memory"}
    assert network.profile.layers[0].bound in ("array", "memory")
    fast = {layer.name: layer for layer in network.profile.layers}
    for layer in slow.layers:
        assert layer.memory == pytest.approx(20 * fast[layer.name].memory)


def test_page_holds_everything_and_nothing_from_elsewhere(network, tmp_path):
    page, trace = network.report(tmp_path / "block.html", title="block <1>", clock_mhz=50)
    text = page.read_text()
    checker = _Checker()
    checker.feed(text)
    assert not checker.open
    assert checker.counts["svg"] == 4
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    assert "block &lt;1&gt;" in text and "at a clock of 50 MHz" in text
    for layer in network.profile.layers:
        assert f">{layer.name}</td>" in text
    events = json.loads(trace.read_text())["traceEvents"]
    assert trace.name == "block.trace.json"
    assert {event["name"] for event in events if event["ph"] == "X"} >= {"pool depthwise", "block.expand load"}


def test_no_frames_without_a_clock(network):
    text = render_report(network, title="block")
    assert "frames a second" not in text and "Counters" not in text and "Operators" not in text
    assert text == render_report(network, title="block")


def test_measured_run_replaces_the_account(network):
    cycles = network.profile.cycles + 100
    counters = {**network.profile.predicted.events, "array.token": 7}
    run = NetworkResult(on="verilator", outputs={}, codes={}, cycles=cycles, counters=counters, layers=(), seconds=1.0)
    for lanes in measured_lane_cycles(network.profile, run).values():
        assert lanes.useful + sum(lanes.lost.values()) == lanes.total
    assert measured_lane_cycles(network.profile, run)["array"].lost["array.token"] == 7 * SMALL.array_lanes
    text = render_report(network, title="block", measured=run)
    assert f"{cycles:,} (the cycle model is" in text and "Counters of the simulated machine" in text


def test_the_timeline_is_written_as_a_picture_too(network, tmp_path, capsys):
    network.save(tmp_path / "block.tnpu")
    assert main(["report", str(tmp_path / "block.tnpu"), "--picture", str(tmp_path / "block.png")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "block.png")
    assert (tmp_path / "block.png").read_bytes() == plots.png(plots.timeline(network.program, network.profile))
