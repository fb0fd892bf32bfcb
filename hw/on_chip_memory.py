"""Memory on the FPGA itself in place of a chip, for small networks."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.interfaces import WishboneSignature


class OnChipMemory(Component):
    """Serves the accelerator's memory port and, when that asks for nothing, the host's.

    One beat a cycle, answered in the next one.

    Parameters
    ----------
    size
        Bytes, a power of two.
    memory_width
        Bytes of a beat, a power of two.
    addr_width
        Bits of ``adr``, which counts beats.

    Members
    -------
    npu, host : In(WishboneSignature(addr_width=addr_width, data_width=8 * memory_width))
        The ports. ``err`` answers a beat past the end.
    ready : Out(1)
        Always 1.
    """

    def __init__(self, *, size: int, memory_width: int, addr_width: int) -> None:
        self._width = memory_width
        self._depth = size // memory_width
        port = WishboneSignature(addr_width=addr_width, data_width=8 * memory_width)
        super().__init__({"npu": In(port), "host": In(port), "ready": Out(1, init=1)})

    def elaborate(self, platform) -> Module:
        """One of the ports at a time has the memory's one address."""
        m = Module()
        npu, host = self.npu, self.host
        # A read never meets a write, so what synthesis does then is of no account; "huge" gives the large memories of an iCE40 UltraPlus.
        m.submodules.storage = storage = Memory(
            shape=8 * self._width,
            depth=self._depth,
            init=[],
            attrs={"no_rw_check": 1, "ram_style": "huge" if is_up5k(platform) else "block"},
        )
        write = storage.write_port(granularity=8)
        read = storage.read_port()
        asks = npu.cyc & npu.stb
        host_goes = ~asks & host.cyc & host.stb
        adr = Mux(asks, npu.adr, host.adr)
        we = Mux(asks, npu.we, host.we)
        inside = (adr >> exact_log2(self._depth)) == 0
        failed = Signal()
        goes = Signal()
        m.d.comb += [
            goes.eq(asks | host_goes),
            host.stall.eq(asks),
            write.addr.eq(adr),
            write.data.eq(Mux(asks, npu.dat_w, host.dat_w)),
            write.en.eq(Mux(goes & we & inside, Mux(asks, npu.sel, host.sel), 0)),
            read.addr.eq(adr),
            read.en.eq(goes & ~we),
        ]
        m.d.sync += failed.eq(~inside)
        for port, taken in ((npu, asks), (host, host_goes)):
            answer = Signal()
            m.d.sync += answer.eq(taken)
            m.d.comb += [
                port.dat_r.eq(read.data),
                port.ack.eq(port.cyc & answer & ~failed),
                port.err.eq(port.cyc & answer & failed),
            ]
        return m


def is_up5k(platform: object) -> bool:
    """Whether ``platform`` is an iCE40 UltraPlus."""
    return str(getattr(platform, "device", "")).startswith("iCE40UP")
