"""The whole array engine against the golden model: random instructions, every word written, every token given."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator
from array_programs import config_of, random_fields

from tercel.hw.array.engine import ArrayEngine
from tercel.hw.isa import Opcode, Space, encode
from tercel.sim.golden.array import execute_array
from tercel.sim.golden.state import MachineState

CONFIGS = [
    config_of(3, threshold_depth=128), config_of(4, lanes=4, threshold_depth=0),
    config_of(7, per_channel_multiplier=True, threshold_depth=64),
    config_of(2, digit_set="ternary", outputs=2, drain_lanes=1),
]  # fmt: skip


def random_state(config, *, seed):
    """Memories full of random bytes."""
    generator = np.random.default_rng(seed)
    state = MachineState(config)
    for memory in (state.array.banks, state.window.banks, *state.linear.values()):
        memory[...] = generator.integers(0, 256, memory.shape, dtype=np.uint8)
    return state


def parameter_entry(config, entry):
    """The fields of a channel's 8 bytes."""
    fields = {"bias": int.from_bytes(entry[:4].tobytes(), "little", signed=True), "shift": int(entry[4]) & 15}
    if config.per_channel_multiplier:
        fields["multiplier"] = int.from_bytes(entry[6:8].tobytes(), "little") & (1 << config.multiplier_bits) - 1
    return fields


def run(config, program, state, *, seed):
    """Execute ``program`` with the memories of ``state``, whose scratchpads are changed; the list of what ``done`` said."""
    dut = ArrayEngine(config)
    rng = random.Random(seed)
    said = []

    async def source(ctx):
        for index, fields in program:
            for _ in range(rng.choice((0, 0, 1, 30))):
                await ctx.tick()
            ctx.set(dut.start.payload, {"instruction": encode(Opcode.ARRAY, fields), "index": index})
            ctx.set(dut.start.valid, 1)
            while not ctx.get(dut.start.ready):
                await ctx.tick()
            await ctx.tick()
            ctx.set(dut.start.valid, 0)

    async def scratchpads(ctx):
        writes = spaces = 0
        async for _, _, enable, addrs, next_writes, write_addrs, words, next_spaces in ctx.tick().sample(
            dut.read.en, dut.read.addr, dut.write.en, dut.write.addr, dut.write.data, dut.write_space
        ):
            for bank in range(config.pixels):
                word = state.array.banks[bank, addrs[bank]] if enable >> bank & 1 else np.zeros(config.lanes, dtype=np.uint8)
                ctx.set(dut.read.data[bank], int.from_bytes(word.tobytes(), "little"))
                if writes >> bank & 1:
                    word = np.frombuffer(words[bank].to_bytes(config.lanes, "little"), dtype=np.uint8)
                    state.scratchpad(spaces >> bank & 1).banks[bank, write_addrs[bank]] = word
            writes, spaces = next_writes, next_spaces

    async def linear(ctx):
        coming = 0
        async for _, _, weight_addr, parameter_en, parameter_addr in ctx.tick().sample(
            dut.weight.addr, dut.parameter.en, dut.parameter.addr
        ):
            word = int.from_bytes(state.linear[Space.WEIGHT][coming].tobytes(), "little")
            ctx.set(dut.weight.data, word & (1 << 2 * config.lanes * config.outputs) - 1)
            coming = weight_addr
            if parameter_en:
                entries = state.linear[Space.PARAMETER][parameter_addr][: 8 * config.drain_lanes].reshape(-1, 8)
                ctx.set(dut.parameter.data, [parameter_entry(config, entry) for entry in entries])

    async def thresholds(ctx):
        async for _, _, enable, addr in ctx.tick().sample(dut.threshold.en, dut.threshold.addr):
            if enable:
                entry = state.linear[Space.THRESHOLD][addr][:2].tobytes()
                ctx.set(dut.threshold.data, int.from_bytes(entry, "little", signed=True))

    async def sink(ctx):
        while len(said) < len(program):
            ctx.set(dut.done.ready, rng.random() < 0.1)
            if ctx.get(dut.done.valid) and ctx.get(dut.done.ready):
                said.append((ctx.get(dut.done.payload.index), ctx.get(dut.done.payload.post)))
            assert not ctx.get(dut.fault_valid)
            await ctx.tick()
        ctx.set(dut.done.ready, 0)
        assert ctx.get(dut.idle) and not ctx.get(dut.events)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for process in (source, scratchpads, linear, *([thresholds] if config.threshold_depth else [])):
        simulator.add_testbench(process, background=True)
    simulator.add_testbench(sink)
    simulator.run()
    return said


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"P{config.pixels}")
def test_engine_equals_golden_model(config):
    """Inputs are read from the array scratchpad, outputs go to the window scratchpad, so that instructions may overlap."""
    rng = random.Random(config.pixels)
    program = []
    for index in range(8):
        fields = random_fields(rng, config, steps=80, out_space=1)
        fields["multiplier"] %= 1 << config.multiplier_bits
        fields["shift"] = rng.randrange(10, 34)
        fields["lo"], fields["hi"] = sorted((fields["lo"], fields["hi"]))
        program.append((index, fields))
    expected, actual = random_state(config, seed=1), random_state(config, seed=1)
    for _, fields in program:
        execute_array(expected, fields)
    assert not np.array_equal(actual.window.banks, expected.window.banks)
    said = run(config, program, actual, seed=2)
    assert said == [(index, fields["post"]) for index, fields in program]
    assert np.array_equal(actual.array.banks, expected.array.banks)
    assert np.array_equal(actual.window.banks, expected.window.banks)
