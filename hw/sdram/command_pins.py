"""The command and address pins."""

from amaranth.hdl import Module, Mux
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.sdram.beat import BeatGeometry
from tercel.hw.sdram.pins import ALL_BANKS, Command
from tercel.hw.sdram.timing import SdramCycles


class CommandPins(Component):
    """Registers the command of each cycle; at most one is given.

    Parameters
    ----------
    geometry
        Of the beats.
    cycles
        Of the chip.

    Members
    -------
    precharge_all, refresh, mode : In(1)
        For the whole chip. The mode: bursts of ``geometry.words`` words, reads and writes, one after the other.
    precharge, activate : In(1)
        For ``row`` of bank ``row_bank``.
    read, write : In(1)
        For the burst at ``offset``, in beats, of ``column_bank``.
    row_bank, column_bank, row, offset : In(...)
        Places.
    cs_n, ras_n, cas_n, we_n, ba, a : Out(...)
        The pins, a cycle later.
    """

    def __init__(self, geometry: BeatGeometry, cycles: SdramCycles) -> None:
        self._geometry = geometry
        self._cycles = cycles
        commands = ("precharge_all", "refresh", "mode", "precharge", "activate", "read", "write")
        super().__init__(
            {name: In(1) for name in commands}
            | {
                "row_bank": In(geometry.bank_bits),
                "column_bank": In(geometry.bank_bits),
                "row": In(geometry.row_bits),
                "offset": In(geometry.offset_bits),
                "cs_n": Out(1, init=1),
                "ras_n": Out(1, init=1),
                "cas_n": Out(1, init=1),
                "we_n": Out(1, init=1),
                "ba": Out(geometry.bank_bits),
                "a": Out(geometry.chip.addr_pins),
            }
        )

    def elaborate(self, platform) -> Module:
        """Registers."""
        m = Module()
        geometry = self._geometry
        mode = (geometry.words.bit_length() - 1) | self._cycles.cas << 4
        given = {
            Command.PRECHARGE: self.precharge | self.precharge_all,
            Command.REFRESH: self.refresh,
            Command.MODE: self.mode,
            Command.ACTIVATE: self.activate,
            Command.READ: self.read,
            Command.WRITE: self.write,
        }

        def low(bit: int):
            return any_of(signal for command, signal in given.items() if not command >> bit & 1)

        whole = self.precharge_all | self.refresh | self.mode
        column = (self.offset >> (geometry.lanes.bit_length() - 1)) << (geometry.words.bit_length() - 1)
        m.d.sync += [
            self.cs_n.eq(~any_of(given.values())),
            self.ras_n.eq(~low(2)),
            self.cas_n.eq(~low(1)),
            self.we_n.eq(~low(0)),
            self.a.eq(Mux(self.activate, self.row, column)),
        ]
        with m.If(self.precharge):
            m.d.sync += self.a.eq(0)
        with m.If(whole):
            m.d.sync += self.a.eq(Mux(self.mode, mode, ALL_BANKS))
        m.d.sync += self.ba.eq(Mux(self.precharge | self.activate, self.row_bank, self.column_bank))
        with m.If(self.mode):
            m.d.sync += self.ba.eq(0)
        return m


def any_of(bits):
    """1 if one of ``bits`` is."""
    total, *rest = bits
    for bit in rest:
        total = total | bit
    return total
