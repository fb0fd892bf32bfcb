"""One engine's queue, and what stands between its head and the engine: tokens, fence, and the order in which instructions end."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.control.report import REPORT_LAYOUT
from tercel.hw.control.tokens import TokenSignature
from tercel.hw.interfaces import EngineSignature
from tercel.hw.isa import HEADER_LAYOUT, QUEUE_DEPTH, Engine, Opcode
from tercel.hw.late_mux import late_mux
from tercel.hw.local_register import local
from tercel.hw.table import table

QUEUE_EVENTS = ("token", "fence", "idle")
"""What an engine without an event of its own does: its next instruction waits for tokens or room for them, or only for earlier
instructions of its own, or neither."""

_BITS_HELD = 128
"""Bits of a slot that one register holds: few enough to lie together."""

_STARTED_MAX = QUEUE_DEPTH + 1
_STARTED_LAYOUT = data.StructLayout({"index": unsigned(16), "wait": unsigned(len(Engine))})


class Issuer(Component):
    """Starts an engine's instructions in order and gives their tokens when they are done.

    ::

        instruction
                   |
        i ---------+-> slots (QUEUE_DEPTH) -> start            take on start; reserve after start; release when the oldest started
                            |            done -> post     give on done
                            +-> started (QUEUE_DEPTH + 1): index and tokens taken of the instructions in the engine

    The engine may overlap instructions, and may be sent the next while it runs the last; the effects outside are those of an engine that
    runs one at a time: an instruction behind the oldest started one counts as waiting, it frees no room for tokens, and it starts
    only when the ones before it are sure to give theirs. So an instruction whose predecessor faults has no effect.
    SYNC is carried out here, with a fence on both sides. An instruction passes the slots in 2 cycles; one can start every 2 cycles.

    Parameters
    ----------
    instruction_bits
        Bits of an instruction that the engine needs; the others are 0 at ``engine.start``.
    events
        Width of ``engine.events``.

    Members
    -------
    instruction : In(instruction_bits)
        What an assembly holds.
    i
        Indices of the instructions for this queue, accepted while fewer than QUEUE_DEPTH wait; each while its instruction is the one that
        the assembly holds.
    engine : Out(EngineSignature(events).flip())
        The engine.
    tokens : Out(TokenSignature())
        This engine's side of the token counters.
    empty
        No instruction waits or runs.
    stuck
        Only another engine's tokens can make this one move, or nothing, as of the cycle before; no token of it is on the way.
    report
        While stuck: the instruction that faulted or waits.
    events
        The engine's events of the cycle before, then :data:`QUEUE_EVENTS`; exactly one bit in every cycle, as the engine sets at most one.
    """

    def __init__(self, *, instruction_bits: int, events: int) -> None:
        self._instruction_bits = instruction_bits
        super().__init__(
            {
                "instruction": In(instruction_bits),
                "i": In(stream.Signature(unsigned(16))),
                "engine": In(EngineSignature(events)),
                "tokens": Out(TokenSignature()),
                "empty": Out(1),
                "stuck": Out(1),
                "report": Out(REPORT_LAYOUT),
                "events": Out(events + len(QUEUE_EVENTS)),
            }
        )

    def elaborate(self, platform) -> Module:
        """Both queues are chains of registers that move when the next one is empty: no multiplexer on the wide path."""
        m = Module()
        engine, tokens = self.engine, self.tokens
        slot_layout = data.StructLayout({"instruction": unsigned(self._instruction_bits), "index": unsigned(16)})
        slots = [Signal(slot_layout, name=f"slot_{number}", reset_less=True) for number in range(QUEUE_DEPTH)]
        slot_valid = [Signal(name=f"slot_valid_{number}") for number in range(QUEUE_DEPTH)]
        head, head_valid = slots[0], slot_valid[0]
        started = [Signal(_STARTED_LAYOUT, name=f"started_{number}", reset_less=True) for number in range(_STARTED_MAX)]
        started_valid = [Signal(name=f"started_valid_{number}") for number in range(_STARTED_MAX)]
        oldest, oldest_valid, newest_valid = started[0], started_valid[0], started_valid[-1]
        only = Signal(init=1)
        in_engine = Signal()
        m.d.comb += in_engine.eq(oldest_valid | ~only)

        # Slots. The oldest started instruction does not wait, those behind it do.
        room = Signal()
        # Only an accepted instruction adds to those that wait, and none is accepted in the cycle after one.
        m.d.sync += room.eq(table(Cat(*slot_valid, *started_valid), _has_room))
        m.d.comb += self.i.ready.eq(room & ~slot_valid[-1])
        start = Signal()
        enters = [*slot_valid[1:], self.i.valid & self.i.ready]
        arriving = Signal(slot_layout)
        m.d.comb += [arriving.instruction.eq(self.instruction), arriving.index.eq(self.i.payload)]
        valid_next = [Signal(name=f"slot_valid_next_{number}") for number in range(QUEUE_DEPTH)]
        for number, source in enumerate([*slots[1:], arriving]):
            _slot(m, slots[number], slot_valid[number], source=source, valid_next=valid_next[number])
            if number:
                m.d.comb += valid_next[number].eq(Mux(slot_valid[number], slot_valid[number - 1], enters[number]))

        # Start. A slot is refilled a cycle after it was emptied, so the next head sees what this one took and reserves.
        header, following = (data.View(HEADER_LAYOUT, slot.instruction[: HEADER_LAYOUT.size]) for slot in slots[:2])
        is_sync = Signal(reset_less=True)
        fenced = Signal(reset_less=True)
        missing = Signal(len(Engine), reset_less=True)
        reserved = Signal(init=1)
        # Without a reset: it is 0 a cycle after the slots are empty.
        may_start = Signal(reset_less=True)
        tokens_ready = Signal()
        fence_ready = Signal()
        unreserved = Signal(len(Engine))
        post = Signal(len(Engine))
        # ``start`` comes from across the chip, and who starts next looks two cycles later.
        taking = Signal(len(Engine))
        synchronizing = Signal()
        may_end = Signal()
        done = Signal()
        able = Signal()

        def after_start(then, otherwise, *, name: str) -> Signal:
            """``then`` if the head starts, else ``otherwise``; the engine's ``ready`` passes one LUT, as it comes from across the chip."""
            ready, not_ready = Mux(able, then, otherwise), Mux(able & is_sync, then, otherwise)
            return late_mux(m, engine.start.ready, ready, not_ready, width=len(Value.cast(otherwise)), name=name)

        m.d.comb += [
            able.eq(may_start & (missing == 0)),
            tokens_ready.eq((missing == 0) & reserved),
            fence_ready.eq(~in_engine | ~(fenced | synchronizing)),
            engine.start.valid.eq(able & ~is_sync),
            engine.start.p.instruction.eq(head.instruction),
            engine.start.p.index.eq(head.index),
            start.eq(able & (is_sync | engine.start.ready)),
            valid_next[0].eq(after_start(0, head_valid | enters[0], name="slot_valid_after_start")),
            tokens.take.eq(taking),
            tokens.reserve.eq(unreserved & tokens.room),
        ]
        # What decides is known a cycle ahead, for the head or for what moves there; after a start there is none for a cycle. A missing
        # token comes latest and stays by itself. SYNC waits for the instructions before it, and what follows one for its end.
        syncs_next, following_fenced = (Signal(name=name, reset_less=True) for name in ("following_syncs", "following_fenced"))
        behind = data.View(HEADER_LAYOUT, [*slots, arriving][2].instruction[: HEADER_LAYOUT.size])
        with m.If(~slot_valid[1]):
            m.d.sync += [
                syncs_next.eq(behind.opcode == Opcode.SYNC),
                following_fenced.eq(behind.fence | (behind.opcode == Opcode.SYNC)),
            ]
        fenced_next = Mux(head_valid, fenced, following_fenced)
        reserved_next = (unreserved & ~tokens.room) == 0
        more_next = _any(started_valid[2:]) | (started_valid[1] & oldest_valid)
        m.d.sync += [
            missing.eq(Mux(head_valid, header.wait, following.wait) & ~tokens.available_next),
            reserved.eq(reserved_next),
            only.eq(after_start(0, ~more_next, name="only_after_start")),
        ]
        ready_next = (head_valid | slot_valid[1]) & reserved_next & ~(newest_valid & started_valid[-2])
        alone_next = fenced_next | synchronizing

        def may_start_next(starts, *, name: str) -> Signal:
            """What ``may_start`` becomes, where the head ``starts`` or not; the engine's ``done`` comes as late as its ``ready``."""
            done_or_not = may_end, may_end & synchronizing
            high, low = (ready_next & ~starts & ~(alone_next & (~only | (oldest_valid & ~ends))) for ends in done_or_not)
            return late_mux(m, engine.done.valid, high, low, name=name)

        ready, not_ready = may_start_next(able, name="may_start_ready"), may_start_next(able & is_sync, name="may_start_not_ready")
        m.d.sync += may_start.eq(late_mux(m, engine.start.ready, ready, not_ready, name="may_start_next"))
        with m.If(~head_valid):
            m.d.sync += [is_sync.eq(syncs_next), fenced.eq(fenced_next)]
        m.d.sync += [
            unreserved.eq(after_start(header.post, unreserved & ~tokens.room, name="unreserved_after_start")),
            taking.eq(Mux(start, header.wait, 0)),
        ]
        _move_up(m, started, started_valid)
        newest_stays = newest_valid & started_valid[-2]
        m.d.sync += newest_valid.eq(after_start(1, newest_stays, name="newest_valid_after_start"))
        # ``start`` comes late in a cycle: what can follows the head until then.
        with m.If(~newest_valid):
            m.d.sync += [started[-1].index.eq(head.index), started[-1].wait.eq(header.wait)]
        with m.If(~synchronizing):
            m.d.sync += post.eq(header.post)
        with m.If(start):
            m.d.sync += synchronizing.eq(is_sync)

        # Release and done. Only the last started instruction may still be without room for its tokens.
        released = Signal()
        # Known a cycle ahead as well. In a cycle with ``start`` everything is reserved.
        m.d.sync += may_end.eq(Mux(oldest_valid, ~done, started_valid[1]) & (reserved_next | more_next))
        m.d.comb += [
            tokens.release.eq(Mux(oldest_valid & ~released, oldest.wait, 0)),
            engine.done.ready.eq(may_end),
            done.eq(may_end & (engine.done.valid | synchronizing)),
            tokens.give.eq(Mux(done, Mux(synchronizing, post, engine.done.p.post), 0)),
        ]
        m.d.sync += released.eq(oldest_valid & ~done)
        with m.If(done):
            m.d.sync += [oldest_valid.eq(0), synchronizing.eq(0)]

        # What the supervisor and the counters want to know.
        quiet = Signal()
        faulty = Signal()
        is_oldest = Signal(reset_less=True)
        waits = Signal()
        happened = Signal.like(engine.events, reset_less=True)
        token_waits = Signal(reset_less=True)
        fence_waits = Signal(reset_less=True)
        m.d.sync += [
            happened.eq(engine.events),
            token_waits.eq(head_valid & ~tokens_ready),
            fence_waits.eq(head_valid & tokens_ready & ~fence_ready),
            faulty.eq(engine.fault_valid),
            is_oldest.eq(oldest_valid & (engine.fault_index == oldest.index)),
        ]
        m.d.comb += [
            # Of a fault of an instruction behind the oldest nothing may be seen.
            self.stuck.eq(waits | (faulty & is_oldest)),
            self.empty.eq(~_any(slot_valid) & ~in_engine),
            quiet.eq(~happened.any()),
            self.report.fault.eq(faulty),
            self.report.code.eq(engine.fault_code),
            # Once nobody can move, everything has moved up.
            self.report.valid.eq(oldest_valid | head_valid),
            self.report.index.eq(Mux(oldest_valid, oldest.index, head.index)),
            self.events.eq(Cat(happened, quiet & token_waits, quiet & fence_waits, quiet & ~token_waits & ~fence_waits)),
        ]
        with m.If(in_engine):
            ended = engine.done.valid | synchronizing
            m.d.sync += waits.eq(oldest_valid & only & ended & ~reserved)
        with m.Else():
            m.d.sync += waits.eq(~_any(slot_valid) | (head_valid & ~tokens_ready))
        return m


