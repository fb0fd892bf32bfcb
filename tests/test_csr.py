"""The registers and the counters behind them."""

import random

import pytest
from amaranth.sim import Simulator
from wishbone_bench import WishboneMaster

from tercel.hw.config import BASE
from tercel.hw.control.counters import Counters
from tercel.hw.control.csr import ADDRESSES, IDENTITY, RESET_CYCLES, SETTINGS, Csr
from tercel.hw.control.supervisor import State
from tercel.hw.isa import ISA_VERSION

COUNTERS = 37


def simulate(dut, testbench, *background) -> None:
    """Run until ``testbench`` ends."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    for other in background:
        simulator.add_testbench(other, background=True)
    simulator.run()


@pytest.mark.parametrize("classic", [False, True], ids=["pipelined", "classic"])
def test_registers(classic: bool) -> None:
    """Random reads and writes everywhere, against a dictionary; counters read as 7 times their index."""
    dut = Csr(BASE, counter_count=COUNTERS)
    rng = random.Random(1)
    constants = {
        "id": IDENTITY,
        "isa_version": ISA_VERSION,
        "config_hash": BASE.hash,
        "counter_count": COUNTERS,
    }

    async def testbench(ctx) -> None:
        csr = WishboneMaster(ctx, dut.bus, classic=classic)
        model = dict.fromkeys(SETTINGS, 0)
        for step in range(600):
            state = rng.choice(list(State))
            code, index = rng.randrange(16), rng.randrange(1 << 16)
            ctx.set(dut.state, state)
            ctx.set(dut.fault_code, code)
            ctx.set(dut.fault_index, index)
            assert ctx.get(dut.interrupt) == (state in (State.DONE, State.FAULT))
            if rng.random() < 0.5:
                name = rng.choice([*SETTINGS, *constants, "status", "fault_index"])
                value, sel = rng.getrandbits(32), rng.choice([15, 15, rng.randrange(16)])
                await csr.write(ADDRESSES[name], value, sel=sel)
                if name in SETTINGS and state is not State.RUNNING:
                    mask = sum(0xFF << 8 * byte for byte in range(4) if sel >> byte & 1) & ((1 << SETTINGS[name]) - 1)
                    model[name] = model[name] & ~mask | value & mask
            else:
                expected = {ADDRESSES[name]: value for name, value in (model | constants).items()}
                expected |= {ADDRESSES["status"]: state | code << 4, ADDRESSES["fault_index"]: index}
                expected |= {ADDRESSES["counters"] + 4 * number: 7 * number for number in range(COUNTERS)}
                addr = rng.choice([rng.choice(list(expected)), 4 * rng.randrange(1024)])
                assert await csr.read(addr) == expected.get(addr, 0), f"step {step}, {addr:#x}"
            await ctx.tick().repeat(rng.randint(1, 3))
        for name, value in model.items():
            assert ctx.get(getattr(dut, name)) == value

    async def counters(ctx) -> None:
        before = 0
        async for _, _, index in ctx.tick().sample(dut.counter_index):
            ctx.set(dut.counter_data, 7 * before)
            before = index

    simulate(dut, testbench, counters)


@pytest.mark.parametrize("classic", [False, True], ids=["pipelined", "classic"])
def test_control(classic: bool) -> None:
    """Each write of CONTROL gives one long reset, and run afterwards says which it was; stop wins; a write without both bits does nothing.

    Reads wait until the reset is over and the machine runs.
    """
    dut = Csr(BASE, counter_count=COUNTERS)
    resets = []

    async def testbench(ctx) -> None:
        csr = WishboneMaster(ctx, dut.bus, classic=classic)
        expected_run, expected_resets = 0, RESET_CYCLES
        await ctx.tick().repeat(RESET_CYCLES)
        for value, sel, run in [(1, 15, 1), (2, 15, 0), (1, 1, 1), (1, 14, 1), (0, 15, 1), (4, 15, 1), (3, 15, 0), (1, 14, 0), (1, 15, 1)]:
            await csr.write(ADDRESSES["control"], value, sel=sel)
            resetting = bool(value & 3 and sel & 1)
            assert ctx.get(dut.reset) == resetting
            assert ctx.get(dut.run) == (expected_run and not resetting)
            expected_run = run
            expected_resets += resetting * RESET_CYCLES
            if resetting:
                ctx.set(dut.state, State.IDLE)
            assert await csr.read(ADDRESSES["status"]) & 3 == (State.RUNNING if run else State.IDLE)
            assert sum(resets) == expected_resets
            assert ctx.get(dut.run) == expected_run

    async def count(ctx) -> None:
        async for _, _, reset in ctx.tick().sample(dut.reset):
            resets.append(reset)

    async def supervisor(ctx) -> None:
        run_since = 0
        async for _, _, run in ctx.tick().sample(dut.run):
            run_since = (run_since + 1) * run
            if run_since == 10:
                ctx.set(dut.state, State.RUNNING)

    simulate(dut, testbench, count, supervisor)


def test_counters() -> None:
    """Sums of random events, each counter at its own rate, complete when drained; what happens while not running does not count."""
    dut = Counters(count=COUNTERS)
    rng = random.Random(2)
    rates = [0, 1, *(rng.random() for _ in range(COUNTERS - 2))]
    sums = [0] * COUNTERS

    def draw() -> int:
        return sum((rng.random() < rate) << number for number, rate in enumerate(rates))

    async def testbench(ctx) -> None:
        ctx.set(dut.running, 1)
        for _ in range(3000):
            events = draw()
            ctx.set(dut.events, events)
            for number in range(COUNTERS):
                sums[number] += events >> number & 1
            await ctx.tick()
        ctx.set(dut.running, 0)
        for _ in range(dut.drain_cycles):
            ctx.set(dut.events, draw())
            await ctx.tick()
        for number in range(COUNTERS):
            ctx.set(dut.read_index, number)
            await ctx.tick().repeat(2)
            assert ctx.get(dut.read_data) == sums[number], f"counter {number}"

    simulate(dut, testbench)
