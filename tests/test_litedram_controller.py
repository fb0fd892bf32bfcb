"""LiteDRAM's core beside the project's own controller: it moves the same data, and is what the README says it is."""

import json

import numpy as np
import pytest
from benchmarks import litedram_controller, sdram_area, sdram_bandwidth
from benchmarks.errors import command
from benchmarks.litedram_controller import CONTROLLERS, LiteDramBuild, replace_pins
from sdram_traffic import quick, random_requests

from tercel.hw.sdram.chips import IS42S16160G
from tercel.sim.soc.sdram_model import SdramModel
from tercel.sim.soc.sdram_simulation import ACK, REQUEST, run_sdram
from tercel.sim.toolchain import ToolError


@pytest.mark.parametrize("memory_width", [2, 8])
def test_a_plain_memory(memory_width):
    build = LiteDramBuild(chip=quick(IS42S16160G), clock_mhz=100.0, memory_width=memory_width)
    requests = random_requests(build, 1500, seed=memory_width)
    requests["adr"] %= IS42S16160G.bytes // memory_width
    run = run_sdram(build, npu=requests, contents=True)
    assert run.violations == ()
    assert run.commands["REFRESH"] > 8
    memory = SdramModel(build.chip, clock_mhz=100.0).contents.copy()
    for request, answer in zip(requests, run.npu, strict=True):
        beat = memory[int(request["adr"]) * memory_width :][:memory_width]
        assert answer["kind"] == ACK
        if request["write"]:
            selected = np.array([int(request["sel"]) >> i & 1 for i in range(memory_width)], bool)
            beat[selected] = request["data"][:memory_width][selected]
        else:
            assert answer["data"][:memory_width].tobytes() == beat.tobytes()
    assert np.array_equal(memory, run.contents)


def test_two_masters():
    build = LiteDramBuild(chip=quick(IS42S16160G), clock_mhz=100.0, memory_width=8)
    ports = {}
    for first, name in enumerate(("npu", "host")):
        ports[name] = np.zeros(400, REQUEST)
        ports[name]["adr"] = np.arange(400) % 200 + 10_000 * first
        ports[name]["write"] = np.arange(400) < 200
        ports[name]["sel"] = 255
        ports[name]["data"][:200] = np.random.default_rng(first).integers(0, 256, (200, 16))
    run = run_sdram(build, **ports)
    for name, requests in ports.items():
        assert np.array_equal(getattr(run, name)["data"][200:, :8], requests["data"][:200, :8])
    assert run.violations == ()


def beats_a_cycle(name, *, memory_width):
    requests = np.zeros(3000, REQUEST)
    requests["adr"] = np.arange(3000)
    requests["write"] = np.arange(3000) // 32 % 2
    requests["sel"] = 2**memory_width - 1
    build = CONTROLLERS[name](chip=quick(IS42S16160G), clock_mhz=100.0, memory_width=memory_width)
    return len(requests) / run_sdram(build, npu=requests).busy


@pytest.mark.parametrize("memory_width", [2, 8])
def test_ours_moves_more_in_turns_of_reads_and_writes(memory_width):
    assert beats_a_cycle("tercel", memory_width=memory_width) > 1.08 * beats_a_cycle("litedram", memory_width=memory_width)


def test_ours_is_smaller_than_the_core(capsys):
    found = {}
    for name in CONTROLLERS:
        assert command(sdram_area.main, ["--controller", name, "--no-route", "--json"]) == 0
        found[name] = json.loads(capsys.readouterr().out)
    core = sum(block["LUT4"] for name, block in found["litedram"]["blocks"].items() if name.startswith("core"))
    assert found["tercel"]["synthesized"]["LUT4"] < 0.7 * core


def test_wrong_options(capsys, tmp_path, monkeypatch):
    assert command(sdram_area.main, ["--controller", "mig"]) == 2
    assert "controller must be one of tercel, litedram, not 'mig'" in capsys.readouterr().err
    assert command(sdram_bandwidth.main, ["net.tnpu", "--controller", "mig"]) == 2
    assert "controller must be one of tercel, litedram, not 'mig'" in capsys.readouterr().err
    assert command(sdram_area.main, ["--controller", "litedram", "--chip", "em638325"]) == 2
    assert "chip must be IS42S16160G-7 at 100 MHz, not EM638325-6 at 100" in capsys.readouterr().err
    monkeypatch.setattr(litedram_controller.importlib.util, "find_spec", lambda name: None)
    assert command(sdram_area.main, ["--controller", "litedram"]) == 2
    assert 'litedram must be installed for this comparison and is not (pip install -e ".[dev]")' in capsys.readouterr().err


def test_verilog_of_another_release():
    with pytest.raises(ToolError, match="0 data buses and 0 pads, not one and its width"):
        replace_pins("module litedram_core(input wire clk); endmodule")
