"""Tokens and fences from dependencies, and programs that would stop for good."""

from collections import deque
from random import Random

import pytest

from tercel.hw.isa import TOKEN_MAX, Engine, Opcode
from tercel.sw.emitter import Emitter, Slots, TokenError, check_tokens, engine_of

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


def test_one_token_for_several_where_a_counter_is_full():
    """Of 40 loads with an ARRAY each, all behind them: at most 15 give a token, and the first ARRAY waits for one of the first."""
    emitter = Emitter()
    loads = [emitter.add(Opcode.LOAD, {}) for _ in range(40)]
    arrays = [emitter.add(Opcode.ARRAY, {}, after=[load]) for load in loads]
    with pytest.raises(TokenError, match=r"^instruction 15 on LOAD cannot give its tokens to ARRAY"):
        emitter.finish(merge=False)
    instructions = emitter.finish()
    givers = [index for index, (_, values) in enumerate(instructions) if values.get("post") == ARRAY]
    takers = [index for index, (_, values) in enumerate(instructions) if values.get("wait") == LOAD]
    assert len(givers) == len(takers) == TOKEN_MAX
    assert givers[0] < 10 and givers[-1] == loads[-1] and takers[0] == arrays[0]


@pytest.mark.parametrize("seed", range(20))
def test_tokens_suffice_in_any_program(seed):
    """Random instructions in random order; every one starts after all that it must have landed."""
    random = Random(seed)
    emitter = Emitter()
    after: list[list[int]] = []
    opcodes = (Opcode.LOAD, Opcode.ARRAY, Opcode.DEPTHWISE, Opcode.STORE)
    while len(after) < 400:
        opcode = random.choice(opcodes)
        far = random.randrange(1, 200)
        for _ in range(random.choice((1, 3, 30))):
            after.append([max(0, len(after) - far)] if after else [])
            emitter.add(opcode, {}, after=after[-1])
    instructions = emitter.finish()
    check_tokens(instructions)
    landed = landed_before(instructions)
    assert all(landed[index].issuperset(givers) for index, givers in enumerate(after))


def landed_before(instructions: list[tuple[Opcode, dict[str, int]]]) -> list[set[int]]:
    """What has landed when each instruction starts: those of its engine that an instruction waited for, and what they waited for."""
    posts: dict[tuple[Engine, Engine], deque[int]] = {(giver, taker): deque() for giver in Engine for taker in Engine}
    issued: dict[Engine, list[int]] = {engine: [] for engine in Engine}
    found: list[set[int]] = []
    for index, (opcode, values) in enumerate(instructions[:-1]):
        engine = engine_of(opcode, values)
        own = issued[engine]
        landed = set(found[own[-1]]) if own else set()
        waited = [posts[giver, engine].popleft() for giver in Engine if values.get("wait", 0) >> giver & 1]
        for giver in [*waited, *own[-1:]] if values.get("fence") else waited:
            others = issued[engine_of(*instructions[giver])]
            landed |= found[giver].union(others[: others.index(giver) + 1])
        for taker in Engine:
            if values.get("post", 0) >> taker & 1:
                posts[engine, taker].append(index)
        own.append(index)
        found.append(landed)
    return found


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
