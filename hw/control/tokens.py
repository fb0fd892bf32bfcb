"""The token counters between the engines."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out, Signature

from tercel.hw.isa import TOKEN_MAX, Engine
from tercel.hw.up_down import up_down


class TokenSignature(Signature):
    """One engine's side of the token counters, as seen from its issuer. Every member is a mask of the other engines.

    An engine takes tokens when it starts an instruction, but instructions overlap, and the result must not depend on by how much. So
    room for a token is kept apart from the token: it is reserved before a token may be given, and is free again only when
    the instruction that took it is the oldest of its engine.

    Members
    -------
    available_next
        A token from that engine will be there in the next cycle.
    take
        Take a token from each.
    release
        Free the room of a token from each.
    room
        Room for a token to that engine is there.
    reserve
        Reserve room for one to each.
    give
        Give one to each.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "available_next": In(len(Engine)),
                "take": Out(len(Engine)),
                "release": Out(len(Engine)),
                "room": In(len(Engine)),
                "reserve": Out(len(Engine)),
                "give": Out(len(Engine)),
            }
        )


class Tokens(Component):
    """A counter of tokens and one of room for each ordered pair of engines, up to TOKEN_MAX.

    ``available_next`` counts a ``take`` or ``give`` in the same cycle, ``room`` shows a ``reserve`` or ``release`` in the next cycle.

    Members
    -------
    load, array, depthwise, store : In(TokenSignature())
        The issuers.
    """

    def __init__(self) -> None:
        super().__init__({engine.name.lower(): In(TokenSignature()) for engine in Engine})

    def elaborate(self, platform) -> Module:
        """An engine asks for nothing from itself: the static checks refuse such instructions. It would be there, which costs nothing."""
        m = Module()
        ports = {engine: getattr(self, engine.name.lower()) for engine in Engine}
        for giver in Engine:
            for taker in Engine:
                if giver == taker:
                    m.d.comb += [ports[taker].available_next[giver].eq(1), ports[giver].room[taker].eq(1)]
                    continue
                pair = f"{giver.name}_{taker.name}".lower()
                given = Signal(range(TOKEN_MAX + 1), name=f"given_{pair}")
                held = Signal(range(TOKEN_MAX + 1), name=f"held_{pair}")
                up_down(m, given, up=ports[giver].give[taker], down=ports[taker].take[giver])
                up_down(m, held, up=ports[giver].reserve[taker], down=ports[taker].release[giver])
                available = Signal(name=f"available_{pair}")
                room = Signal(name=f"room_{pair}", init=1)
                give, take = ports[giver].give[taker], ports[taker].take[giver]
                reserve, release = ports[giver].reserve[taker], ports[taker].release[giver]
                available_next = ports[taker].available_next[giver]
                # Registers of their own: much depends on them. Nothing is taken or reserved that is not there.
                m.d.comb += [
                    available_next.eq(give | (available & ~((given == 1) & take))),
                    ports[giver].room[taker].eq(room),
                ]
                m.d.sync += [
                    available.eq(available_next),
                    room.eq(release | (room & ~((held == TOKEN_MAX - 1) & reserve))),
                ]
        return m

