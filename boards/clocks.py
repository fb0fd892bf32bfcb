"""What the clocks of all boards have in common: one PLL, two domains, a reset until it has locked."""

from abc import abstractmethod
from itertools import pairwise

from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib import io
from amaranth.lib.cdc import AsyncFFSynchronizer


class ClockError(ValueError):
    """A clock that a PLL cannot make. The message names the parameter, the limit, the value and the way out."""


class PllClocks(Elaboratable):
    """Drives the domains ``sync``, and ``sdram``: the same, later by a part of a period. Both are reset until the PLL has locked.

    Parameters
    ----------
    pin
        Resource of the platform with the input clock.
    """

    def __init__(self, *, pin: str) -> None:
        self._pin = pin

    @abstractmethod
    def pll(self, pin: Signal, locked: Signal) -> Instance:
        """The cell that makes both clocks of the one at ``pin``, and drives ``locked``."""

    def elaborate(self, platform) -> Module:
        """Connections."""
        m = Module()
        m.submodules.buffer = buffer = io.Buffer("i", platform.request(self._pin, dir="-"))
        locked = Signal()
        m.submodules.pll = self.pll(buffer.i, locked)
        for domain in ("sync", "sdram"):
            # Further registers, since the lock comes from one corner of the chip and the reset goes all over it.
            waking = ClockDomain(f"waking_{domain}", local=True, reset_less=True)
            m.domains += waking
            stages = [Signal(name=f"reset_{domain}_{stage}", init=1) for stage in range(3)]
            m.submodules[f"reset_{domain}"] = AsyncFFSynchronizer(~locked, stages[0], o_domain=waking.name)
            m.d[waking.name] += [after.eq(before) for before, after in pairwise(stages)]
            m.d.comb += [waking.clk.eq(ClockSignal(domain)), ResetSignal(domain).eq(stages[-1])]
        return m
