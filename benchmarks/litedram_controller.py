"""LiteDRAM's generated core with the ports of the project's own SDRAM controller, to be measured beside it."""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import Array, Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from tercel.hw.interfaces import WishboneSignature
from tercel.hw.sdram.pins import ALL_BANKS, SdramPinsSignature
from tercel.hw.sdram.timing import SdramChip
from tercel.sim.parse import UsageError
from tercel.sim.soc.sdram_simulation import TOP, SdramBuild, controller_source
from tercel.sim.toolchain import ToolError
from tercel.sim.verilator.compile import SimulationSource

MODULES = {"IS42S16160G-7": "MT48LC16M16"}
"""LiteDRAM's chip of the same geometry and of timing in whole cycles at 100 MHz for ours. Its own IS42S16160 has no tRAS."""

_OUTSTANDING = 16
_FIRST_REFRESHES = 8
_GAP = 16
"""Cycles between two accesses to registers, more than any command of the initialisation takes."""

_PRIMITIVES = """
module OFS1P3BX_MODEL(input D, PD, SCLK, SP, output reg Q = 1'b1);
    always @(posedge SCLK) if (SP) Q <= D;
endmodule
module IFS1P3BX_MODEL(input D, PD, SCLK, SP, output reg Q);
    always @(posedge SCLK) if (SP) Q <= D;
endmodule
module FD1S3BX_MODEL(input D, CK, PD, output reg Q);
    always @(posedge CK or posedge PD) if (PD) Q <= 1'b1; else Q <= D;
endmodule
module TRELLIS_IO_MODEL(input B, I, T, output O, B_O, B_OE);
    parameter DIR = "BIDIR";
    assign O = B;
    assign B_O = I;
    assign B_OE = ~T;
endmodule
"""
"""The part's flip-flops at pins, as those that the other controller has, and its pads, with one wire a direction."""


