"""The outermost module of a bitstream: clocks, the system, and buffers at the board's pins."""

from typing import Any

from amaranth.hdl import ClockDomain, Elaboratable, Module
from amaranth.lib import io

from tercel.boards.board import Board, MemoryPorts
from tercel.hw.delay import delayed


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

        uart = request_ports(platform, "uart")
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.FFBuffer("o", uart.tx)
        # Registers between the system and pins that lie anywhere.
        m.d.comb += [soc.rx.eq(rx.i), tx.o.eq(delayed(m, soc.tx, 1, name="tx", init=1))]

        for number, light in enumerate((soc.ready, soc.interrupt)):
            m.submodules[f"led_{number}"] = led = io.FFBuffer("o", platform.request("led", number, dir="-"))
            m.d.comb += led.o.eq(delayed(m, light, 1, name=f"led_{number}"))

        pins, ports = soc.sdram, self._board.memory_ports(platform)
        for name in ("a", "ba", "cke", "dqm", "cs_n", "ras_n", "cas_n", "we_n"):
            m.submodules[f"sdram_{name}"] = buffer = io.FFBuffer("o", getattr(ports, name))
            m.d.comb += buffer.o.eq(getattr(pins, name))
        # A buffer's direction goes for all its pins: one for each gives each its own flip-flop for it.
        for bit in range(len(ports.dq)):
            m.submodules[f"sdram_dq_{bit}"] = data = io.FFBuffer("io", ports.dq[bit])
            m.d.comb += [data.o.eq(pins.dq_o[bit]), data.oe.eq(pins.dq_oe), pins.dq_i[bit].eq(data.i)]
        m.submodules.sdram_clk = clock = io.DDRBuffer("o", ports.clk, o_domain="sdram")
        m.d.comb += [clock.o[0].eq(1), clock.o[1].eq(0)]
        return m


def request_ports(platform: Any, name: str) -> Any:
    """Resource 0 of that name as ports, without buffers."""
    parts = [part.name for part in platform.lookup(name, 0).ios if hasattr(part, "ios")]
    return platform.request(name, 0, dir=dict.fromkeys(parts, "-"))


def resource_ports(platform: Any) -> MemoryPorts:
    """The pins of a board whose platform has a resource ``sdram`` (from ``SDRAMResource``), which names the commands active high."""
    sdram = request_ports(platform, "sdram")
    return MemoryPorts(
        a=sdram.a,
        ba=sdram.ba,
        cke=sdram.clk_en,
        dqm=sdram.dqm,
        cs_n=~sdram.cs,
        ras_n=~sdram.ras,
        cas_n=~sdram.cas,
        we_n=~sdram.we,
        clk=sdram.clk,
        dq=sdram.dq,
    )
