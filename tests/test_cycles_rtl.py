"""The cycle model against the RTL's counters, for each instruction class, with a memory that never stalls."""

from collections import Counter

import pytest

from tercel.hw.isa import Opcode
from tercel.sim.backend import VerilatorBackend
from tercel.sim.verify import PRIME
from tercel.sim.verilator.model import MemoryModel
from tercel.sw.cycles import instruction_cycles
from tercel.sw.random_program import random_program

SEEDS = range(60)
EXACT = {
    Opcode.ARRAY: ("step", "conflict", "residual"),
    Opcode.DEPTHWISE: ("emit", "fill", "conflict"),
    Opcode.LOAD: ("beat",),
    Opcode.STORE: ("beat",),
}
"""Events that the model predicts to the cycle in every program."""

SINGLE_DIFFERENCES = {Opcode.ARRAY: 1, Opcode.DEPTHWISE: 0}
"""Largest difference of all busy cycles of an instruction that is alone on its engine. ARRAY: a short row begins a cycle earlier."""

SHORT_ROW = 6
"""Depthwise rows of fewer operations than the walk over their kernel rows are predicted to within this many cycles a row."""


@pytest.fixture(scope="module")
def runs():
    """For each program its decoded instructions and the RTL's counters."""
    found = []
    with VerilatorBackend(config=PRIME, memory_model=MemoryModel(latency=1)) as rtl:
        for seed in SEEDS:
            program = random_program(PRIME, seed=seed).program
            found.append((program.instructions(), rtl.run(program).counters))
    return found


def predicted(instructions, opcode):
    total = Counter()
    for found, values in instructions:
        if found is opcode:
            total.update(instruction_cycles(opcode, values, PRIME).events)
    return total


@pytest.mark.parametrize("opcode", EXACT, ids=lambda opcode: opcode.name)
def test_work_is_exact(runs, opcode):
    compared = 0
    for instructions, counters in runs:
        model = predicted(instructions, opcode)
        for event in EXACT[opcode]:
            assert counters[f"{opcode.name.lower()}.{event}"] == model[event]
            compared += model[event]
    assert compared > 5000


@pytest.mark.parametrize("opcode", SINGLE_DIFFERENCES, ids=lambda opcode: opcode.name)
def test_single_instruction(runs, opcode):
    """All busy cycles, overheads included, of instructions that are alone on their engine."""
    compared = 0
    for instructions, counters in runs:
        own = [values for found, values in instructions if found is opcode]
        if len(own) != 1:
            continue
        model = instruction_cycles(opcode, own[0], PRIME)
        measured = {event: counters[f"{opcode.name.lower()}.{event}"] for event in model.events}
        allowed = SINGLE_DIFFERENCES[opcode]
        if opcode is Opcode.DEPTHWISE and _short_rows(own[0], model):
            allowed = SHORT_ROW * (own[0]["rows"] + 1) * (own[0]["groups"] + 1)
        assert abs(sum(measured.values()) - model.issue) <= allowed, (own[0], measured, model.events)
        compared += 1
    assert compared >= 10


def _short_rows(values, model):
    rows = (values["rows"] + 1) * (values["groups"] + 1)
    operations = model.events["emit"] + model.events["fill"] + model.events["conflict"]
    return operations <= rows * 2 * (values["kernel_height"] + 1)