class LiteDramController(Component):
    """The core, its initialisation, and a bridge from pipelined Wishbone to a native port for each of the two masters.

    Writes are acknowledged when they are taken. What a master gives up is not forgotten, beats past the end are not refused, and a
    master does not go before the other: the core serves both in turn.

    Parameters
    ----------
    chip
        On the pins.
    memory_width
        Bytes of a beat, at least those of the chip.
    addr_width
        Bits of ``adr``.
    power_up_cycles
        Before the first command.

    Members
    -------
    npu, host, pins, ready
        As those of :class:`~tercel.hw.sdram.controller.SdramController`.
    """

    def __init__(self, chip: SdramChip, *, memory_width: int, addr_width: int, power_up_cycles: int) -> None:
        self._chip = chip
        self._memory_width = memory_width
        self._power_up_cycles = power_up_cycles
        port = WishboneSignature(addr_width=addr_width, data_width=8 * memory_width)
        super().__init__({"npu": In(port), "host": In(port), "pins": Out(SdramPinsSignature(chip)), "ready": Out(1)})

    def elaborate(self, platform: object) -> Module:
        """The core as an instance."""
        m = Module()
        pins, width = self.pins, self._memory_width
        ports: dict[str, object] = {}
        for name, master in (("npu", self.npu), ("host", self.host)):
            m.submodules[name] = bridge = NativeBridge(master.signature.flip(), addr_bits=exact_log2(self._chip.bytes // width))
            connect(m, flipped(master), bridge.bus)
            for signal in ("cmd_valid", "cmd_we", "cmd_addr", "wdata_valid", "wdata_we", "wdata_data", "rdata_ready"):
                ports[f"i_user_port_{name}_{signal}"] = getattr(bridge, signal)
            for signal in ("cmd_ready", "wdata_ready", "rdata_valid", "rdata_data"):
                ports[f"o_user_port_{name}_{signal}"] = getattr(bridge, signal)
        m.submodules.start = start = Start(power_up_cycles=self._power_up_cycles, cas=2)
        output_enables = Signal(8 * self._chip.width)
        for name in ("cke", "cs_n", "ras_n", "cas_n", "we_n", "ba", "a"):
            ports[f"o_sdram_{name}"] = getattr(pins, name)
        m.submodules.core = Instance(
            "litedram_core",
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            o_sdram_dm=pins.dqm,
            i_sdram_dq=pins.dq_i,
            o_sdram_dq_o=pins.dq_o,
            o_sdram_dq_oe=output_enables,
            i_wb_ctrl_adr=start.adr,
            i_wb_ctrl_dat_w=start.dat_w,
            i_wb_ctrl_cyc=start.stb,
            i_wb_ctrl_stb=start.stb,
            i_wb_ctrl_we=Const(1),
            i_wb_ctrl_sel=Const(0xF, 4),
            i_wb_ctrl_cti=Const(0, 3),
            i_wb_ctrl_bte=Const(0, 2),
            o_wb_ctrl_ack=start.ack,
            **ports,
        )
        m.d.comb += [pins.dq_oe.eq(output_enables[0]), self.ready.eq(start.ready)]
        return m


class NativeBridge(Component):
    """Pipelined Wishbone to a native port of the core. Members but ``bus`` are named as the core's."""

    def __init__(self, bus: WishboneSignature, *, addr_bits: int) -> None:
        data_bits = len(bus.create().dat_w)
        super().__init__(
            {
                "bus": In(bus),
                "cmd_valid": Out(1),
                "cmd_ready": In(1),
                "cmd_we": Out(1),
                "cmd_addr": Out(addr_bits),
                "wdata_valid": Out(1),
                "wdata_ready": In(1),
                "wdata_we": Out(data_bits // 8),
                "wdata_data": Out(data_bits),
                "rdata_valid": In(1),
                "rdata_ready": Out(1),
                "rdata_data": In(data_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """A queue of the data to write and one of the answers' kinds, which keeps them in order."""
        m = Module()
        bus = self.bus
        m.submodules.writes = writes = SyncFIFO(width=len(bus.dat_w) + len(bus.sel), depth=_OUTSTANDING)
        m.submodules.kinds = kinds = SyncFIFO(width=1, depth=_OUTSTANDING)
        taken, is_write = Signal(), Signal()
        m.d.comb += [
            self.cmd_valid.eq(bus.cyc & bus.stb & writes.w_rdy & kinds.w_rdy),
            self.cmd_we.eq(bus.we),
            self.cmd_addr.eq(bus.adr),
            taken.eq(self.cmd_valid & self.cmd_ready),
            bus.stall.eq(~(self.cmd_ready & writes.w_rdy & kinds.w_rdy)),
            writes.w_data.eq(Cat(bus.dat_w, bus.sel)),
            writes.w_en.eq(taken & bus.we),
            Cat(self.wdata_data, self.wdata_we).eq(writes.r_data),
            self.wdata_valid.eq(writes.r_rdy),
            writes.r_en.eq(self.wdata_ready),
            kinds.w_data.eq(bus.we),
            kinds.w_en.eq(taken),
            is_write.eq(kinds.r_data),
            self.rdata_ready.eq(kinds.r_rdy & ~is_write),
            bus.ack.eq(kinds.r_rdy & (is_write | self.rdata_valid)),
            kinds.r_en.eq(bus.ack),
            bus.dat_r.eq(self.rdata_data),
        ]
        return m


class Start(Component):
    """Writes the core's registers: the commands that a chip wants before the first data, then control to the core.

    Addresses, bits and order are those of the core's generated ``csr.csv`` and ``sdram_phy.h``.
    """

    def __init__(self, *, power_up_cycles: int, cas: int) -> None:
        self._power_up_cycles = power_up_cycles
        self._cas = cas
        super().__init__({"adr": Out(30), "dat_w": Out(32), "stb": Out(1), "ack": In(1), "ready": Out(1)})

    def elaborate(self, platform: object) -> Module:
        """A list of writes, walked through once."""
        control, command, issue, address, done = 0x800, 0x804, 0x808, 0x80C, 0x000
        cs, we, cas, ras = 1, 2, 4, 8
        writes = [(control, 0b1110)]  # the clock is enabled, the commands are ours

        def give(pins: int, addr: int) -> None:
            writes.extend([(address, addr), (command, pins | cs), (issue, 1)])

        give(ras | we, ALL_BANKS)
        for _ in range(_FIRST_REFRESHES):
            give(ras | cas, 0)
        give(ras | cas | we, self._cas << 4)
        writes.extend([(control, 0b0001), (done, 1)])
        m = Module()
        wait = Signal(range(max(self._power_up_cycles, _GAP) + 1))
        step = Signal(range(len(writes) + 1))
        m.d.comb += [
            self.adr.eq(Array(at // 4 for at, _ in writes)[step]),
            self.dat_w.eq(Array(value for _, value in writes)[step]),
            self.ready.eq(step == len(writes)),
            self.stb.eq((wait == 0) & ~self.ready),
        ]
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(self.ack):
            m.d.sync += [step.eq(step + 1), wait.eq(Mux(step == 0, self._power_up_cycles, _GAP))]
        return m


@dataclass(frozen=True, kw_only=True)
class LiteDramBuild:
    """What is simulated, in place of :class:`~tercel.sim.soc.sdram_simulation.SdramBuild`.

    The core counts on a clock of the chip that comes a quarter of a period after its own, and so answers a cycle earlier.
    """

    chip: SdramChip
    clock_mhz: float
    memory_width: int
    pin_latency: int = -1

    def controller(self) -> LiteDramController:
        """With 32-bit byte addresses."""
        return LiteDramController(
            self.chip,
            memory_width=self.memory_width,
            addr_width=33 - self.memory_width.bit_length(),
            power_up_cycles=int(self.chip.timing.power_up * self.clock_mhz / 1000) + 1,
        )

    def core(self) -> str:
        """The core's Verilog, with models of the cells at its pins."""
        return _generate(self.chip, clock_mhz=self.clock_mhz, memory_width=self.memory_width) + _PRIMITIVES

    def source(self) -> SimulationSource:
        """What it is built of."""

        def emit() -> str:
            text: str = verilog.convert(self.controller(), name=TOP, emit_src=False, strip_internal_attrs=True)
            return text + self.core()

        key = (repr(self), litedram_version(), Path(__file__).read_text())
        return controller_source(name="litedram", verilog=emit, key=key, gateware=(), memory_width=self.memory_width)


CONTROLLERS: dict[str, type[SdramBuild] | type[LiteDramBuild]] = {"tercel": SdramBuild, "litedram": LiteDramBuild}


def named_controller(name: str) -> type[SdramBuild] | type[LiteDramBuild]:
    """The controller of that name; :class:`UsageError` lists the names when there is none."""
    if name not in CONTROLLERS:
        raise UsageError(f"controller must be one of {', '.join(CONTROLLERS)}, not {name!r} (the project's own, or LiteDRAM's core)")
    return CONTROLLERS[name]


def litedram_version() -> str:
    """Of the generator.

    Raises
    ------
    UsageError
        It is not installed.
    """
    if importlib.util.find_spec("litedram") is None:
        raise UsageError('litedram must be installed for this comparison and is not (pip install -e ".[dev]")')
    return importlib.metadata.version("litedram")


def _generate(chip: SdramChip, *, clock_mhz: float, memory_width: int) -> str:
    litedram_version()
    if chip.name not in MODULES or clock_mhz != 100:
        raise UsageError(f"chip must be {', '.join(MODULES)} at 100 MHz, not {chip.name} at {clock_mhz:g} (its like in LiteDRAM)")
    port = {"type": "native", "data_width": 8 * memory_width}
    settings = {
        "cpu": None,
        "device": "LFE5U-25F-6BG256C",
        "memtype": "SDR",
        "sdram_module": MODULES[chip.name],
        "sdram_module_nb": chip.width,
        "sdram_rank_nb": 1,
        "sdram_phy": "GENSDRPHY",
        "sys_clk_freq": clock_mhz * 1e6,
        "user_ports": {"npu": port, "host": port},
    }
    with tempfile.TemporaryDirectory() as folder:
        described = Path(folder) / "core.yml"
        described.write_text(json.dumps(settings))
        generator = [sys.executable, "-m", "litedram.gen", "--output-dir", folder, "--no-compile-software", str(described)]
        ended = subprocess.run(generator, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise ToolError(f"litedram ended with exit code {ended.returncode}:\n{ended.stderr[-1000:]}")
        text = (Path(folder) / "gateware" / "litedram_core.v").read_text()
    return replace_pins(text)


def replace_pins(text: str) -> str:
    """The generated Verilog with models of the cells at the pins, and ``sdram_dq_o`` and ``sdram_dq_oe`` beside ``sdram_dq``."""
    text, ports = re.subn(r"input +wire +(\[\d+:0\]) +sdram_dq,", r"input wire \1 sdram_dq,\noutput wire \1 sdram_dq_o, sdram_dq_oe,", text)
    text, pads = re.subn(r"\.B \(sdram_dq\[(\d+)\]\),", r".B (sdram_dq[\1]), .B_O (sdram_dq_o[\1]), .B_OE (sdram_dq_oe[\1]),", text)
    if ports != 1 or not pads:
        raise ToolError(f"litedram's Verilog has {ports} data buses and {pads} pads, not one and its width (this reads release 2024.12)")
    return re.sub(r"(?m)^(OFS1P3BX|IFS1P3BX|FD1S3BX|TRELLIS_IO) ", r"\1_MODEL ", text)
