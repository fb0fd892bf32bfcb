"""The simulation around the RTL, tested on a small stand-in design; then the accelerator itself."""

import dataclasses

import numpy as np
import pytest
from amaranth.back import verilog
from copy_machine import CopyMachine

from tercel.hw.config import TINY, Config
from tercel.hw.isa import Fault
from tercel.sim.toolchain import ToolError
from tercel.sim.verilator.build import build_simulation
from tercel.sim.verilator.model import Job, MemoryModel, Simulation, SimulationError

SIZE = 4096
MODELS = [
    MemoryModel(latency=1),
    MemoryModel(latency=20),
    MemoryModel(latency=3, stall_probability=0.5, seed=1),
    MemoryModel(latency=5, stall_probability=0.9, seed=2),
    MemoryModel(latency=2, efficiency=0.25),
]


def build(config: Config, *, trace: bool = False):
    text = verilog.convert(CopyMachine(config), name="tercel_npu", emit_src=False)
    return build_simulation(config, trace=trace, verilog=text)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERCEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def simulation():
    with Simulation(build(TINY)) as running:
        yield running


def copy_job(*, seed: int = 0, size: int = 512, model: MemoryModel | None = None) -> Job:
    return Job(
        memory=np.random.default_rng(seed).integers(0, 256, SIZE, dtype=np.uint8),
        program_base=0,
        program_count=8,
        read_base=1024,
        read_end=1024 + size,
        write_base=3072,
        write_end=3072 + size,
        model=model or MemoryModel(),
    )


def copied(job: Job) -> np.ndarray:
    memory = job.memory.copy()
    memory[job.write_base : job.write_end] = memory[job.read_base : job.read_end]
    return memory


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_copies_under_every_memory_model(simulation, model):
    job = copy_job(model=model)
    outcome = simulation.run(job)
    assert outcome.fault == Fault.NONE
    np.testing.assert_array_equal(outcome.memory, copied(job))
    cycles, words = outcome.counters
    assert words == outcome.reads == outcome.writes == 512 // TINY.memory_width
    assert cycles <= outcome.cycles <= cycles + 16


@pytest.mark.parametrize("latency", [1, 7, 30])
def test_cycles_follow_from_latency(simulation, latency):
    outcome = simulation.run(copy_job(model=MemoryModel(latency=latency)))
    bursts = 2 * 512 // TINY.memory_width // 4
    assert outcome.counters[0] == bursts * (4 + latency)


def test_efficiency_is_the_rate_of_transfers(simulation):
    full, half = (simulation.run(copy_job(model=MemoryModel(latency=1, efficiency=e))).counters[0] for e in (1.0, 0.125))
    transfers = 2 * 512 // TINY.memory_width
    assert full < transfers * 2
    assert 0.95 * 8 * transfers < half < 1.05 * 8 * transfers + 100


@pytest.mark.parametrize("width", [1, 16])
def test_memory_widths(width):
    config = dataclasses.replace(TINY, lanes=16, outputs=16, memory_width=width)
    job = copy_job(model=MemoryModel(latency=4, stall_probability=0.3))
    with Simulation(build(config)) as simulation:
        outcome = simulation.run(job)
    np.testing.assert_array_equal(outcome.memory, copied(job))
    assert outcome.writes == 512 // width


def test_jobs_do_not_reach_one_another_and_repeat_exactly(simulation):
    jobs = [copy_job(seed=seed, size=64 * (1 + seed % 16), model=MODELS[seed % len(MODELS)]) for seed in range(20)]
    first = list(simulation.run_many(jobs))
    again = list(simulation.run_many(reversed(jobs)))[::-1]
    for job, one, two in zip(jobs, first, again, strict=True):
        np.testing.assert_array_equal(one.memory, copied(job))
        assert (one.cycles, one.counters) == (two.cycles, two.counters)


def test_second_start_without_reset(simulation):
    simulation.run(copy_job())
    job = dataclasses.replace(copy_job(seed=5), keep=True)
    np.testing.assert_array_equal(simulation.run(job).memory, copied(job))


