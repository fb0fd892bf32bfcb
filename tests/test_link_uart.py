# amaranth: UnusedElaboratable=no
"""The line: bytes in and out at the edges of what it tolerates."""

import random

import pytest
from link_bench import line_bits, send_bits, simulate

from tercel.hw.link.uart import UartReceiver, UartTransmitter, check_divider


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
