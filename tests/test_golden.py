"""The machine of the golden model: dispatch, queues, tokens, static checks and the fault that is reported."""

from dataclasses import replace

import numpy as np
import pytest
from golden_bench import PLAIN, Bench

from tercel.hw.config import Config
from tercel.hw.isa import INSTRUCTION_BITS, RESERVED_LOW, TOKEN_MAX, Engine, Fault, Mode, Opcode, Space, encode
from tercel.sim.golden import run_golden

LOAD, ARRAY, DEPTHWISE, STORE = (1 << engine for engine in Engine)
BARE = replace(PLAIN, depthwise=False, window_depth=0, record_depth=0, threshold_depth=0)
ARRAY_FIELDS = {"dilation_x": 1, "dilation_y": 1, "shift": 8}
"""An ARRAY or DEPTHWISE that reads nothing and writes one pixel."""


def sync(bench: Bench, engine: Engine, *, wait: int = 0, post: int = 0, fence: int = 0) -> int:
    """Append a SYNC."""
    return bench.add(Opcode.SYNC, engine=engine, wait=wait, post=post, fence=fence)


def outcome(bench: Bench, *, halt: bool = True) -> tuple[Fault, int, list[int]]:
    """Fault, its index, and the executed instructions in program order."""
    result = bench.run(halt=halt)
    return result.fault, result.fault_index, sorted(result.executed)


def test_halt_alone() -> None:
    """Nothing to do."""
    assert outcome(Bench()) == (Fault.NONE, 0, [])


def test_program_end() -> None:
    """The index of the missing instruction; what was dispatched runs."""
    bench = Bench()
    assert outcome(bench, halt=False) == (Fault.PROGRAM_END, 0, [])
    bench = Bench()
    sync(bench, Engine.ARRAY)
    assert outcome(bench, halt=False) == (Fault.PROGRAM_END, 1, [0])


def test_nothing_after_halt_is_looked_at() -> None:
    """Not even an illegal instruction."""
    bench = Bench()
    bench.add(Opcode.HALT)
    bench.program.append(0)
    assert outcome(bench) == (Fault.NONE, 0, [])


def test_tokens_order_engines() -> None:
    """Each waits for the one before, against program order."""
    bench = Bench()
    sync(bench, Engine.STORE, wait=DEPTHWISE)
    sync(bench, Engine.DEPTHWISE, wait=ARRAY, post=STORE)
    sync(bench, Engine.ARRAY, wait=LOAD, post=DEPTHWISE, fence=1)
    sync(bench, Engine.LOAD, post=ARRAY)
    result = bench.run()
    assert (result.fault, result.executed) == (Fault.NONE, [3, 2, 1, 0])


def test_a_token_of_each_engine_is_taken_at_once() -> None:
    """With one of two missing none is taken."""
    bench = Bench()
    sync(bench, Engine.LOAD, post=ARRAY)
    sync(bench, Engine.ARRAY, wait=LOAD | STORE)
    assert outcome(bench) == (Fault.DEADLOCK, 1, [0])


def test_tokens_left_over_do_not_matter() -> None:
    """HALT does not look at counters."""
    bench = Bench()
    for _ in range(TOKEN_MAX):
        sync(bench, Engine.LOAD, post=ARRAY | STORE)
    assert outcome(bench) == (Fault.NONE, 0, list(range(TOKEN_MAX)))


def test_a_giver_waits_while_a_counter_is_full() -> None:
    """It counts as waiting at that instruction, and the others get no token from it either."""
    bench = Bench()
    for _ in range(TOKEN_MAX):
        sync(bench, Engine.LOAD, post=ARRAY)
    sync(bench, Engine.LOAD, post=ARRAY | STORE)
    sync(bench, Engine.STORE, wait=LOAD)
    assert outcome(bench)[:2] == (Fault.DEADLOCK, TOKEN_MAX)
    bench.program.pop()
    sync(bench, Engine.ARRAY, wait=LOAD)
    assert outcome(bench) == (Fault.NONE, 0, list(range(TOKEN_MAX + 3)))


def test_a_full_queue_stops_the_dispatcher() -> None:
    """Two wait; behind the third nothing is dispatched."""
    for waiting, expected in ((2, Fault.NONE), (3, Fault.DEADLOCK)):
        bench = Bench()
        for _ in range(waiting):
            sync(bench, Engine.ARRAY, wait=LOAD)
        for _ in range(waiting):
            sync(bench, Engine.LOAD, post=ARRAY)
        assert outcome(bench)[:2] == (expected, 0)


