# amaranth: UnusedElaboratable=no
"""Frames and their CRC, whole and broken."""

import random
import zlib

from amaranth.hdl import Module
from amaranth.lib.wiring import Component
from link_bench import simulate

from tercel.hw.link.crc import SerialCrc
from tercel.hw.link.frame import FrameReceiver, FrameTransmitter
from tercel.hw.link.protocol import FLAG
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
