"""Gives the READ and WRITE commands."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.delay import delayed
from tercel.hw.sdram.beat import BeatGeometry
from tercel.hw.sdram.holdoff import Holdoff
from tercel.hw.sdram.timing import SdramCycles


class TransferIssuer(Component):
    """Takes the opened beats in order and gives each its command as soon as bank and data pins allow: without gaps within a direction.

    A write follows a read by ``cas`` + 1 cycles more than its length, one of them with nobody on the data pins.

    Parameters
    ----------
    geometry
        Of the beats.
    cycles
        Of the chip.

    Members
    -------
    transfer : In(stream.Signature(geometry.transfer_layout))
        The beats.
    reachable : In(geometry.chip.banks)
        State of the banks.
    hold : In(1)
        Another command goes in this cycle.
    read, write : Out(1)
        The command for the beat in this cycle; its bank and offset are those of ``transfer``.
    answer : Out(geometry.answer_layout)
        The beat's command is given, or it needs none.
    over : Out(1), over_bank : Out(geometry.bank_bits)
        A transfer has come so far that its bank may be closed.
    """

    def __init__(self, geometry: BeatGeometry, cycles: SdramCycles) -> None:
        self._geometry = geometry
        self._cycles = cycles
        super().__init__(
            {
                "transfer": In(stream.Signature(geometry.transfer_layout)),
                "reachable": In(geometry.chip.banks),
                "hold": In(1),
                "read": Out(1),
                "write": Out(1),
                "answer": Out(geometry.answer_layout),
                "over": Out(1),
                "over_bank": Out(geometry.bank_bits),
            }
        )

    def elaborate(self, platform) -> Module:
        """The data pins' times, and the way of a command until its transfer is over."""
        m = Module()
        cycles, words = self._cycles, self._geometry.words
        beat = self.transfer.p
        m.submodules.burst = burst = Holdoff(words - 1)
        m.submodules.turn = turn = Holdoff(cycles.cas + words)
        go = Signal()
        m.d.comb += [
            go.eq(~self.hold & ~burst.busy & ~(beat.we & turn.busy) & self.reachable.bit_select(beat.bank, 1)),
            self.transfer.ready.eq(go | beat.bad),
            self.read.eq(self.transfer.valid & go & ~beat.bad & ~beat.we),
            self.write.eq(self.transfer.valid & go & ~beat.bad & beat.we),
            burst.start.eq(self.read | self.write),
            turn.start.eq(self.read),
            self.answer.valid.eq(self.transfer.valid & self.transfer.ready),
            self.answer.port.eq(beat.port),
            self.answer.bad.eq(beat.bad),
            self.answer.lane.eq(beat.offset),
        ]
        # The row may be closed from the cycle after ``over`` on: ``wr`` cycles after the last word went in.
        stages = words - 2 + cycles.wr
        m.d.comb += [
            self.over.eq(delayed(m, self.read | self.write, stages, name="over", reset_less=False)),
            self.over_bank.eq(delayed(m, beat.bank, stages, name="over_bank")),
        ]
        return m