def test_a_giver_that_waits_leaves_the_queue_its_room() -> None:
    """Two may wait besides the one that has run."""
    for waiting, expected in ((2, Fault.NONE), (3, Fault.DEADLOCK)):
        bench = Bench()
        for _ in range(TOKEN_MAX + 1 + waiting):
            sync(bench, Engine.LOAD, post=ARRAY)
        for _ in range(1 + waiting):
            sync(bench, Engine.ARRAY, wait=LOAD)
        assert outcome(bench)[:2] == (expected, TOKEN_MAX if expected else 0)


def test_deadlock_names_the_first_that_waits() -> None:
    """A ring of three engines, and one that runs."""
    bench = Bench()
    sync(bench, Engine.DEPTHWISE)
    sync(bench, Engine.STORE, wait=ARRAY, post=LOAD)
    sync(bench, Engine.ARRAY, wait=LOAD, post=STORE)
    sync(bench, Engine.LOAD, wait=STORE, post=ARRAY)
    assert outcome(bench) == (Fault.DEADLOCK, 1, [0])


def test_a_missing_halt_is_reported_before_a_deadlock() -> None:
    """PROGRAM_END is a fault, DEADLOCK what is left when there is none."""
    bench = Bench()
    sync(bench, Engine.STORE, wait=ARRAY)
    assert outcome(bench, halt=False) == (Fault.PROGRAM_END, 1, [])


def test_the_lowest_index_is_reported() -> None:
    """Whichever engine fails first."""
    bench = Bench()
    bench.add(Opcode.STORE, wait=ARRAY, spad_addr=PLAIN.array_depth, spad_pixel=1)
    sync(bench, Engine.ARRAY, post=STORE)
    bench.add(Opcode.LOAD, memory_addr=1 << 30, spad_pixel=1)
    bench.program.append(15)
    assert outcome(bench) == (Fault.SCRATCHPAD_RANGE, 0, [1])
    bench.program[0] = encode(Opcode.SYNC, {"engine": Engine.STORE})
    assert outcome(bench) == (Fault.MEMORY_RANGE, 2, [0, 1])
    bench.program[2] = bench.program[0]
    assert outcome(bench) == (Fault.ILLEGAL_OPCODE, 3, [0, 1, 2])


def test_a_faulted_engine_gives_no_token() -> None:
    """Its successors wait for ever, but the fault is what is reported."""
    bench = Bench()
    bench.add(Opcode.LOAD, memory_addr=1 << 30, spad_pixel=1, post=ARRAY)
    sync(bench, Engine.ARRAY, wait=LOAD)
    sync(bench, Engine.LOAD)
    sync(bench, Engine.STORE)
    assert outcome(bench) == (Fault.MEMORY_RANGE, 0, [3])


def test_a_limit_is_no_fault() -> None:
    """The first instructions only."""
    bench = Bench()
    sync(bench, Engine.LOAD, post=ARRAY)
    sync(bench, Engine.ARRAY, wait=LOAD)
    sync(bench, Engine.ARRAY, wait=LOAD)
    bench.add(Opcode.HALT)
    assert outcome(bench)[0] is Fault.DEADLOCK
    for limit, executed in ((0, []), (1, [0]), (2, [0, 1]), (3, [0, 1])):
        result = bench.run(halt=False, limit_instructions=limit)
        assert (result.fault, result.fault_index, result.executed) == (Fault.NONE, 0, executed)


ILLEGAL_OPCODES = {0: PLAIN, 7: PLAIN, 15: PLAIN, 6: BARE}


@pytest.mark.parametrize("number", ILLEGAL_OPCODES)
def test_illegal_opcodes(number: int) -> None:
    """Even with bits past every field."""
    bench = Bench(ILLEGAL_OPCODES[number])
    sync(bench, Engine.LOAD)
    bench.program.append(number | 1 << INSTRUCTION_BITS - 1)
    assert outcome(bench) == (Fault.ILLEGAL_OPCODE, 1, [0])


@pytest.mark.parametrize("opcode", Opcode)
def test_bits_past_the_last_field(opcode: Opcode) -> None:
    """The first and the last."""
    legal = ARRAY_FIELDS if opcode in (Opcode.ARRAY, Opcode.DEPTHWISE) else {}
    for bit in {RESERVED_LOW[opcode], INSTRUCTION_BITS - 1}:
        if bit < INSTRUCTION_BITS:
            bench = Bench()
            bench.program.append(encode(opcode, legal) | 1 << bit)
            assert outcome(bench) == (Fault.ILLEGAL_FIELD, 0, [])


