"""A Wishbone master for testbenches."""

import random

from tercel.hw.control.csr import RESET_CYCLES


class WishboneMaster:
    """Accesses a slave, as a pipelined master or (``classic``) as one that holds ``stb`` until ``ack``."""

    def __init__(self, ctx, bus, *, classic: bool = False) -> None:
        self._ctx = ctx
        self._bus = bus
        self._classic = classic

    async def _access(self, addr: int, *, value: int | None, sel: int) -> int:
        ctx, bus = self._ctx, self._bus
        ctx.set(bus.cyc, 1)
        ctx.set(bus.stb, 1)
        ctx.set(bus.adr, addr // 4)
        ctx.set(bus.we, value is not None)
        ctx.set(bus.dat_w, random.getrandbits(32) if value is None else value)
        ctx.set(bus.sel, sel)
        for _ in range(20 + RESET_CYCLES):
            _, _, ack, stall, data = await ctx.tick().sample(bus.ack, bus.stall, bus.dat_r)
            if not stall and not self._classic:
                ctx.set(bus.stb, 0)
            if ack:
                ctx.set(bus.stb, 0)
                ctx.set(bus.cyc, 0)
                return data
        raise AssertionError(f"no acknowledge for {addr:#x}")

    async def read(self, addr: int) -> int:
        """The register at byte address ``addr``."""
        return await self._access(addr, value=None, sel=0xF)

    async def write(self, addr: int, value: int, *, sel: int = 0xF) -> None:
        """Write the bytes of the register that ``sel`` selects."""
        await self._access(addr, value=value, sel=sel)
