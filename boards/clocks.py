"""What the clocks of all boards have in common: one PLL, two domains, a reset until it has locked."""

from abc import abstractmethod

from amaranth.hdl import Elaboratable, Instance, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer


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
            m.submodules[f"reset_{domain}"] = ResetSynchronizer(~locked, domain=domain)
        return m
