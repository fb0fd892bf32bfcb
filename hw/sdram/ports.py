"""The two memory ports in front of the controller: which beat goes first, and whose answer comes back."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.interfaces import WishboneSignature
from tercel.hw.sdram.beat import HOST, NPU, BeatGeometry
from tercel.hw.up_down import up_down

HOST_PATIENCE = 15
"""Beats of the accelerator that a waiting host lets pass; a power of two, less one."""

IN_FLIGHT_BITS = 5
"""Enough for the beats that are in the controller at the same time: a full queue, a transfer, and the answers on their way."""


class MemoryPorts(Component):
    """Passes one beat a cycle from one of two ports to the controller, in the same cycle, and each answer to its port in the same cycle.

    A port whose ``cyc`` falls with beats in flight is stalled, and gets no answer, until the last of them has come back.

    Parameters
    ----------
    geometry
        Of the beats.

    Members
    -------
    npu, host : In(WishboneSignature(...))
        The ports; ``npu`` first, but ``host`` after it has waited for :data:`HOST_PATIENCE` beats.
    request : Out(stream.Signature(geometry.request_layout))
        The beats. ``ready`` must come from a register.
    answer : In(geometry.answer_layout)
        One for each beat, in order.
    data : In(8 * geometry.memory_width)
        Belongs to the answer.
    """

    def __init__(self, geometry: BeatGeometry) -> None:
        self._geometry = geometry
        port = WishboneSignature(addr_width=geometry.addr_width, data_width=8 * geometry.memory_width)
        super().__init__(
            {
                "npu": In(port),
                "host": In(port),
                "request": Out(stream.Signature(geometry.request_layout)),
                "answer": In(geometry.answer_layout),
                "data": In(8 * geometry.memory_width),
            }
        )

    def elaborate(self, platform) -> Module:
        """Choice, the beats each port has in flight, answers."""
        m = Module()
        geometry = self._geometry
        ports = {NPU: self.npu, HOST: self.host}
        asks = {number: Signal(name=f"asks_{number}") for number in ports}
        draining = {number: Signal(name=f"draining_{number}") for number in ports}
        host_turn = Signal()
        passed = Signal(range(HOST_PATIENCE + 1))

        for number, port in ports.items():
            m.d.comb += asks[number].eq(port.cyc & port.stb & ~draining[number])
        request = self.request
        beat = request.p
        host_goes = Signal()
        adr = Signal(geometry.addr_width)
        m.d.comb += [
            host_goes.eq(host_turn | ~asks[NPU]),
            self.npu.stall.eq(~request.ready | draining[NPU] | host_turn),
            self.host.stall.eq(~request.ready | draining[HOST] | ~host_goes),
            request.valid.eq(Mux(host_goes, asks[HOST], 1)),
            adr.eq(Mux(host_goes, self.host.adr, self.npu.adr)),
            beat.port.eq(host_goes),
            beat.we.eq(Mux(host_goes, self.host.we, self.npu.we)),
            beat.sel.eq(Mux(host_goes, self.host.sel, self.npu.sel)),
            beat.data.eq(Mux(host_goes, self.host.dat_w, self.npu.dat_w)),
            beat.offset.eq(adr),
            beat.bank.eq(adr >> geometry.offset_bits),
            beat.row.eq(adr >> (geometry.offset_bits + geometry.bank_bits)),
            beat.bad.eq((adr >> geometry.addr_bits).any()),
        ]
        with m.If(~asks[HOST] | (host_goes & request.ready)):
            m.d.sync += [passed.eq(0), host_turn.eq(0)]
        with m.Elif(request.ready & ~host_turn):
            m.d.sync += [passed.eq(passed + 1), host_turn.eq(passed == HOST_PATIENCE - 1)]

        for number, port in ports.items():
            in_flight = Signal(IN_FLIGHT_BITS, name=f"in_flight_{number}")
            back = Signal(name=f"back_{number}")
            wanted = back & port.cyc & ~draining[number]
            m.d.comb += [
                back.eq(self.answer.valid & (self.answer.port == number)),
                port.ack.eq(wanted & ~self.answer.bad),
                port.err.eq(wanted & self.answer.bad),
                port.dat_r.eq(self.data),
            ]
            up_down(m, in_flight, up=asks[number] & ~port.stall, down=back)
            m.d.sync += draining[number].eq((in_flight != 0) & (~port.cyc | draining[number]))
        return m
