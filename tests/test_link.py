# amaranth: UnusedElaboratable=no
"""The link's gateware: the line, frames, and the whole against its model, with whole and broken requests."""

import random
import zlib

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component
from amaranth.sim import Simulator
from link_machine import PlainMachine

from tercel.hw.config import BASE, SMALL
from tercel.hw.link.crc import SerialCrc
from tercel.hw.link.frame import FrameReceiver, FrameTransmitter
from tercel.hw.link.link import Link
from tercel.hw.link.protocol import FLAG, REQUEST_HEADER, Command
from tercel.hw.link.uart import UartReceiver, UartTransmitter, check_divider
from tercel.sim.soc.link_model import LinkModel
from tercel.sw.link.frame import FrameDecoder, decode_body, encode_frame


class WithCrc(Component):
    """A receiver or transmitter of frames and its CRC."""

    def __init__(self, inner) -> None:
        self.inner = inner
        super().__init__({})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.crc = crc = SerialCrc()
        m.submodules.inner = inner = self.inner
        if isinstance(inner, FrameReceiver):
            m.d.comb += [crc.clear.eq(inner.begin), crc.add.eq(inner.valid), crc.data.eq(inner.data), inner.crc_match.eq(crc.match)]
        else:
            m.d.comb += [
                crc.clear.eq(inner.crc_clear),
                crc.add.eq(inner.crc_add),
                crc.drop.eq(inner.crc_drop),
                crc.data.eq(inner.i.p.data),
                inner.crc_busy.eq(crc.busy),
                inner.crc_byte.eq(crc.byte),
            ]
        return m


