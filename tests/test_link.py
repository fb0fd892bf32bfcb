# amaranth: UnusedElaboratable=no
"""The whole link against its model, with whole and broken requests."""

import random

import pytest
from link_bench import line_bits, listen, send_bits, simulate
from link_machine import PlainMachine

from tercel.hw.config import BASE, SMALL
from tercel.hw.link.link import Link
from tercel.hw.link.protocol import REQUEST_HEADER, Command
from tercel.sim.soc.link_model import LinkModel
from tercel.sw.link.frame import FrameDecoder, encode_frame


async def memory_slave(ctx, bus, machine: PlainMachine, rng: random.Random) -> None:
    """A pipelined Wishbone memory that stalls at random and refuses what lies past its end."""
    width = len(bus.sel)
    waiting: list[tuple[int, int | None]] = []
    while True:
        ctx.set(bus.stall, rng.random() < 0.4)
        answer = waiting and rng.random() < 0.5
        ctx.set(bus.ack, 0)
        ctx.set(bus.err, 0)
        ctx.set(bus.dat_r, rng.getrandbits(8 * width))
        if answer:
            address, written = waiting.pop(0)
            inside = address + width <= len(machine.memory)
            ctx.set(bus.ack if inside else bus.err, 1)
            if inside and written is None:
                ctx.set(bus.dat_r, int.from_bytes(machine.memory[address : address + width], "little"))
            elif inside:
                machine.memory[address : address + width] = written.to_bytes(width, "little")
        _, _, accepted, stall, adr, we, data = await ctx.tick().sample(bus.cyc & bus.stb, bus.stall, bus.adr, bus.we, bus.dat_w)
        if accepted and not stall:
            waiting.append((adr * width, data if we else None))


async def csr_slave(ctx, bus, machine: PlainMachine, rng: random.Random) -> None:
    """Registers that stall until they acknowledge."""
    ctx.set(bus.stall, 1)
    while True:
        _, _, begin, adr, we, data = await ctx.tick().sample(bus.cyc & bus.stb, bus.adr, bus.we, bus.dat_w)
        if begin:
            await ctx.tick().repeat(rng.randint(1, 4))
            if we:
                machine.write_csr(4 * adr, data)
            ctx.set(bus.dat_r, 0 if we else machine.read_csr(4 * adr))
            ctx.set(bus.stall, 0)
            ctx.set(bus.ack, 1)
            await ctx.tick()
            ctx.set(bus.stall, 1)
            ctx.set(bus.ack, 0)


def random_request(rng: random.Random, *, sequence: int, unit: int, payload_bytes: int) -> bytes:
    """A request that is mostly right."""
    command = rng.choice([*Command] if rng.random() < 0.95 else range(256))
    step = unit if command & 4 else 4
    count = step * rng.randint(1, 6)
    address = step * rng.randrange(48)
    if rng.random() < 0.15:
        count, address = rng.choice([0, count + 1, 2 * payload_bytes]), address + rng.choice([0, 1, 2])
    length = count if command & 1 and count <= payload_bytes else 0
    if rng.random() < 0.05:
        length = rng.randrange(payload_bytes + 8)
    return REQUEST_HEADER.pack(command, sequence, address, count) + rng.randbytes(length)


@pytest.mark.parametrize("config", [SMALL, BASE], ids=lambda config: config.name)
def test_link_against_model(config) -> None:
    """Requests that are whole, wrong, repeated, old or damaged: bytes on the line, memory and registers are those of the model."""
    payload_bytes = 32
    dut = Link(config, memory_bytes=256, clock_hz=60_000_000, divider=4, payload_bytes=payload_bytes)
    rng = random.Random(8)
    real, ideal = (PlainMachine(memory=bytearray(random.Random(9).randbytes(256))) for _ in range(2))
    model = LinkModel(
        machine=ideal, memory_width=config.memory_width, payload_bytes=payload_bytes, config_hash=config.hash, clock_hz=60_000_000
    )
    received: list[bytes] = []

    async def line(ctx) -> None:
        await listen(ctx, dut.tx, divider=4, decoder=FrameDecoder(), received=received)

    async def host(ctx) -> None:
        sequence = 0
        history: list[bytes] = []
        for number in range(30):
            kind = rng.random()
            if kind < 0.65 or not history:
                sequence = (sequence + 1) % 65536
                message = random_request(rng, sequence=sequence, unit=config.memory_width, payload_bytes=payload_bytes)
                history.append(message)
            else:
                message = rng.choice(history[-3:])
            frame = bytearray(encode_frame(message))
            if rng.random() < 0.2:
                frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
            elif rng.random() < 0.1:
                del frame[rng.randrange(len(frame)) :]
            expected = FrameDecoder().feed(model.feed(bytes(frame)))
            sequence = model._last
            before = len(received)
            for byte in frame:
                await send_bits(ctx, dut.rx, line_bits(byte), cycles=4)
            for _ in range(60):
                if len(received) - before >= len(expected):
                    break
                await ctx.tick().repeat(40)
            assert received[before:] == expected, f"request {number}"
            assert real.memory == ideal.memory
            assert real.registers == ideal.registers

    async def memory(ctx) -> None:
        await memory_slave(ctx, dut.memory, real, random.Random(10))

    async def registers(ctx) -> None:
        await csr_slave(ctx, dut.csr, real, random.Random(11))

    simulate(dut, host, line, memory, registers)
    assert real.writes == ideal.writes > 2
    assert len(received) > 15


def test_dead_memory() -> None:
    """A memory that never answers is reported, the link lives on, and a repeated write gets the same answer."""
    dut = Link(SMALL, memory_bytes=256, clock_hz=60_000_000, divider=4, payload_bytes=32, timeout_cycles=64)
    received: list[bytes] = []

    async def line(ctx) -> None:
        await listen(ctx, dut.tx, divider=4, decoder=FrameDecoder(), received=received)

    async def host(ctx) -> None:
        ctx.set(dut.csr.stall, 0)
        requests = [
            REQUEST_HEADER.pack(Command.WRITE_MEMORY, 1, 0, 2) + b"ab",
            REQUEST_HEADER.pack(Command.WRITE_MEMORY, 1, 0, 2) + b"ab",
            REQUEST_HEADER.pack(Command.READ_MEMORY, 2, 0, 4),
            REQUEST_HEADER.pack(Command.IDENTIFY, 77, 0, 0),
        ]
        for message in requests:
            for byte in encode_frame(message):
                await send_bits(ctx, dut.rx, line_bits(byte), cycles=4)
            await ctx.tick().repeat(1600)

    simulate(dut, host, line)
    assert [message[:4] for message in received] == [b"\x85\x01\x00\x03", b"\x85\x01\x00\x03", b"\x84\x02\x00\x03", b"\x80\x4d\x00\x00"]


def test_link_errors() -> None:
    with pytest.raises(
        ValueError, match=r"^payload_bytes must be a power of two in 32\.\.32768, not 48 \(one block of memory is enough\)$"
    ):
        Link(SMALL, memory_bytes=256, clock_hz=1, divider=4, payload_bytes=48)
