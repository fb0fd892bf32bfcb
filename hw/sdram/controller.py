"""The SDRAM controller: two memory ports on one chip."""

from amaranth.hdl import Cat, Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from tercel.hw.delay import delayed
from tercel.hw.interfaces import WishboneSignature
from tercel.hw.sdram.bank import Bank
from tercel.hw.sdram.beat import BeatGeometry
from tercel.hw.sdram.command_pins import CommandPins
from tercel.hw.sdram.data_pins import DataPins
from tercel.hw.sdram.maintenance import Maintenance
from tercel.hw.sdram.opener import RowOpener
from tercel.hw.sdram.pins import SdramPinsSignature
from tercel.hw.sdram.ports import MemoryPorts
from tercel.hw.sdram.queue import BeatQueue
from tercel.hw.sdram.timing import SdramChip, SdramError
from tercel.hw.sdram.transfers import TransferIssuer

PIN_LATENCY_MAX = 3


class SdramController(Component):
    """Serves the accelerator's memory port and, in the gaps, a second one of the same kind.

    ::

        npu  ->              -> locations -> RowOpener ----------+-> CommandPins -> chip
        host -> MemoryPorts -> BeatQueue                banks    |
                  ^          -> transfers -> TransferIssuer -----+-> DataPins <-> chip
                  |                                 |                   |
                  +------------- answers <----------+-------------------+

    Beats pass in order. Rows stay open, and are opened for beats that wait in the queue while the transfers of earlier beats go on;
    consecutive rows lie in different banks, so a long run of beats streams on over the ends of rows. A beat is one burst, so that a chip
    narrower than the port has free command cycles. Every ``refresh`` cycles all banks are closed for a refresh.

    A beat in an open row is answered 5 + ``cas`` + ``words`` + ``pin_latency`` cycles after it was taken when nothing is under way, and
    beats of one direction move one every ``words`` cycles. The data pins lie idle for ``cas`` + 1 cycles between a read and a write.

    Answers come in the order of each port's requests. A port that lets ``cyc`` fall gives up what it has outstanding: it gets no
    answers for that any more (whether such a write is made is not said), and is stalled until all of it has gone by.

    Parameters
    ----------
    chip
        On the pins.
    clock_mhz
        Of the ``sync`` domain, in which controller and chip run; at most what the chip allows.
    memory_width
        Bytes of a beat: a power of two, 1..16, and at most 8 times the chip's width.
    addr_width
        Bits of ``adr``, which counts beats.
    pin_latency
        Cycles, 0..3, by which registers of the board between ``pins`` and the chip delay a word read: those on the command's way
        out and those on the data's way back, added. Command and data going out must be delayed alike.

    Members
    -------
    npu : In(WishboneSignature(addr_width=addr_width, data_width=8 * memory_width))
        Goes first. ``err`` answers a beat past the end of the chip.
    host : In(WishboneSignature(addr_width=addr_width, data_width=8 * memory_width))
        Goes when ``npu`` asks for nothing, or after it has waited for 15 beats of it.
    pins : Out(SdramPinsSignature(chip))
        The chip.
    ready : Out(1)
        The chip is initialised (both ports may ask earlier and wait).

    Raises
    ------
    SdramError
        A parameter is out of its range.
    """

    def __init__(self, chip: SdramChip, *, clock_mhz: float, memory_width: int, addr_width: int, pin_latency: int = 0) -> None:
        self._cycles = chip.cycles(clock_mhz=clock_mhz)
        self._geometry = BeatGeometry(chip=chip, memory_width=memory_width, addr_width=addr_width)
        if not 0 <= pin_latency <= PIN_LATENCY_MAX:
            raise SdramError(f"pin_latency must be in 0..{PIN_LATENCY_MAX}, not {pin_latency} (registers at the pins, out and back)")
        self._pin_latency = pin_latency
        super().__init__(
            {
                "npu": In(WishboneSignature(addr_width=addr_width, data_width=8 * memory_width)),
                "host": In(WishboneSignature(addr_width=addr_width, data_width=8 * memory_width)),
                "pins": Out(SdramPinsSignature(chip)),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Connections, and the answers' way to the data that belongs to them."""
        m = Module()
        geometry, cycles, pins = self._geometry, self._cycles, self.pins
        m.submodules.ports = ports = MemoryPorts(geometry)
        m.submodules.queue = queue = BeatQueue(geometry)
        m.submodules.opener = opener = RowOpener(geometry, cycles)
        m.submodules.issuer = issuer = TransferIssuer(geometry, cycles)
        m.submodules.maintenance = maintenance = Maintenance(cycles)
        m.submodules.command = command = CommandPins(geometry, cycles)
        m.submodules.data = data = DataPins(geometry)
        banks = [Bank(cycles) for _ in range(geometry.chip.banks)]

        connect(m, flipped(self.npu), ports.npu)
        connect(m, flipped(self.host), ports.host)
        connect(m, ports.request, queue.i)
        connect(m, queue.location, opener.location)
        connect(m, queue.transfer, issuer.transfer)
        beat = queue.transfer.p
        for number, bank in enumerate(banks):
            m.submodules[f"bank_{number}"] = bank
            m.d.comb += [
                bank.activate.eq(opener.activate & (opener.bank == number)),
                bank.precharge.eq((opener.precharge & (opener.bank == number)) | maintenance.precharge_all),
                bank.promise.eq(opener.promise & (opener.bank == number)),
                bank.over.eq(issuer.over & (issuer.over_bank == number)),
            ]
        m.d.comb += [
            queue.opened.eq(opener.opened),
            opener.open.eq(Cat(bank.open for bank in banks)),
            opener.closable_next.eq(Cat(bank.closable_next for bank in banks)),
            opener.hold.eq(maintenance.hold),
            maintenance.quiet.eq(opener.idle & Cat(bank.closable for bank in banks).all()),
            issuer.reachable.eq(Cat(bank.reachable for bank in banks)),
            issuer.hold.eq(opener.precharge | opener.activate),
            self.ready.eq(maintenance.ready),
        ]

        for name in ("precharge_all", "refresh", "mode"):
            m.d.comb += getattr(command, name).eq(getattr(maintenance, name))
        m.d.comb += [
            command.precharge.eq(opener.precharge),
            command.activate.eq(opener.activate),
            command.row_bank.eq(opener.bank),
            command.row.eq(opener.row),
            command.read.eq(issuer.read),
            command.write.eq(issuer.write),
            command.column_bank.eq(beat.bank),
            command.offset.eq(beat.offset),
            data.start.eq(issuer.read | issuer.write),
            data.write.eq(issuer.write),
            data.data.eq(beat.data),
            data.sel.eq(beat.sel),
            data.lane_in.eq(beat.offset),
            data.mask_all.eq(~maintenance.ready),
            data.dq_i.eq(pins.dq_i),
        ]
        m.d.comb += [getattr(pins, name).eq(getattr(command, name)) for name in ("cs_n", "ras_n", "cas_n", "we_n", "ba", "a")]
        m.d.comb += [getattr(pins, name).eq(getattr(data, name)) for name in ("dqm", "dq_o", "dq_oe")]
        m.d.comb += pins.cke.eq(1)

        # Command register, the chip, the words of the burst and the register behind the pins lie between command and answer.
        answer = delayed(m, issuer.answer, cycles.cas + geometry.words + 1 + self._pin_latency, name="answer", reset_less=False)
        m.d.comb += [ports.answer.eq(answer), data.lane_out.eq(answer.lane), ports.data.eq(data.read)]
        return m
