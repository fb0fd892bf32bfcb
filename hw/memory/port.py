"""The memory port: fetch, load and store share one pipelined Wishbone bus."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tercel.hw.config import Config
from tercel.hw.interfaces import MemoryReadSignature, MemoryWriteSignature, WishboneSignature, beat_addr_bits
from tercel.hw.memory.queue import Relay
from tercel.hw.up_down import up_down

OUTSTANDING_MAX = 16
"""Transfers on the bus or awaiting their answer."""

TURN_BEATS = 32
"""Beats of load or store before it is the other's turn: a dynamic memory loses time whenever reads and writes or rows change."""

TIMEOUT_CYCLES = 65536

FETCH, LOAD, STORE = range(3)

_OWNER_LAYOUT = data.StructLayout({"client": unsigned(2), "last": unsigned(1)})


class MemoryPort(Component):
    """Grants one beat a cycle, fetch before the other two, load and store in turns of ``TURN_BEATS``, and hands the answers back in order.

    A turn ends early when only the other one asks. A beat is on the bus in the cycle after its grant, and its answer reaches the client
    in the cycle after ``ack`` or ``err`` (``err`` wins over ``ack``). One beat a cycle while the memory answers within 15 cycles. ``cyc``
    is high while anything is outstanding; after a ``stall`` the clients may be granted one more beat. An answer with nothing outstanding
    is ignored. When nothing has been answered for ``timeout_cycles`` though something is outstanding, ``cyc`` falls for good and every
    transfer, old or new, is answered with ``err`` and ``timeout``.

    Parameters
    ----------
    config
        ``memory_width`` is used.
    timeout_cycles
        A power of two.

    Members
    -------
    fetch, load : In(MemoryReadSignature(config))
        The readers.
    store : In(MemoryWriteSignature(config))
        The writer.
    bus : Out(WishboneSignature(...))
        The memory; all bytes of a beat are selected.
    idle : Out(1)
        Nothing is outstanding.
    read, written : Out(1)
        A beat was answered in the cycle before.
    """

    def __init__(self, config: Config, *, timeout_cycles: int = TIMEOUT_CYCLES) -> None:
        self._timeout_cycles = timeout_cycles
        super().__init__(
            {
                "fetch": In(MemoryReadSignature(config)),
                "load": In(MemoryReadSignature(config)),
                "store": In(MemoryWriteSignature(config)),
                "bus": Out(WishboneSignature(addr_width=beat_addr_bits(config), data_width=8 * config.memory_width)),
                "idle": Out(1, init=1),
                "read": Out(1),
                "written": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """Arbiter, relay to the bus, owners of the outstanding transfers, answer register, watchdog."""
        m = Module()
        bus = self.bus
        dead = Signal()

        # Arbiter and relay to the bus. A dead port moves its beats along as if the memory took everything.
        beat_layout = data.StructLayout({"adr": bus.adr.shape(), "dat_w": bus.dat_w.shape(), "we": unsigned(1)})
        m.submodules.beats = beats = Relay(beat_layout)
        active = Signal()
        outstanding = Signal(range(OUTSTANDING_MAX + 1))
        room = Signal()
        grant = Signal()
        client = Signal(2)
        store_turn = Signal()
        store_wins = Signal()
        read_adr = Mux(self.fetch.request.valid, self.fetch.request.payload, self.load.request.payload)
        m.d.comb += [
            room.eq(beats.i.ready & ~outstanding[OUTSTANDING_MAX.bit_length() - 1]),
            store_wins.eq(self.store.request.valid & (store_turn | ~self.load.request.valid)),
            self.fetch.request.ready.eq(room),
            # Whose request is not valid need not be told the truth: his own ``valid`` does not come back to him.
            self.load.request.ready.eq(room & ~self.fetch.request.valid & ~(self.store.request.valid & store_turn)),
            self.store.request.ready.eq(room & ~self.fetch.request.valid & (store_turn | ~self.load.request.valid)),
            client.eq(Mux(self.fetch.request.valid, FETCH, Mux(store_wins, STORE, LOAD))),
            grant.eq(room & (self.fetch.request.valid | self.load.request.valid | self.store.request.valid)),
            beats.i.valid.eq(grant),
            beats.i.p.adr.eq(Mux(client == STORE, self.store.request.p.addr, read_adr)),
            beats.i.p.dat_w.eq(self.store.request.p.data),
            beats.i.p.we.eq(client == STORE),
            beats.o.ready.eq(~bus.stall | dead),
            bus.stb.eq(beats.o.valid & ~dead),
            bus.cyc.eq(active & ~dead),
            bus.adr.eq(beats.o.p.adr),
            bus.dat_w.eq(beats.o.p.dat_w),
            bus.we.eq(beats.o.p.we),
            bus.sel.eq(~0),
        ]
        more = Signal(range(TURN_BEATS), init=TURN_BEATS - 1)
        with m.If(grant & (client != FETCH)):
            with m.If((client == STORE) != store_turn):
                m.d.sync += [store_turn.eq(~store_turn), more.eq(TURN_BEATS - 2)]
            with m.Else():
                m.d.sync += more.eq(more - 1)
                with m.If(more == 0):
                    m.d.sync += store_turn.eq(~store_turn)

        # Owners wait in order; a transfer's owner is known before it is on the bus, so that a memory may answer at once.
        owners = m.submodules.owners = Memory(shape=_OWNER_LAYOUT, depth=OUTSTANDING_MAX, init=[])
        owner_write = owners.write_port()
        owner_read = owners.read_port(domain="comb")
        answered = Signal()
        owner = owner_read.data
        m.d.comb += [
            owner_write.en.eq(grant),
            owner_write.data.client.eq(client),
            owner_write.data.last.eq(self.store.request.p.last),
            answered.eq(active & (bus.ack | bus.err | dead)),
        ]
        with m.If(grant):
            m.d.sync += owner_write.addr.eq(owner_write.addr + 1)
        with m.If(answered):
            m.d.sync += owner_read.addr.eq(owner_read.addr + 1)
        up_down(m, outstanding, up=grant, down=answered)
        # Whether anything is outstanding, for the memory far away.
        with m.If(grant):
            m.d.sync += active.eq(1)
        with m.Elif(answered & (outstanding == 1)):
            m.d.sync += active.eq(0)

        # Answer register, shared by the clients but for ``valid``.
        dat_r = Signal.like(bus.dat_r, reset_less=True)
        err = Signal()
        timeout = Signal()
        last = Signal()
        m.d.sync += [dat_r.eq(bus.dat_r), err.eq(bus.err | dead), timeout.eq(dead), last.eq(owner.last)]
        for number, port in ((FETCH, self.fetch), (LOAD, self.load), (STORE, self.store)):
            m.d.sync += port.valid.eq(answered & (owner.client == number))
            m.d.comb += [port.err.eq(err), port.timeout.eq(timeout)]
        m.d.comb += [
            self.fetch.data.eq(dat_r),
            self.load.data.eq(dat_r),
            self.store.last.eq(last),
            self.idle.eq(~active),
            self.read.eq(self.fetch.valid | self.load.valid),
            self.written.eq(self.store.valid),
        ]

        waited = Signal(range(self._timeout_cycles))
        m.d.sync += waited.eq(waited + 1)
        with m.If(answered | ~active):
            m.d.sync += waited.eq(0)
        with m.Elif(waited == self._timeout_cycles - 1):
            m.d.sync += dead.eq(1)
        return m
