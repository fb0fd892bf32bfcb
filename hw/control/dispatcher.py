"""Program order: each instruction into the queue of its engine."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.control.checks import OWN_ENGINE, Checks, fields_bits
from tercel.hw.control.fetch import fetched_layout
from tercel.hw.control.report import REPORT_LAYOUT
from tercel.hw.isa import LAYOUTS, Engine, Fault, Opcode


class Dispatcher(Component):
    """Takes the fetched items in order, checks them, and offers each to its engine's queue; stops for good at HALT or the first fault.

    An item takes 4 cycles if its queue takes it at once.

    Members
    -------
    i : In
        The stream that :class:`~tercel.hw.control.fetch.Fetch` gives.
    instruction
        The low :func:`~tercel.hw.control.checks.fields_bits` of the instruction that the assembly holds: that of the next item.
    load, array, depthwise, store
        Streams to the four queues: the index of the instruction that the fetch has sent them last.
    halted
        HALT is the next instruction. Held.
    blocked
        The next instruction's queue does not take it in this cycle.
    report
        The next instruction is illegal, does not exist or could not be read. Held.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(fetched_layout(config))),
                "instruction": In(fields_bits(config)),
                **{engine.name.lower(): Out(stream.Signature(unsigned(16))) for engine in Engine},
                "halted": Out(1),
                "blocked": Out(1),
                "report": Out(REPORT_LAYOUT),
            }
        )

    def elaborate(self, platform) -> Module:
        """The instruction stays where it is put together while it is looked at; HALT and a fault stay for good."""
        m = Module()
        instruction = self.instruction
        m.submodules.checks = checks = Checks(self._config)
        m.d.comb += [
            checks.instruction.eq(instruction),
            checks.nonzero.eq(self.i.p.nonzero),
            self.report.index.eq(self.i.p.index),
        ]

        opcode = instruction[:4]
        target = Signal(Engine, reset_less=True)
        halts = Signal(reset_less=True)
        faulty = Signal(reset_less=True)
        m.d.sync += [halts.eq(opcode == Opcode.HALT), faulty.eq(self.i.p.fault != Fault.NONE)]
        with m.Switch(opcode):
            with m.Case(Opcode.SYNC):
                m.d.sync += target.eq(data.View(LAYOUTS[Opcode.SYNC], instruction[: LAYOUTS[Opcode.SYNC].size]).engine)
            for own_opcode, engine in OWN_ENGINE.items():
                with m.Case(own_opcode):
                    m.d.sync += target.eq(engine)

        fault_code = Signal(4, reset_less=True)
        offered = Signal()
        queues = {engine: getattr(self, engine.name.lower()) for engine in Engine}
        # In JUDGE: what the item goes to, were it not for the verdict, which comes last.
        may_enter = {engine: Signal(name=f"may_enter_{engine.name.lower()}", reset_less=True) for engine in queues}
        for engine, queue in queues.items():
            m.d.comb += queue.payload.eq(self.i.p.index)
            m.d.sync += may_enter[engine].eq(0)
            with m.If(queue.valid & queue.ready):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += queue.valid.eq(0)
            with m.If(may_enter[engine] & (checks.code == Fault.NONE)):
                m.d.sync += queue.valid.eq(1)
        m.d.comb += self.blocked.eq(offered & ~self.i.ready)
        # An item with a fault stays, and so does the verdict on it.
        m.d.sync += fault_code.eq(Mux(faulty, self.i.p.fault, checks.code))

        with m.FSM():
            with m.State("WAIT"), m.If(self.i.valid):
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [may_enter[engine].eq(~faulty & ~halts & (target == engine)) for engine in queues]
                m.next = "JUDGE"
            with m.State("JUDGE"):
                with m.If(faulty | (checks.code != Fault.NONE)):
                    m.next = "FAULT"
                with m.Elif(halts):
                    m.next = "HALT"
                with m.Else():
                    m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += offered.eq(1)
                with m.If(self.i.ready):
                    m.next = "WAIT"
            with m.State("HALT"):
                m.d.comb += self.halted.eq(1)
            with m.State("FAULT"):
                m.d.comb += [self.report.valid.eq(1), self.report.fault.eq(1), self.report.code.eq(fault_code)]
        return m