TRANSFER_BANKS = ["spad_bank", "spad_row_bank"]
INPUT_BANKS = ["in_bank", "in_kx_bank", "in_ky_bank", "in_row_bank", "out_bank", "out_row_bank"]
ARRAY_FLAWS = [
    *({name: PLAIN.pixels} for name in [*INPUT_BANKS, "res_bank", "res_row_bank"]),
    {"last_lanes": PLAIN.lanes},
    {"shift": 0},
    {"shift": 7},
    {"shift": 40},
    {"dilation_x": 0},
    {"dilation_y": 0},
    {"lo": 1},
    {"narrow": 1, "thresholds": 1},
    {"narrow": 1, "residual": 1},
    {"weight_addr": PLAIN.weight_depth},
    {"parameter_addr": PLAIN.parameter_depth},
    {"thresholds": 1, "threshold_addr": PLAIN.threshold_depth},
    {"wait": ARRAY},
    {"post": ARRAY},
]
DEPTHWISE_FLAWS = [
    *({name: PLAIN.pixels} for name in INPUT_BANKS),
    {"shift": 7, "mode": Mode.MAX},
    {"shift": 40},
    {"dilation_x": 0, "mode": Mode.MATRIX_VECTOR},
    {"dilation_y": 0},
    {"lo": 1},
    {"record_addr": PLAIN.record_depth, "mode": Mode.AVERAGE},
    {"parameter_addr": PLAIN.record_depth},
    {"wait": DEPTHWISE | LOAD},
    {"post": DEPTHWISE},
]
FLAWS: list[tuple[Opcode, dict[str, int], Config]] = [
    *((Opcode.ARRAY, ARRAY_FIELDS | flaw, PLAIN) for flaw in ARRAY_FLAWS),
    *((Opcode.DEPTHWISE, ARRAY_FIELDS | flaw, PLAIN) for flaw in DEPTHWISE_FLAWS),
    (Opcode.ARRAY, ARRAY_FIELDS | {"out_space": 1}, BARE),
    (Opcode.ARRAY, ARRAY_FIELDS | {"thresholds": 1}, BARE),
    (Opcode.ARRAY, ARRAY_FIELDS | {"digits": 1}, replace(PLAIN, digit_set="ternary")),
    (Opcode.ARRAY, ARRAY_FIELDS | {"multiplier": 256}, replace(PLAIN, multiplier_bits=8)),
    (Opcode.DEPTHWISE, ARRAY_FIELDS | {"multiplier": 256}, replace(PLAIN, multiplier_bits=8, per_channel_multiplier=True)),
    (Opcode.HALT, {"wait": LOAD}, PLAIN),
    (Opcode.HALT, {"post": STORE}, PLAIN),
    (Opcode.HALT, {"fence": 1}, PLAIN),
    (Opcode.SYNC, {"engine": Engine.STORE, "wait": STORE}, PLAIN),
    (Opcode.SYNC, {"engine": Engine.ARRAY, "post": ARRAY}, PLAIN),
    (Opcode.SYNC, {"engine": Engine.DEPTHWISE}, BARE),
    (Opcode.LOAD, {"post": LOAD}, PLAIN),
    (Opcode.STORE, {"wait": STORE}, PLAIN),
    *((opcode, {name: PLAIN.pixels}, PLAIN) for name in TRANSFER_BANKS for opcode in (Opcode.LOAD, Opcode.STORE)),
    (Opcode.LOAD, {"space": Space.WEIGHT, "spad_bank": PLAIN.pixels}, PLAIN),
    *((opcode, {name: 1}, PLAIN) for name in ("memory_addr", "memory_row") for opcode in (Opcode.LOAD, Opcode.STORE)),
    (Opcode.LOAD, {"space": 7}, PLAIN),
    *((Opcode.LOAD, {"space": space}, BARE) for space in (Space.WINDOW, Space.RECORD, Space.DEPTHWISE_PARAMETER, Space.THRESHOLD)),
    *((Opcode.STORE, {"space": space}, PLAIN) for space in range(2, 8)),
    (Opcode.STORE, {"space": Space.WINDOW}, BARE),
    (Opcode.LOAD, {"space": Space.WEIGHT, "addr_linear": PLAIN.weight_depth}, PLAIN),
    (Opcode.LOAD, {"space": Space.PARAMETER, "addr_linear": PLAIN.parameter_depth}, PLAIN),
    (Opcode.LOAD, {"space": Space.RECORD, "addr_linear": PLAIN.record_depth}, PLAIN),
    (Opcode.LOAD, {"space": Space.DEPTHWISE_PARAMETER, "addr_linear": PLAIN.record_depth}, PLAIN),
    (Opcode.LOAD, {"space": Space.THRESHOLD, "addr_linear": PLAIN.threshold_depth}, PLAIN),
]


