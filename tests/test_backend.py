"""The machine itself behind the backends: how programs end, counters, faults of the memory."""

import numpy as np
import pytest

from tercel.hw.config import SMALL, TINY
from tercel.hw.isa import Fault, Opcode, Space
from tercel.sim.backend import GoldenBackend, Result, VerilatorBackend, get_backend
from tercel.sim.verilator.model import MemoryModel, SimulationError
from tercel.sw.program import Port, Program, ProgramError, Segment, make_words

SIZE = 16384


@pytest.fixture(scope="module")
def rtl():
    with VerilatorBackend(config=TINY) as backend:
        yield backend


def program(*instructions, config=TINY) -> Program:
    words = TINY.array_depth // 4
    data = np.random.default_rng(1).integers(0, 256, words * TINY.lanes, dtype=np.uint8).tobytes()
    shape = (1, words, TINY.lanes)
    return Program(
        config=config,
        words=make_words(list(instructions)),
        segments=(Segment("data", 4096, data),),
        program_base=0,
        read_base=4096,
        read_end=8192,
        write_base=8192,
        write_end=12288,
        memory_bytes=SIZE,
        inputs=(Port(name="in", address=4096, shape=shape, lanes=TINY.lanes, signed=False),),
        outputs=(Port(name="out", address=8192, shape=shape, lanes=TINY.lanes, signed=False),),
    )


def transfer(opcode: Opcode, address: int, **values) -> tuple[Opcode, dict]:
    fields = {"space": Space.ARRAY, "memory_addr": address, "pixels": TINY.array_depth // 4 - 1, "spad_pixel": 1}
    return opcode, fields | values


HALT = (Opcode.HALT, {})
LOAD = transfer(Opcode.LOAD, 4096, post=1 << 3)
STORE = transfer(Opcode.STORE, 8192, wait=1 << 0)
COPY = (LOAD, STORE, HALT)


def assert_same(result: Result, expected: Result) -> None:
    assert (result.fault, result.fault_index) == (expected.fault, expected.fault_index)
    np.testing.assert_array_equal(result.memory, expected.memory)
    for name, codes in expected.outputs.items():
        np.testing.assert_array_equal(result.outputs[name], codes)
    assert result.stray_writes == expected.stray_writes == ()


@pytest.mark.parametrize(
    "instructions",
    [(HALT,), COPY, (LOAD,), (STORE, HALT), ((Opcode.LOAD, {"memory_addr": 0}), HALT), (transfer(Opcode.STORE, 4096), HALT), ()],
    ids=["halt", "copy", "end", "deadlock", "load_range", "store_range", "empty"],
)
@pytest.mark.parametrize("model", [MemoryModel(latency=1), MemoryModel(latency=9, stall_probability=0.4)], ids=["fast", "stalls"])
def test_rtl_ends_as_the_golden_model(rtl, instructions, model):
    machine = program(*instructions)
    assert_same(rtl.run(machine, memory_model=model), GoldenBackend().run(machine))


def test_inputs_replace_what_the_program_holds(rtl):
    codes = np.random.default_rng(2).integers(0, 256, (1, TINY.array_depth // 4, TINY.lanes))
    result = rtl.run(program(*COPY), inputs={"in": codes})
    np.testing.assert_array_equal(result.outputs["out"], codes)
    assert result.fault == Fault.NONE


def test_counters_account_for_every_cycle(rtl):
    result = rtl.run(program(*COPY))
    beats = TINY.array_depth // 4 * TINY.lanes // TINY.memory_width
    assert result.cycles == result.counters["machine.cycles"] > 2 * beats
    assert result.counters["memory.write"] == beats
    assert result.counters["memory.read"] == beats + 3 * 80 // TINY.memory_width
    for engine in ("load", "array", "store"):
        assert sum(value for name, value in result.counters.items() if name.startswith(f"{engine}.")) == result.cycles


@pytest.mark.parametrize("address", [0, 80, 4100, 8192 + 7])
def test_bus_error_is_reported_where_it_happened(rtl, address):
    result = rtl.run(program(*COPY), memory_model=MemoryModel(error_address=address))
    assert (result.fault, result.fault_index) == (Fault.BUS_ERROR, {0: 0, 80: 1, 4100: 0, 8199: 1}[address])


def test_memory_that_never_answers(rtl):
    result = rtl.run(program(*COPY), memory_model=MemoryModel(never_answers=True))
    assert (result.fault, result.fault_index) == (Fault.BUS_TIMEOUT, 0)
    assert 65536 < result.cycles < 65536 + 200


def test_memory_that_falls_silent_in_a_load(rtl):
    result = rtl.run(program(LOAD, HALT), memory_model=MemoryModel(silent_address=4200, latency=200))
    assert (result.fault, result.fault_index) == (Fault.BUS_TIMEOUT, 0)


def test_limit_of_cycles():
    with (
        VerilatorBackend(max_cycles=1000) as backend,
        pytest.raises(SimulationError, match=r"^the machine was still running after 1000 cycles"),
    ):
        backend.run(program(HALT), memory_model=MemoryModel(never_answers=True))


def test_program_for_another_machine(rtl):
    with pytest.raises(ProgramError, match=r"^config of the program must be that of the machine, but pixels is 3 there and 2 here"):
        rtl.run(program(HALT, config=SMALL))


def test_backends_by_name():
    assert [get_backend(name).name for name in ("golden", "verilator")] == ["golden", "verilator"]
    with pytest.raises(ValueError, match=r"^backend must be one of golden, verilator, not 'board' \(what to run the program on\)$"):
        get_backend("board")