def _has_room(valid: int) -> bool:
    slots, started = valid % (1 << QUEUE_DEPTH), valid >> QUEUE_DEPTH
    return slots.bit_count() + max(0, started.bit_count() - 1) < QUEUE_DEPTH


def _any(flags: list[Signal]):
    return Cat(*flags).any()


def _slot(m: Module, slot: data.View, valid: Signal, *, source: data.View, valid_next: Signal) -> None:
    """A register that follows ``source`` until an entry is in it, with copies of ``valid`` beside its bits.

    The copies are not reset; a reset ends long before an entry comes.
    """
    m.d.sync += valid.eq(valid_next)
    bits, source_bits = slot.as_value(), source.as_value()
    for first in range(0, len(bits), _BITS_HELD):
        held = local(m, valid_next, name=f"{valid.name}_{first}")
        with m.If(~held):
            m.d.sync += bits[first : first + _BITS_HELD].eq(source_bits[first : first + _BITS_HELD])


def _move_up(m: Module, entries: list, valid: list[Signal]) -> None:
    """Move each entry into the place in front of it where that is empty."""
    for number in range(len(entries) - 1):
        with m.If(~valid[number] & valid[number + 1]):
            m.d.sync += [entries[number].eq(entries[number + 1]), valid[number].eq(1), valid[number + 1].eq(0)]