@pytest.mark.parametrize(("opcode", "values", "config"), FLAWS)
def test_illegal_fields(opcode: Opcode, values: dict[str, int], config: Config) -> None:
    """Each static check by itself, after an instruction that is fine."""
    bench = Bench(config)
    sync(bench, Engine.LOAD)
    bench.add(opcode, **values)
    sync(bench, Engine.LOAD)
    assert outcome(bench) == (Fault.ILLEGAL_FIELD, 1, [0])


LEGAL: list[tuple[Opcode, dict[str, int], Config]] = [
    (Opcode.ARRAY, {"shift": 39, "dilation_x": 15, "dilation_y": 15, "last_lanes": 3, "digits": 3, "multiplier": 65535}, PLAIN),
    (Opcode.ARRAY, ARRAY_FIELDS | {"threshold_addr": PLAIN.threshold_depth, "narrow": 1, "threshold_shared": 1}, PLAIN),
    (Opcode.ARRAY, ARRAY_FIELDS | {"weight_addr": 1023, "parameter_addr": 63, "threshold_addr": 1023, "thresholds": 15}, PLAIN),
    (Opcode.DEPTHWISE, ARRAY_FIELDS | {"record_addr": 63, "parameter_addr": 63, "out_space": 1}, PLAIN),
    (Opcode.LOAD, {"addr_linear": 65535, "spad_pixel": 1}, PLAIN),
    (Opcode.LOAD, {"space": Space.THRESHOLD, "addr_linear": PLAIN.threshold_depth - 1}, PLAIN),
]


@pytest.mark.parametrize(("opcode", "values", "config"), LEGAL)
def test_the_last_legal_values(opcode: Opcode, values: dict[str, int], config: Config) -> None:
    """One step inside the limits."""
    bench = Bench(config)
    bench.place(bytes(16))
    bench.add(opcode, **values)
    assert outcome(bench) == (Fault.NONE, 0, [0])


