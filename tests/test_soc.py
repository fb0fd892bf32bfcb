# amaranth: UnusedElaboratable=no
"""The system: memory on the FPGA, rates of the line, and the whole in simulation with the host's driver, on good lines and bad ones."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator
from compiled_networks import NetworkBuilder

from tercel.hw.config import TINY
from tercel.hw.control.csr import ADDRESSES, CONTROL_START, CONTROL_STOP
from tercel.hw.isa import Fault
from tercel.hw.on_chip_memory import OnChipMemory
from tercel.hw.soc import OnChip, Soc, SocError
from tercel.sim.backend import GoldenBackend
from tercel.sim.board_backend import BoardBackend
from tercel.sim.soc.link_fuzz import LEAST, fuzz_build, fuzz_link
from tercel.sim.soc.simulation import SocSimulation
from tercel.sw.compiler import compile_graph
from tercel.sw.link.session import Session


def test_errors() -> None:
    with pytest.raises(
        SocError, match=r"^baud must be a whole fraction of 48000000 Hz, 1/4 at most, not 13000000 \(the nearest is 12000000\)$"
    ):
        Soc(TINY, memory=OnChip(size=1024), clock_hz=48_000_000, baud=13_000_000)
    with pytest.raises(
        SocError, match=r"^baud must be a whole fraction of 50000000 Hz, 1/4 at most, not 7000000 \(the nearest is 7142857\)$"
    ):
        Soc(TINY, memory=OnChip(size=1024), clock_hz=50_000_000, baud=7_000_000)
    with pytest.raises(SocError, match=r"^size must be a power of two from 1024 on, not 3000 \(bytes of memory on the FPGA\)$"):
        OnChip(size=3000)


def test_on_chip_memory() -> None:
    """Both ports at random, with byte selects and addresses past the end: answers in order and in the next cycle, ``npu`` first."""
    size, width = 64, 4
    dut = OnChipMemory(size=size, memory_width=width, addr_width=8)
    rng = random.Random(1)
    memory = bytearray(size)
    answered = {"npu": 0, "host": 0}

    async def testbench(ctx) -> None:
        expected: dict[str, tuple[bool, bytes | None]] = {}
        for _ in range(600):
            asked = {}
            for name in ("npu", "host"):
                port = getattr(dut, name)
                ask = rng.random() < 0.6
                request = (rng.randrange(size // width + 2), rng.random() < 0.5, rng.randrange(16), rng.getrandbits(32))
                ctx.set(port.cyc, 1)
                ctx.set(port.stb, ask)
                for member, value in zip(("adr", "we", "sel", "dat_w"), request, strict=True):
                    ctx.set(getattr(port, member), value)
                if ask:
                    asked[name] = request
            assert ctx.get(dut.npu.stall) == 0
            assert ctx.get(dut.host.stall) == ("npu" in asked)
            for name in ("npu", "host"):
                port = getattr(dut, name)
                good, data = expected.pop(name, (None, None))
                assert (ctx.get(port.ack), ctx.get(port.err)) == (good is True, good is False)
                if good and data is not None:
                    answered[name] += 1
                    assert ctx.get(port.dat_r) == int.from_bytes(data, "little")
            if asked:
                name, (adr, we, sel, value) = next(iter(asked.items()))
                inside = (adr + 1) * width <= size
                expected[name] = (inside, None if we else bytes(memory[adr * width : (adr + 1) * width]))
                if we and inside:
                    for byte in range(width):
                        if sel >> byte & 1:
                            memory[adr * width + byte] = value >> 8 * byte & 0xFF
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert min(answered.values()) > 20


@pytest.fixture(scope="module")
def simulation():
    system = SocSimulation(fuzz_build())
    yield system
    system.close()


def test_program(simulation) -> None:
    """A network over the simulated line gives the golden model's codes, run after run."""
    builder = NetworkBuilder(LEAST, input=(5, 5, 4), bits=8)
    out = builder.layer("conv", builder.input, out=4, kernel=(3, 3), padding=(1, 1, 1, 1))
    out = builder.layer("conv", out, out=6, kernel=(1, 1))
    program = compile_graph(builder.graph(out), LEAST)
    backend = BoardBackend(simulation, timeout_s=0.001)
    assert backend.identity.config_hash == LEAST.hash
    assert backend.identity.memory_bytes == 1 << 15
    for seed in range(2):
        codes = np.random.default_rng(seed).integers(0, 256, (5, 5, 4))
        result = backend.run(program, inputs={"image": codes})
        expected = GoldenBackend().run(program, inputs={"image": codes})
        assert result.fault is Fault.NONE
        assert result.cycles > 0
        for name, tensor in expected.outputs.items():
            np.testing.assert_array_equal(result.outputs[name], tensor)
    assert backend.session.counts.repeats == 0


def test_stop_and_fault(simulation) -> None:
    """A machine that is stopped in the middle of a run runs the next program; one without a program faults."""
    session = Session(simulation, timeout_s=0.001)
    session.write_memory(0, bytes(4096))
    session.write_csr(ADDRESSES["program_base"], 0)
    session.write_csr(ADDRESSES["program_count"], 20)
    session.write_csr(ADDRESSES["control"], CONTROL_START)
    session.write_csr(ADDRESSES["control"], CONTROL_STOP)
    assert session.read_csr(ADDRESSES["status"]) == [0]
    session.write_csr(ADDRESSES["control"], CONTROL_START)
    assert session.read_csr(ADDRESSES["status"]) == [3 | Fault.ILLEGAL_OPCODE << 4]


def test_fuzz(simulation) -> None:
    """A bad line, briefly; ``python -m benchmarks.link_fuzz`` is the long one."""
    result = fuzz_link(simulation, frames=60, seed=2)
    assert result.ok
    assert result.repeats > 10
    assert result.spoiled >= 60