def simulate(dut, testbench, *background, testbenches=()) -> None:
    """Run until ``testbench`` ends."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    for other in testbenches:
        simulator.add_testbench(other)
    for other in background:
        simulator.add_testbench(other, background=True)
    simulator.run()


async def send_bits(ctx, pin, bits, *, cycles: float) -> None:
    """Levels on a pin, each ``cycles`` clock cycles long on the average."""
    done = 0
    for index, bit in enumerate(bits):
        ctx.set(pin, bit)
        end = round((index + 1) * cycles)
        await ctx.tick().repeat(end - done)
        done = end


async def listen(ctx, pin, *, divider: int, decoder: FrameDecoder, received: list[bytes]) -> None:
    """Collects the messages that come out of a pin."""
    while True:
        _, _, level = await ctx.tick().sample(pin)
        if level:
            continue
        byte = 0
        for bit in range(9):
            (level,) = await ctx.tick().sample(pin).repeat(divider)
            byte |= level << bit
        assert byte >> 8 == 1, "no stop bit"
        received += decoder.feed(bytes([byte & 0xFF]))


def line_bits(byte: int, *, stop: int = 1) -> list[int]:
    return [0, *(byte >> bit & 1 for bit in range(8)), stop]


@pytest.mark.parametrize(("divider", "error"), [(4, 0), (5, 0), (16, 0.03), (16, -0.03), (20, 0.03), (25, -0.03)])
def test_receive(divider: int, error: float) -> None:
    """Random bytes, close together and apart, from a sender whose clock is a little off; spikes and missing stop bits are found."""
    dut = UartReceiver(divider=divider)
    rng = random.Random(divider)
    expected: list[int | None] = []
    received: list[int | None] = []

    async def sender(ctx) -> None:
        await ctx.tick().repeat(3)
        for _ in range(40):
            byte = rng.randrange(256)
            broken = rng.random() < 0.1
            expected.append(None if broken else byte)
            await send_bits(ctx, dut.pin, line_bits(byte, stop=0 if broken else 1), cycles=divider * (1 + error))
            ctx.set(dut.pin, 1)
            if broken:
                await ctx.tick().repeat(3 * divider)
            elif rng.random() < 0.3:
                if divider >= 16 and rng.random() < 0.5:
                    await ctx.tick().repeat(2)
                    await send_bits(ctx, dut.pin, [0, 1], cycles=divider // 4)
                await ctx.tick().repeat(rng.randrange(1, 2 * divider))
        await ctx.tick().repeat(2 * divider)

    async def listener(ctx) -> None:
        async for _, _, valid, payload in ctx.tick().sample(dut.o.valid, dut.o.payload):
            if valid:
                received.append(None if payload.error else payload.data)

    simulate(dut, sender, listener)
    assert received == expected


def test_broken_line() -> None:
    """A line that stays low gives one error, and the first byte after it is understood."""
    dut = UartReceiver(divider=8)
    received = []

    async def sender(ctx) -> None:
        await send_bits(ctx, dut.pin, [1, *[0] * 60, 1, *line_bits(0xA5), 1], cycles=8)

    async def listener(ctx) -> None:
        async for _, _, valid, payload in ctx.tick().sample(dut.o.valid, dut.o.payload):
            if valid:
                received.append((payload.error, payload.data))

    simulate(dut, sender, listener)
    assert [error for error, _ in received] == [1, 0]
    assert received[1][1] == 0xA5


@pytest.mark.parametrize("divider", [4, 7, 20])
def test_transmit(divider: int) -> None:
    """Every level lasts ``divider`` cycles, and bytes follow each other without a gap of more than a cycle."""
    dut = UartTransmitter(divider=divider)
    data = [random.Random(divider).randrange(256) for _ in range(20)]
    levels = []

    async def producer(ctx) -> None:
        for byte in data:
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, byte)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)
        await ctx.tick().repeat(11 * divider)

    async def listener(ctx) -> None:
        async for _, _, level in ctx.tick().sample(dut.pin):
            levels.append(level)

    simulate(dut, producer, listener)
    position = levels.index(0)
    for byte in data:
        assert levels[position : position + 10 * divider] == [bit for bit in line_bits(byte) for _ in range(divider)]
        position += 10 * divider + 1
    with pytest.raises(ValueError, match=r"^divider must be at least 4, not 3 \(take a lower baud rate or a faster clock\)$"):
        check_divider(3)


def test_crc() -> None:
    """Against zlib, and the match after the checksum itself."""
    dut = SerialCrc()
    rng = random.Random(4)

    async def testbench(ctx) -> None:
        async def add(data: bytes) -> None:
            for byte in data:
                ctx.set(dut.add, 1)
                ctx.set(dut.data, byte)
                await ctx.tick()
                ctx.set(dut.add, 0)
                await ctx.tick().repeat(8)
                assert not ctx.get(dut.busy)

        for length in (0, 1, 7, 30):
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            message = rng.randbytes(length)
            await add(message)
            crc = zlib.crc32(message).to_bytes(4, "little")
            await add(crc)
            assert ctx.get(dut.match) == 1
            await add(b"x")
            assert ctx.get(dut.match) == 0
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            await add(message)
            for byte in crc:
                assert ctx.get(dut.byte) == byte
                ctx.set(dut.drop, 1)
                await ctx.tick()
                ctx.set(dut.drop, 0)
                await ctx.tick().repeat(8)

    simulate(dut, testbench)


def test_frame_codec() -> None:
    """What is encoded is decoded, in any pieces, and nothing damaged is."""
    rng = random.Random(5)
    messages = [rng.randbytes(rng.randint(1, 60)) for _ in range(200)] + [bytes([0x7D, 0x7E]) * 20, b"\x7d", b"\x7e"]
    wire = b"".join(encode_frame(message) for message in messages)
    decoder = FrameDecoder()
    found = []
    while wire:
        size = rng.randint(1, 50)
        found += decoder.feed(wire[:size])
        wire = wire[size:]
    assert found == messages
    for message in messages:
        frame = encode_frame(message)
        assert frame[1:-1].count(FLAG) == 0
        for bit in range(8, 8 * len(frame) - 8):
            spoiled = bytearray(frame)
            spoiled[bit // 8] ^= 1 << bit % 8
            assert FrameDecoder().feed(bytes(spoiled)) == []
        assert all(decode_body(frame[1:end]) is None for end in range(1, len(frame) - 1))


def test_frame_receiver() -> None:
    """Random whole and broken frames: the messages are those of the decoder; nothing while it is not enabled."""
    dut = FrameReceiver()
    rng = random.Random(6)
    pieces: list[tuple[bytes, int]] = []
    for _ in range(60):
        frame = bytearray(encode_frame(rng.randbytes(rng.randint(1, 12))))
        if rng.random() < 0.4:
            frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            del frame[rng.randrange(len(frame)) :]
        pieces.append((bytes(frame), int(rng.random() < 0.8)))
    expected = FrameDecoder().feed(b"".join(frame if enabled else b"\x7d" for frame, enabled in pieces))
    received: list[bytes] = []

    async def sender(ctx) -> None:
        for frame, enabled in pieces:
            ctx.set(dut.enable, enabled)
            if not enabled:
                await ctx.tick()
            for byte in frame:
                ctx.set(dut.i.valid, 1)
                ctx.set(dut.i.p.data, byte)
                await ctx.tick()
                ctx.set(dut.i.valid, 0)
                await ctx.tick().repeat(rng.randint(8, 12))

    async def listener(ctx) -> None:
        current = b""
        async for _, _, begin, valid, data, end in ctx.tick().sample(dut.begin, dut.valid, dut.data, dut.end):
            if valid:
                current += bytes([data])
            if end:
                received.append(current[:-4])
            if begin:
                current = b""

    simulate(WithCrc(dut), sender, listener)
    assert received == expected
    assert len(received) > 15


def test_frame_transmitter() -> None:
    """Messages with many special bytes, with random stalls on both sides."""
    dut = FrameTransmitter()
    rng = random.Random(7)
    messages = [bytes(rng.choice([0x7D, 0x7E, rng.randrange(256)]) for _ in range(rng.randint(1, 20))) for _ in range(15)]
    wire: list[int] = []

    async def producer(ctx) -> None:
        for message in messages:
            for index, byte in enumerate(message):
                await ctx.tick().repeat(rng.choice([0, 0, 3]) + 1)
                ctx.set(dut.i.valid, 1)
                ctx.set(dut.i.p, {"data": byte, "last": index == len(message) - 1})
                await ctx.tick().until(dut.i.ready)
                ctx.set(dut.i.valid, 0)
        await ctx.tick().repeat(200)

    async def consumer(ctx) -> None:
        while True:
            ctx.set(dut.o.ready, rng.random() < 0.3)
            _, _, valid, ready, byte = await ctx.tick().sample(dut.o.valid, dut.o.ready, dut.o.payload)
            if valid and ready:
                wire.append(byte)

    simulate(WithCrc(dut), producer, consumer)
    assert bytes(wire) == b"".join(encode_frame(message) for message in messages)


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
