"""The cycle model against the RTL's counters, for each instruction class, with a memory that never stalls."""

from collections import Counter

import pytest
from compiled_networks import NetworkBuilder

from tercel.hw.isa import Opcode
from tercel.sim.backend import VerilatorBackend
from tercel.sim.verify import PRIME
from tercel.sim.verilator.model import MemoryModel
from tercel.sw.compiler import compile_graph
from tercel.sw.cycles import instruction_cycles
from tercel.sw.estimate import estimate
from tercel.sw.layer import build_layer
from tercel.sw.layer_spec import LayerSpec
from tercel.sw.layer_tensors import random_tensors
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

THRESHOLDS = (1, 3, 7, 15)
"""Those of codes of 1 to 4 bits; 15 is the most that the machine takes."""

SHORT_ROW = 6
"""Depthwise rows of fewer operations than the walk over their kernel rows are predicted to within this many cycles a row."""


@pytest.fixture(scope="module")
def rtl():
    with VerilatorBackend(config=PRIME, memory_model=MemoryModel(latency=1)) as backend:
        yield backend


@pytest.fixture(scope="module")
def runs(rtl):
    """For each program its decoded instructions and the RTL's counters, and the cycles that the model predicts."""
    found = []
    for seed in SEEDS:
        program = random_program(PRIME, seed=seed).program
        found.append((program.instructions(), rtl.run(program).counters, estimate(program, memory_latency=1).cycles))
    return found


def threshold_program(*, thresholds, **geometry):
    spec = LayerSpec(**{"kind": "conv", "thresholds": thresholds} | geometry)
    return build_layer(*random_tensors(spec, PRIME, seed=0), PRIME)


def predicted(instructions, opcode):
    total = Counter()
    for found, values in instructions:
        if found is opcode:
            total.update(instruction_cycles(opcode, values, PRIME).events)
    return total


@pytest.mark.parametrize("opcode", EXACT, ids=lambda opcode: opcode.name)
def test_work_is_exact(runs, opcode):
    compared = 0
    for instructions, counters, _ in runs:
        model = predicted(instructions, opcode)
        for event in EXACT[opcode]:
            assert counters[f"{opcode.name.lower()}.{event}"] == model[event]
            compared += model[event]
    assert compared > 5000


def test_all_programs_together(runs):
    """Loads that wait while an engine writes their scratchpad included."""
    measured = sum(counters["machine.cycles"] for _, counters, _ in runs)
    assert sum(counters["load.write"] for _, counters, _ in runs) > 0.005 * measured
    assert sum(cycles for *_, cycles in runs) == pytest.approx(measured, rel=0.007)


@pytest.mark.parametrize("opcode", SINGLE_DIFFERENCES, ids=lambda opcode: opcode.name)
def test_single_instruction(runs, opcode):
    """All busy cycles, overheads included, of instructions that are alone on their engine."""
    compared = 0
    for instructions, counters, _ in runs:
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


@pytest.mark.parametrize("thresholds", THRESHOLDS)
@pytest.mark.parametrize("shared", [False, True], ids=["each channel", "shared"])
def test_single_instruction_with_thresholds(rtl, thresholds, shared):
    """As above: tiles that take longer and shorter than the drain compares, with and without residual, in rows."""
    for geometry in (
        {"input": (9, 23, 8), "weight_bits": 2},
        {"input": (6, 15, 12), "kernel": (3, 3), "padding": (1, 1, 1, 1), "weight_bits": 8},
        {"input": (8, 8, 4), "kernel": (2, 1), "stride": 2, "weight_bits": 4, "residual": True},
    ):
        out = 12 if shared else PRIME.outputs
        program = threshold_program(thresholds=thresholds, threshold_shared=shared, out=out, **geometry)
        (values,) = (values for found, values in program.instructions() if found is Opcode.ARRAY)
        counters = rtl.run(program).counters
        model = instruction_cycles(Opcode.ARRAY, values, PRIME)
        for event, count in model.events.items():
            assert abs(counters[f"array.{event}"] - count) <= (event in ("drain", "start")) * SINGLE_DIFFERENCES[Opcode.ARRAY], geometry


@pytest.mark.parametrize("thresholds", (0, *THRESHOLDS))
def test_the_drain_empties_between_instructions(rtl, thresholds):
    """A table a channel fits for few channels only, so that a layer takes many instructions: the model waits as the machine does."""
    program = threshold_program(thresholds=thresholds, input=(5, 21, 8), out=96, weight_bits=2)
    instructions = [values for found, values in program.instructions() if found is Opcode.ARRAY]
    assert len(instructions) >= (12 if thresholds else 1)
    result, model = rtl.run(program), estimate(program, memory_latency=1)
    assert result.counters["array.drain"] == model.events["array.drain"]
    alone = sum(instruction_cycles(Opcode.ARRAY, values, PRIME).events["drain"] for values in instructions)
    assert (model.events["array.drain"] > alone) == (thresholds > 1)
    assert result.cycles == pytest.approx(model.cycles, rel=0.01)


@pytest.mark.parametrize("thresholds", THRESHOLDS)
def test_networks_with_thresholds(rtl, thresholds):
    """Whole networks to half a percent, as they are compiled: tables come while layers run."""
    net = NetworkBuilder(PRIME, input=(16, 16, 8), bits=4)
    x = net.layer("conv", net.input, out=16, kernel=(3, 3), padding=(1, 1, 1, 1), thresholds=thresholds, zero_point=0)
    x = net.layer("conv", x, out=32, stride=2, thresholds=thresholds, zero_point=0)
    x = net.layer("conv", x, out=32, kernel=(3, 3), padding=(1, 1, 1, 1), thresholds=thresholds, zero_point=0)
    program = compile_graph(net.graph(x), PRIME)
    result, model = rtl.run(program, inputs=net.image()), estimate(program, memory_latency=1)
    assert result.cycles == pytest.approx(model.cycles, rel=0.005)
    assert result.counters["array.drain"] == pytest.approx(model.events["array.drain"], abs=20)


def _short_rows(values, model):
    rows = (values["rows"] + 1) * (values["groups"] + 1)
    operations = model.events["emit"] + model.events["fill"] + model.events["conflict"]
    return operations <= rows * 2 * (values["kernel_height"] + 1)
