"""Running the link's parts in simulation, and its line."""

from amaranth.sim import Simulator

from tercel.sw.link.frame import FrameDecoder


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
