"""The outermost module of a bitstream: clocks, the system, and buffers at the board's pins."""

from typing import Any

from amaranth.hdl import Cat, ClockDomain, Elaboratable, Module
from amaranth.lib import io

from tercel.boards.board import Board

COMMAND_PINS = {"we": "we_n", "ras": "ras_n", "cas": "cas_n", "cs": "cs_n"}
"""Of the memory: names of the platform, where they are active high, and of the controller."""


class BoardTop(Elaboratable):
    """A board with its system.

    Every pin of the memory has a register beside it, in both directions: ``pin_latency`` 2.

    Parameters
    ----------
    board
        The board.
    """

    def __init__(self, board: Board) -> None:
        self._board = board

    def elaborate(self, platform: Any) -> Module:
        """Clocks, system, line, lights, memory."""
        m = Module()
        m.domains.sync, m.domains.sdram = ClockDomain("sync"), ClockDomain("sdram")
        m.submodules.clocks = self._board.clocks(self._board.clock_hz)
        m.submodules.soc = soc = self._board.soc()

        uart = platform.request("uart", 0, dir=dict.fromkeys(subsignals(platform, "uart"), "-"))
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.FFBuffer("o", uart.tx)
        m.d.comb += [soc.rx.eq(rx.i), tx.o.eq(soc.tx)]

        for number, light in enumerate((soc.ready, soc.interrupt)):
            m.submodules[f"led_{number}"] = led = io.FFBuffer("o", platform.request("led", number, dir="-"))
            m.d.comb += led.o.eq(light)

        pins = soc.sdram
        sdram = platform.request("sdram", 0, dir=dict.fromkeys(subsignals(platform, "sdram"), "-"))
        outputs = {"ba": pins.ba, "a": Cat(pins.a, 0)[: len(sdram.a)], "clk_en": pins.cke, "dqm": pins.dqm}
        outputs |= {name: ~getattr(pins, own) for name, own in COMMAND_PINS.items()}
        for name, value in outputs.items():
            m.submodules[f"sdram_{name}"] = buffer = io.FFBuffer("o", getattr(sdram, name))
            m.d.comb += buffer.o.eq(value)
        for bit in range(len(sdram.dq)):
            m.submodules[f"sdram_dq_{bit}"] = data = io.FFBuffer("io", sdram.dq[bit])
            m.d.comb += [data.o.eq(pins.dq_o[bit]), data.oe.eq(pins.dq_oe), pins.dq_i[bit].eq(data.i)]
        m.submodules.sdram_clk = clock = io.DDRBuffer("o", sdram.clk, o_domain="sdram")
        m.d.comb += [clock.o[0].eq(1), clock.o[1].eq(0)]
        return m


def subsignals(platform: Any, name: str) -> list[str]:
    """The names of a resource's parts."""
    return [part.name for part in platform.lookup(name, 0).ios if hasattr(part, "ios")]
