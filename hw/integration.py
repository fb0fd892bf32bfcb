"""What others need to put the accelerator's Verilog into their own system: a FuseSoC core file, an instance, a LiteX module."""

from textwrap import dedent, indent

from amaranth.lib.wiring import In, Signature

from tercel.hw.config import Config
from tercel.hw.npu import npu_members
from tercel.hw.verilog import TOP


def integration_files(config: Config) -> dict[str, str]:
    """Names and contents of the files beside ``tercel_npu.v``."""
    return {
        f"{TOP}.core": fusesoc_core(config),
        f"{TOP}_example.v": verilog_example(config),
        f"{TOP}_litex.py": litex_module(config),
    }


def verilog_ports(config: Config) -> list[tuple[str, str, int]]:
    """The ports of the Verilog module: direction, name and bits."""
    signature = Signature(npu_members(config))
    ports = [("input", "clk", 1), ("input", "rst", 1)]
    for path, member, value in signature.flatten(signature.create()):
        ports.append(("input" if member.flow == In else "output", "__".join(map(str, path)), len(value)))
    return ports


def fusesoc_core(config: Config) -> str:
    """A core file in CAPI2; the Verilog lies beside it."""
    return dedent(f"""\
        CAPI=2:
        name: tercel:tercel:npu_{config.name}:0.1.0
        description: Low-bit neural network accelerator, config {config.name}, hash {config.hash:08x}
        filesets:
          rtl:
            files: [{TOP}.v]
            file_type: verilogSource
        targets:
          default:
            filesets: [rtl]
            toplevel: {TOP}
        """)


def verilog_example(config: Config) -> str:
    """A module around the accelerator whose two buses are classic Wishbone, as most systems have them."""
    ports = verilog_ports(config)
    width = 8 * config.memory_width
    connections = ",\n".join(f".{name}({name})" for _, name, _ in ports)
    outer = [port for port in ports if not port[1].endswith("__stall")]
    declared = ",\n".join(f"{direction} {f'[{bits - 1}:0] ' if bits > 1 else ''}{name}" for direction, name, bits in outer)
    comment = dedent(f"""\
        // {TOP} of config {config.name} (hash {config.hash:08x}) with two classic Wishbone buses; addresses count words.
        //
        // memory: master, {width} bits: programs, weights and activations. The accelerator speaks pipelined Wishbone and may have 16
        // transfers under way; a classic slave answers one at a time, so it is held back until the answer is there. Connect a
        // pipelined slave to memory__stall itself for full speed.
        // csr: slave, 32 bits, the registers. It stalls until it acknowledges, as a classic slave does.
        // interrupt: the program has ended; high until the next start or stop.
        """)
    return (
        f"{comment}module {TOP}_example (\n{indent(declared, '    ')}\n);\n"
        "    wire memory__stall = memory__cyc & ~(memory__ack | memory__err);\n"
        "    wire csr__stall;\n\n"
        f"    {TOP} npu (\n{indent(connections, '        ')}\n    );\nendmodule\n"
    )


def litex_module(config: Config) -> str:
    """A LiteX module with the two buses as ``wishbone.Interface``; see its own docstring for how to connect it."""
    address_bits = 33 - config.memory_width.bit_length()
    return dedent(f'''\
        """{TOP} of config {config.name} (hash {config.hash:08x}) for LiteX.

        In a SoC, with {TOP}.v beside this file::

            self.npu = TercelNpu(platform)
            self.bus.add_slave("npu", self.npu.csr, SoCRegion(origin=0x30000000, size=0x1000, cached=False))
            self.bus.add_master("npu", master=self.npu.memory)
            self.irq.add("npu", use_loc_if_exists=True)
        """

        import os

        from litex.gen import LiteXModule
        from litex.soc.interconnect import wishbone
        from litex.soc.interconnect.csr_eventmanager import EventManager, EventSourceLevel
        from migen import ClockSignal, Instance, ResetSignal, Signal


        class TercelNpu(LiteXModule):
            def __init__(self, platform):
                self.csr = csr = wishbone.Interface(data_width=32, adr_width=10, addressing="word")
                self.memory = memory = wishbone.Interface(data_width={8 * config.memory_width}, adr_width={address_bits}, addressing="word")
                self.ev = EventManager()
                self.ev.done = EventSourceLevel()
                self.ev.finalize()

                stall = Signal()
                self.comb += stall.eq(memory.cyc & ~(memory.ack | memory.err))
                ports = dict(i_clk=ClockSignal("sys"), i_rst=ResetSignal("sys"), o_interrupt=self.ev.done.trigger, i_memory__stall=stall)
                for name in ("adr", "dat_w", "sel", "we", "cyc", "stb"):
                    ports[f"o_memory__{{name}}"] = getattr(memory, name)
                    ports[f"i_csr__{{name}}"] = getattr(csr, name)
                for name in ("dat_r", "ack", "err"):
                    ports[f"i_memory__{{name}}"] = getattr(memory, name)
                    ports[f"o_csr__{{name}}"] = getattr(csr, name)
                self.specials += Instance("{TOP}", **ports)
                platform.add_source(os.path.join(os.path.dirname(os.path.abspath(__file__)), "{TOP}.v"))
        ''')
