"""The SDRAM's benchmarks, on a small network with random weights whose loads and stores run at the same time."""

import json

import numpy as np
import pytest
from benchmarks import memory_trace, sdram_area, sdram_bandwidth
from benchmarks.errors import command
from compiled_networks import NetworkBuilder

from tercel.hw.config import TINY
from tercel.hw.isa import Opcode
from tercel.sim.verilator.model import MemoryModel
from tercel.sw.compiler import compile_graph
from tercel.sw.cycles import fetch_beats, transfer_beats


@pytest.fixture(scope="module")
def program():
    net = NetworkBuilder(TINY, input=(16, 16, 4))
    first = net.layer("conv", net.input, out=16, kernel=(3, 3), padding=(1, 1, 1, 1))
    wide = net.layer("conv", first, out=32)
    last = net.layer("conv", wide, out=16, residual=first)
    return compile_graph(net.graph(last), TINY, keep=("*",))


@pytest.fixture(scope="module")
def file(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "net.tnpu"
    program.save(path)
    return path


def measure(file, capsys, *options, code=0):
    assert command(sdram_bandwidth.main, [str(file), "--json", *options]) == code
    return json.loads(capsys.readouterr().out)


def beats(trace):
    return sorted(zip(trace.addresses.tolist(), trace.writes.tolist(), strict=True))


def test_the_cycle_model_knows_the_beats_that_the_rtl_moves(program):
    recorded = memory_trace.record(
        program, memory_model=MemoryModel(latency=10, efficiency=0.9), report=lambda step: None, progress=lambda cycles: None
    )
    predicted = memory_trace.predict(program, memory_latency=10, memory_rate=0.9)
    instructions = program.instructions()
    moved = sum(transfer_beats(values, TINY) for opcode, values in instructions if opcode in (Opcode.LOAD, Opcode.STORE))
    assert len(predicted.addresses) == moved + len(instructions) * fetch_beats(TINY)
    assert beats(recorded) == beats(predicted)
    assert np.count_nonzero(recorded.writes) > 1000
    assert recorded.turns > 20


@pytest.mark.parametrize("requests", [(), ("--predict",)], ids=["recorded", "predicted"])
def test_share_of_the_peak(file, capsys, requests):
    found = measure(file, capsys, *requests)
    assert found["share"] == found["bytes_moved"] / (found["busy_cycles"] * found["peak"])
    assert found["bytes_moved"] == (found["reads"] + found["writes"]) * TINY.memory_width
    assert found["peak"] == 2
    assert 0.85 < found["share"] < 1
    assert found["violations"] == found["wrong_reads"] == 0
    assert found["refreshes"] > 20


def test_too_small_a_share(file, capsys):
    assert measure(file, capsys, "--predict", "--least", "0.999", code=1)["share"] < 0.999


def test_the_figures_in_words(file, capsys):
    assert command(sdram_bandwidth.main, [str(file), "--predict"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("tiny, tercel controller, IS42S16160G-7 at 100 MHz: ")
    assert "% of the peak" in text and "0 rules broken, 0 beats read wrong" in text


def test_wrong_options(file, capsys):
    assert command(sdram_bandwidth.main, [str(file), "--chip", "ddr3"]) == 2
    assert "chip must be one of is42s16160g, " in capsys.readouterr().err
    assert command(sdram_bandwidth.main, [str(file), "--clock-mhz", "200"]) == 2
    assert "clock_mhz must be above 0 and at most 133 for IS42S16160G-7, not 200" in capsys.readouterr().err
    assert command(sdram_area.main, ["--device", "xc7"]) == 2
    assert "device must be one of ecp5-85f, " in capsys.readouterr().err


def test_the_controller_is_small(capsys):
    assert command(sdram_area.main, ["--no-route", "--json"]) == 0
    assert 300 < json.loads(capsys.readouterr().out)["synthesized"]["LUT4"] < 1000
