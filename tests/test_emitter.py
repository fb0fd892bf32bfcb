"""Tokens and fences from dependencies, and programs that would stop for good."""

import pytest

from tercel.hw.isa import Engine, Opcode
from tercel.sw.emitter import Emitter, Slots, TokenError, check_tokens

LOAD, ARRAY, STORE = 1 << Engine.LOAD, 1 << Engine.ARRAY, 1 << Engine.STORE


def tokens(emitter: Emitter) -> list[tuple[int, int, int]]:
    return [(values.get("wait", 0), values.get("post", 0), values.get("fence", 0)) for _, values in emitter.finish()]


def test_one_token_for_the_latest():
    emitter = Emitter()
    loads = [emitter.add(Opcode.LOAD, {}) for _ in range(3)]
    first = emitter.add(Opcode.ARRAY, {}, after=loads[:2])
    second = emitter.add(Opcode.ARRAY, {}, after=loads[1:2])
    third = emitter.add(Opcode.ARRAY, {}, after=[*loads, first])
    emitter.add(Opcode.STORE, {}, after=[first, second, third])
    assert tokens(emitter) == [
        (0, 0, 0),
        (0, ARRAY, 0),
        (0, ARRAY, 0),
        (LOAD, 0, 0),
        (0, 0, 0),
        (LOAD, STORE, 1),
        (ARRAY, 0, 0),
        (0, 0, 0),
    ]


def test_slots_remember_their_users():
    slots = Slots([0, 8])
    assert slots.take() == (0, [])
    slots.use(0, [1, 2])
    assert slots.take() == (8, [])
    assert slots.take() == (0, [1, 2])
    assert slots.take() == (8, [])


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (
            [(Opcode.ARRAY, {"wait": LOAD}), (Opcode.HALT, {})],
            r"instruction 0 on ARRAY waits for tokens of LOAD that never come \(every wait needs a post earlier in the program\)",
        ),
        (
            [*[(Opcode.LOAD, {"post": ARRAY})] * 19, *[(Opcode.ARRAY, {"wait": LOAD})] * 19, (Opcode.HALT, {})],
            r"instruction 15 on LOAD cannot give its tokens to ARRAY \(a counter holds 15; let the taker wait earlier in the program\)",
        ),
        ([(Opcode.LOAD, {})], r"instruction 1 is missing \(the last instruction must be HALT\)"),
    ],
)
def test_programs_that_stop(instructions, message):
    with pytest.raises(TokenError, match=f"^{message}$"):
        check_tokens(instructions)


def test_queues_count():
    """The LOAD that waits for an ARRAY behind a full queue never gets its token; a queue of 2 takes one LOAD more than that."""

    def program(loads: int) -> list[tuple[Opcode, dict[str, int]]]:
        return [(Opcode.LOAD, {"wait": ARRAY}), *[(Opcode.LOAD, {})] * loads, (Opcode.ARRAY, {"post": LOAD}), (Opcode.HALT, {})]

    check_tokens(program(1))
    with pytest.raises(TokenError, match=r"^instruction 0 on LOAD waits for tokens of ARRAY that never come"):
        check_tokens(program(2))
