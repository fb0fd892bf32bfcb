"""The SDRAM controller on Verilator with the chip's model on its pins."""

import numpy as np
import pytest
from sdram_traffic import check_run, quick, random_requests

from tercel.hw.sdram.chips import CHIPS, EM638325, GW2AR18, IS42S16160G
from tercel.sim.soc.sdram_simulation import ACK, NO_ANSWER, REQUEST, SdramBuild, run_sdram

BUILDS = {
    "four words a beat": SdramBuild(chip=quick(IS42S16160G), clock_mhz=100.0, memory_width=8),
    "a word a beat, slow pins": SdramBuild(chip=quick(IS42S16160G), clock_mhz=133.0, memory_width=2, pin_latency=3),
    "two words a beat, slow pins": SdramBuild(chip=quick(EM638325), clock_mhz=66.667, memory_width=8, pin_latency=1),
    "half a word a beat": SdramBuild(chip=quick(EM638325), clock_mhz=166.0, memory_width=2),
    "two words a beat": SdramBuild(chip=quick(GW2AR18), clock_mhz=100.0, memory_width=8),
    "half a word a beat, slow clock": SdramBuild(chip=quick(GW2AR18), clock_mhz=27.0, memory_width=2),
}


@pytest.fixture(params=BUILDS)
def build(request):
    return BUILDS[request.param]


def reads(addresses):
    requests = np.zeros(len(addresses), REQUEST)
    requests["adr"] = addresses
    return requests


def run_checked(build, **ports):
    run = run_sdram(build, contents=True, max_cycles=2_000_000, **ports)
    check_run(build, run, **{name: ports[name] for name in ("npu", "host") if name in ports})
    return run


def test_all_chips_are_tested():
    assert {build.chip.name for build in BUILDS.values()} == {chip.name for chip in CHIPS.values()}


@pytest.mark.parametrize("waits", [(0,), (0, 0, 1, 3), (0, 40, 900)], ids=["no gaps", "short gaps", "long gaps"])
def test_two_ports_at_random(build, waits):
    npu = random_requests(build, 1500, seed=1, waits=waits)
    host = random_requests(build, 500, seed=2, waits=waits)
    run = run_checked(build, npu=npu, host=host)
    assert (run.npu["kind"] != NO_ANSWER).all()
    assert (run.host["kind"] != NO_ANSWER).all()
    period = build.chip.cycles(clock_mhz=build.clock_mhz).refresh
    assert run.commands["REFRESH"] in range(run.cycles // period - 2, run.cycles // period + 9)


@pytest.mark.parametrize("outstanding", [1, 2, 3, 5, 8, 31])
def test_any_number_outstanding(outstanding):
    build = BUILDS["half a word a beat"]
    npu, host = random_requests(build, 400, seed=outstanding), random_requests(build, 400, seed=outstanding + 100, waits=(0, 1, 7))
    run_checked(build, npu=npu, host=host, outstanding=outstanding)


def test_given_up_requests_are_never_answered(build):
    npu = random_requests(build, 1000, seed=3, waits=(0, 0, 2), abandon=0.05)
    host = random_requests(build, 300, seed=4, waits=(0, 5), abandon=0.05)
    run = run_checked(build, npu=npu, host=host)
    assert 0 < np.count_nonzero(run.npu["kind"] == NO_ANSWER) < 500
    last = np.flatnonzero(npu["abandon"])[-1]
    assert (run.npu["kind"][last:] != NO_ANSWER).all()


def test_latency_of_an_idle_controller(build):
    """The second beat of a row, long after the first."""
    requests = reads([0, 1, 2, 3])
    requests["wait"] = 60, 10_000, 60, 60
    run = run_checked(build, npu=requests)
    cycles, words = build.chip.cycles(clock_mhz=build.clock_mhz), max(1, build.memory_width // build.chip.width)
    latency = run.npu["answered"] - run.npu["accepted"]
    assert min(latency[1:]) == 5 + cycles.cas + words + build.pin_latency


@pytest.mark.parametrize("write", [0, 1])
def test_a_long_run_streams(build, write):
    """Over many rows: all but the refreshes and the first rows' opening is data."""
    requests = reads(np.arange(8000))
    requests["write"] = write
    requests["sel"] = 0xFFFF
    run = run_sdram(build, npu=requests)
    assert run.violations == ()
    cycles, words = build.chip.cycles(clock_mhz=build.clock_mhz), max(1, build.memory_width // build.chip.width)
    refresh = 24 + cycles.rfc + cycles.rp + cycles.rcd
    row = build.chip.columns * build.chip.width // build.memory_width
    assert run.busy < 8000 * words + refresh * (run.commands["REFRESH"] - 7) + 8000 // row * 3 + 40


def test_the_host_waits_but_does_not_starve(build):
    npu, host = reads(np.arange(4000)), reads(np.arange(100) + 100_000)
    run = run_sdram(build, npu=npu, host=host, outstanding=31)
    done = run.host["accepted"].max()
    before = np.count_nonzero(run.npu["accepted"] < done)
    assert 14 * 100 <= before <= 18 * 100


def test_a_stalled_host_does_not_hold_the_npu_up(build):
    npu = reads(np.arange(1000))
    alone, both = run_sdram(build, npu=npu), run_sdram(build, npu=npu, host=reads([]))
    assert alone.cycles == both.cycles


def test_past_the_end_of_the_chip(build):
    beats = build.chip.bytes // build.memory_width
    run = run_sdram(build, npu=reads([beats - 1, beats, 2**32 // build.memory_width - 1, 0]))
    assert [kind == ACK for kind in run.npu["kind"]] == [True, False, False, True]


def test_the_first_requests_wait_for_the_chip():
    build = SdramBuild(chip=EM638325, clock_mhz=166.0, memory_width=2)
    run = run_sdram(build, npu=reads([5, 6]))
    assert run.violations == ()
    assert run.npu["answered"][0] > EM638325.timing.power_up * 0.166