def test_bus_error(simulation):
    job = copy_job(model=MemoryModel(error_address=1024 + 101))
    outcome = simulation.run(job)
    assert (outcome.fault, outcome.fault_index) == (Fault.BUS_ERROR, 7)
    assert outcome.writes == 96 // TINY.memory_width
    np.testing.assert_array_equal(outcome.memory[3072 + 96 :], job.memory[3072 + 96 :])


def test_access_past_the_memory_is_a_bus_error(simulation):
    outcome = simulation.run(dataclasses.replace(copy_job(), write_base=SIZE - 32))
    assert (outcome.fault, outcome.writes) == (Fault.BUS_ERROR, 32 // TINY.memory_width)


@pytest.mark.parametrize(("model", "writes"), [(MemoryModel(never_answers=True), 0), (MemoryModel(silent_address=3072 + 64), 64)])
def test_memory_that_falls_silent(simulation, model, writes):
    outcome = simulation.run(copy_job(model=model))
    assert outcome.fault == Fault.BUS_TIMEOUT
    assert outcome.writes == writes // TINY.memory_width


def test_hang_is_an_error_and_the_next_job_runs(simulation):
    with pytest.raises(SimulationError, match=r"^the machine was still running after 5000 cycles \(it hangs, or max_cycles is too low\)$"):
        simulation.run(dataclasses.replace(copy_job(), program_base=1, max_cycles=5000, write_base=0))
    assert simulation.run(copy_job()).fault == Fault.NONE


def test_too_many_transfers_break_the_protocol(simulation):
    with pytest.raises(SimulationError, match=r"^the machine broke the bus protocol after \d+ cycles: more than 16 transfers outstanding$"):
        simulation.run(dataclasses.replace(copy_job(model=MemoryModel(latency=40)), program_base=2))


def test_process_that_dies_is_an_error(simulation):
    simulation.run(copy_job())
    simulation._process.kill()
    simulation._process.wait()
    assert simulation.run(copy_job()).fault == Fault.NONE
    with pytest.raises(SimulationError, match=r"^the simulation process ended without a result"):
        Simulation("/bin/true").run(copy_job())


def test_waveform_on_request(tmp_path):
    path = tmp_path / "copy.vcd"
    with Simulation(build(TINY, trace=True)) as simulation:
        job = dataclasses.replace(copy_job(size=32), trace=path)
        np.testing.assert_array_equal(simulation.run(job).memory, copied(job))
    text = path.read_text()
    assert "memory__adr" in text
    assert text.count("\n#") > 50


def test_progress(simulation):
    seen = []
    with pytest.raises(SimulationError):
        simulation.run(dataclasses.replace(copy_job(), program_base=1, write_base=0, max_cycles=20_000_000), progress=seen.append)
    assert seen == sorted(seen)
    assert seen and seen[0] > 0


def test_program_is_built_once():
    first = build(TINY)
    steps = []
    text = verilog.convert(CopyMachine(TINY), name="tercel_npu", emit_src=False)
    assert build_simulation(TINY, verilog=text, report=steps.append) == first
    assert steps == []


def test_verilator_shows_its_last_lines():
    with pytest.raises(
        ToolError, match=r"(?s)^verilator failed with exit code 1; its last lines \(all are in .*/tiny-\w+\.log\):\n.*syntax error"
    ):
        build_simulation(TINY, verilog="module tercel_npu(; endmodule")


def test_blank_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TERCEL_CACHE", str(tmp_path / "a b"))
    message = r"^the cache folder must have no blank in its name, not '.*a b/verilator' \(set TERCEL_CACHE to another one\)$"
    with pytest.raises(ToolError, match=message):
        build(TINY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latency": 0}, r"^latency must be at least 1, not 0 \(an answer follows its request\)$"),
        ({"stall_probability": 1.0}, r"^stall_probability must be in 0\.\.1, below 1, not 1\.0 \(use never_answers\)$"),
        ({"efficiency": 0.0}, r"^efficiency must be in 1/65536\.\.1, not 0\.0 \(one transfer a cycle is the most\)$"),
    ],
)
def test_memory_model_limits(arguments, message):
    with pytest.raises(ValueError, match=message):
        MemoryModel(**arguments)