ONE_PIXEL = ARRAY_FIELDS | {"in_width": 1, "in_height": 1, "in_pixel": 1, "out_pixel": 2}
DEPTH = PLAIN.array_depth
RANGE: list[tuple[Opcode, dict[str, int], Fault]] = [
    (Opcode.ARRAY, {"in_addr": DEPTH - 1, "out_addr": DEPTH - 2}, Fault.NONE),
    (Opcode.ARRAY, {"in_addr": DEPTH}, Fault.SCRATCHPAD_RANGE),
    (Opcode.ARRAY, {"in_addr": DEPTH, "x_start": -1}, Fault.NONE),
    (Opcode.ARRAY, {"in_addr": DEPTH, "y_start": 1}, Fault.NONE),
    (Opcode.ARRAY, {"in_addr": DEPTH - 1, "groups": 1}, Fault.SCRATCHPAD_RANGE),
    (Opcode.ARRAY, {"in_addr": DEPTH - 1, "kernel_width": 1, "in_kx_addr": 1}, Fault.NONE),
    (Opcode.ARRAY, {"in_addr": DEPTH - 1, "kernel_width": 1, "in_kx_addr": 1, "in_width": 2}, Fault.SCRATCHPAD_RANGE),
    (Opcode.ARRAY, {"in_addr": DEPTH - 1, "out_width": 3, "in_tile": 1, "in_width": 3, "tiles": 1}, Fault.NONE),
    (Opcode.ARRAY, {"in_addr": DEPTH - 1, "out_width": 3, "in_tile": 1, "in_width": 4, "tiles": 1}, Fault.SCRATCHPAD_RANGE),
    (Opcode.ARRAY, {"out_addr": DEPTH - 1}, Fault.SCRATCHPAD_RANGE),
    (Opcode.ARRAY, {"out_addr": DEPTH - 2, "output_groups": 1}, Fault.SCRATCHPAD_RANGE),
    (Opcode.ARRAY, {"out_addr": DEPTH - 2, "out_width": 2}, Fault.NONE),
    (Opcode.ARRAY, {"out_addr": DEPTH - 2, "out_width": 2, "out_bank": 1}, Fault.SCRATCHPAD_RANGE),
    (Opcode.ARRAY, {"out_addr": DEPTH - 2, "out_width": 3}, Fault.NONE),
    (Opcode.ARRAY, {"out_addr": DEPTH - 2, "out_width": 3, "tiles": 1}, Fault.SCRATCHPAD_RANGE),
    (Opcode.ARRAY, {"out_addr": DEPTH - 2, "out_width": 2, "tiles": 9}, Fault.NONE),
    (Opcode.ARRAY, {"out_addr": DEPTH - 2, "rows": 1, "out_row_addr": 2}, Fault.SCRATCHPAD_RANGE),
    (Opcode.ARRAY, {"out_addr": DEPTH - 2, "rows": 1, "out_row_addr": 2, "out_limit": DEPTH, "out_span": 2}, Fault.NONE),
    (Opcode.ARRAY, {"res_addr": DEPTH - 1}, Fault.NONE),
    (Opcode.ARRAY, {"res_addr": DEPTH - 1, "residual": 1}, Fault.SCRATCHPAD_RANGE),
    (Opcode.DEPTHWISE, {"in_addr": DEPTH - 1, "out_addr": DEPTH - 1}, Fault.NONE),
    (Opcode.DEPTHWISE, {"in_addr": DEPTH}, Fault.SCRATCHPAD_RANGE),
    (Opcode.DEPTHWISE, {"in_addr": DEPTH, "mode": Mode.MAX, "x_start": 1}, Fault.NONE),
    (Opcode.DEPTHWISE, {"in_addr": DEPTH - 1, "mode": Mode.AVERAGE, "kernel_width": 3, "in_kx_addr": 1}, Fault.NONE),
    (Opcode.DEPTHWISE, {"in_addr": DEPTH - 4, "kernel_width": 3, "in_kx_addr": 1, "in_width": 9}, Fault.NONE),
    (Opcode.DEPTHWISE, {"in_addr": DEPTH - 3, "kernel_width": 3, "in_kx_addr": 1, "in_width": 9}, Fault.SCRATCHPAD_RANGE),
    (Opcode.DEPTHWISE, {"out_addr": DEPTH - 1, "groups": 1}, Fault.SCRATCHPAD_RANGE),
    (Opcode.DEPTHWISE, {"mode": Mode.MATRIX_VECTOR, "in_addr": DEPTH - 2, "steps": 1, "x_start": 99}, Fault.NONE),
    (Opcode.DEPTHWISE, {"mode": Mode.MATRIX_VECTOR, "in_addr": DEPTH - 2, "steps": 2}, Fault.SCRATCHPAD_RANGE),
    (Opcode.DEPTHWISE, {"mode": Mode.MATRIX_VECTOR, "out_addr": DEPTH - 1, "groups": 1}, Fault.SCRATCHPAD_RANGE),
]


@pytest.mark.parametrize(("opcode", "values", "fault"), RANGE)
def test_scratchpad_range(opcode: Opcode, values: dict[str, int], fault: Fault) -> None:
    """Only accesses that are really made count."""
    bench = Bench()
    sync(bench, Engine.STORE)
    bench.add(opcode, **ONE_PIXEL | values)
    assert outcome(bench) == (fault, 1 if fault else 0, [0] if fault else [0, 1])


def test_the_largest_scratchpad_has_no_outside() -> None:
    """Addresses wrap at 2**14."""
    bench = Bench(replace(PLAIN, array_depth=16384))
    bench.add(Opcode.ARRAY, **ONE_PIXEL | {"in_addr": 16383, "groups": 1, "out_addr": 16383})
    assert outcome(bench) == (Fault.NONE, 0, [0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory": np.zeros(160)}, "memory must be a one-dimensional uint8 array, not 1-dimensional float64"),
        ({"program_count": 65536}, "program_count must be in 0..65535, not 65536 (an index has 16 bits)"),
        ({"program_count": 3}, "memory must hold address 0xef, but has 0xa0 bytes (give more memory or a smaller region)"),
        ({"write_end": 1 << 32}, "write_end must be in 0..2**32-1, not 4294967296 (it is a 32-bit register)"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict, message: str) -> None:
    """The message names the limit and the way out."""
    sound = {
        "memory": np.zeros(160, np.uint8),
        "program_base": 0,
        "program_count": 1,
        "read_base": 0,
        "read_end": 0,
        "write_base": 0,
        "write_end": 0,
    }
    with pytest.raises(ValueError) as error:
        run_golden(PLAIN, **sound | arguments)
    assert str(error.value) == message
