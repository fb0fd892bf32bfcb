"""LOAD and STORE in the golden model: where words go, and where they stop."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from golden_bench import PLAIN, Bench, Place, random_place

from tercel.hw.isa import Engine, Fault, Opcode, Space

LOAD, STORE = 1 << Engine.LOAD, 1 << Engine.STORE
K = PLAIN.lanes


@pytest.mark.parametrize("space", [Space.ARRAY, Space.WINDOW])
@pytest.mark.parametrize("seed", range(8))
def test_a_tensor_goes_in_and_out(space: Space, seed: int) -> None:
    """Every pixel lies where its pointer says, in rows that lie apart in memory."""
    rng = np.random.default_rng(seed)
    config = PLAIN if seed % 2 else replace(PLAIN, pixels=7, lanes=16, outputs=16, memory_width=16)
    height, width, groups = (int(n) for n in rng.integers(1, 6, 3))
    place = random_place(rng, config, height=height, width=width, groups=groups, first_word=int(rng.integers(100)))
    bench = Bench(config)
    tensor = rng.integers(0, 256, (height, width, groups, config.lanes), dtype=np.uint8)
    row_bytes = width * groups * config.lanes
    gap = int(rng.integers(4)) * 16
    apart = np.zeros((height, row_bytes + gap), dtype=np.uint8)
    apart[:, :row_bytes] = tensor.reshape(height, -1)
    counts = {"rows": height - 1, "pixels": width - 1, "groups": groups - 1, "space": space, **place.fields("spad")}
    bench.add(Opcode.LOAD, memory_addr=bench.place(apart), memory_row=row_bytes + gap, post=STORE, **counts)
    target = bench.place(bytes(height * row_bytes))
    bench.add(Opcode.STORE, memory_addr=target, memory_row=row_bytes, wait=LOAD, **counts)
    result = bench.run()
    assert result.fault is Fault.NONE
    assert np.array_equal(bench.memory[target:].reshape(-1)[: tensor.size], tensor.reshape(-1))
    banks = result.state.scratchpad(space).banks
    for y, x, group in np.ndindex(height, width, groups):
        bank, addr = place.locate(y, x)
        assert np.array_equal(banks[bank, addr + group], tensor[y, x, group])
    assert np.count_nonzero(banks.any(axis=2)) <= height * width * groups


SPACES = {
    Space.WEIGHT: (PLAIN.weight_depth, 8),
    Space.PARAMETER: (PLAIN.parameter_depth, 16),
    Space.DEPTHWISE_PARAMETER: (PLAIN.record_depth, 32),
    Space.THRESHOLD: (PLAIN.threshold_depth, 2),
}


@pytest.mark.parametrize("space", SPACES)
def test_linear_memories_are_rings(space: Space) -> None:
    """Rows, pixels and groups count words that follow one another around the end."""
    depth, size = SPACES[space]
    words = np.random.default_rng(0).integers(0, 256, (24, size), dtype=np.uint8)
    bench = Bench()
    assert bench.place(words) == 0
    bench.add(Opcode.LOAD, space=space, memory_row=6 * size, rows=3, pixels=2, groups=1, addr_linear=depth - 5)
    memory = bench.run().state.linear[space]
    for i, word in enumerate(words):
        assert np.array_equal(memory[(depth - 5 + i) % depth], word)
    assert not memory[19 : depth - 5].any()


def test_later_words_win_in_a_ring() -> None:
    """More words than the memory has."""
    depth = PLAIN.parameter_depth
    words = np.repeat(np.arange(2 * depth)[:, None], 16, axis=1)
    bench = Bench()
    bench.load_linear(Space.PARAMETER, words, 3)
    memory = bench.run().state.linear[Space.PARAMETER]
    assert memory[:, 0].tolist() == [depth + (addr - 3) % depth for addr in range(depth)]


def test_records_are_addressed_by_record() -> None:
    """Nine words each; word i of the walk is tap i mod 9."""
    words = np.random.default_rng(0).integers(0, 256, (20, K), dtype=np.uint8)
    bench = Bench()
    bench.load_linear(Space.RECORD, words, PLAIN.record_depth - 1)
    records = bench.run().state.linear[Space.RECORD].reshape(PLAIN.record_depth, 9, K)
    for i, word in enumerate(words):
        assert np.array_equal(records[(PLAIN.record_depth - 1 + i // 9) % PLAIN.record_depth, i % 9], word)


def test_rows_may_overlap_and_run_backwards() -> None:
    """The row step is added modulo 2**32; the later store stays."""
    bench = Bench()
    source = bench.place(np.arange(64))
    target = bench.place(bytes(64))
    bench.add(Opcode.LOAD, memory_addr=source, pixels=15, spad_pixel=1, post=STORE)
    bench.add(Opcode.STORE, memory_addr=target + 16, memory_row=2**32 - 4, rows=3, pixels=1, spad_pixel=1, spad_row_bank=2, wait=LOAD)
    bench.run()
    expected = bytearray(64)
    for row, pixel in itertools.product(range(4), range(2)):
        at = 16 - 4 * row + 4 * pixel
        expected[at : at + 4] = bytes(range(4 * (2 * row + pixel), 4 * (2 * row + pixel) + 4))
    assert bench.memory[target : target + 64].tobytes() == bytes(expected)


def store_bench(**values: int) -> tuple[Bench, int]:
    """32 words (bytes 1..128) loaded into the array scratchpad, bank after bank from address 0, and a STORE of them to zeros."""
    bench = Bench()
    source = bench.place(np.arange(1, 129))
    target = bench.place(bytes(256))
    bench.add(Opcode.LOAD, memory_addr=source, pixels=31, spad_pixel=1, post=STORE)
    bench.add(
        Opcode.STORE,
        **(
            {
                "memory_addr": target,
                "memory_row": 32,
                "rows": 3,
                "pixels": 7,
                "spad_pixel": 1,
                "spad_row_bank": 2,
                "spad_row_addr": 2,
                "wait": LOAD,
            }
            | values
        ),
    )
    return bench, target


@pytest.mark.parametrize("words", [0, 1, 7, 8, 9, 31])
def test_store_stops_at_the_end_of_the_region(words: int) -> None:
    """Words before the one that would leave it are in memory, no byte of any other."""
    bench, target = store_bench()
    result = bench.run(write_base=target, write_end=target + 4 * words + 3)
    assert (result.fault, result.fault_index, result.executed) == (Fault.MEMORY_RANGE, 1, [0])
    assert bench.memory[target : target + 256].tolist() == [*range(1, 4 * words + 1), *[0] * (256 - 4 * words)]


def test_store_before_the_region() -> None:
    """The region's first byte counts too."""
    bench, target = store_bench()
    result = bench.run(write_base=target + 1)
    assert (result.fault, result.fault_index) == (Fault.MEMORY_RANGE, 1)
    assert not bench.memory[target : target + 256].any()
    bench, target = store_bench()
    assert bench.run(write_base=target, write_end=target + 128).fault is Fault.NONE


def test_store_stops_at_the_end_of_the_scratchpad() -> None:
    """The words before it are in memory."""
    bench, target = store_bench(spad_addr=PLAIN.array_depth - 3, spad_bank=1)
    result = bench.run()
    assert (result.fault, result.fault_index) == (Fault.SCRATCHPAD_RANGE, 1)
    bench, target = store_bench(spad_row_addr=PLAIN.array_depth)
    result = bench.run()
    assert (result.fault, result.fault_index) == (Fault.SCRATCHPAD_RANGE, 1)
    assert bench.memory[target : target + 256].tolist() == [*range(1, 33), *[0] * 224]


@pytest.mark.parametrize(("words", "fault"), [(8, Fault.MEMORY_RANGE), (9, Fault.SCRATCHPAD_RANGE)])
def test_the_memory_side_is_checked_first(words: int, fault: Fault) -> None:
    """Of a word that fails on both sides."""
    bench, target = store_bench(spad_row_addr=PLAIN.array_depth)
    result = bench.run(write_base=target, write_end=target + 4 * words)
    assert (result.fault, result.fault_index) == (fault, 1)


@pytest.mark.parametrize("space", [Space.ARRAY, Space.WEIGHT])
def test_load_stops_at_the_end_of_the_region(space: Space) -> None:
    """On both kinds of memory on chip."""
    bench = Bench()
    assert bench.place(np.full(64, 7)) == 0
    bench.add(Opcode.LOAD, space=space, pixels=7, spad_pixel=1)
    size = 4 if space is Space.ARRAY else 8
    result = bench.run(read_end=3 * size + 1)
    assert (result.fault, result.fault_index) == (Fault.MEMORY_RANGE, 0)
    words = result.state.array.banks.transpose(1, 0, 2).reshape(-1, K) if space is Space.ARRAY else result.state.linear[space]
    assert words.any(axis=1).nonzero()[0].tolist() == [0, 1, 2]


def test_a_pixel_past_the_depth_after_a_circular_wrap() -> None:
    """The wrap subtracts once, so a step too long leaves the scratchpad."""
    bench = Bench()
    bench.place(bytes(64))
    values = {"rows": 1, "spad_pixel": 1, "spad_limit": 600, "spad_span": 10}
    bench.add(Opcode.LOAD, **values, spad_row_addr=599)
    assert bench.run().fault is Fault.SCRATCHPAD_RANGE
    bench = Bench()
    bench.place(bytes(64))
    bench.add(Opcode.LOAD, **values | {"spad_span": 89}, spad_row_addr=600)
    bench.add(Opcode.LOAD, **values | {"spad_span": 88}, spad_row_addr=600)
    assert (result := bench.run()).fault is Fault.SCRATCHPAD_RANGE
    assert result.fault_index == 1


def test_memory_that_is_too_short_is_the_callers_mistake() -> None:
    """A region past the end of the array is no fault of the program."""
    bench = Bench()
    bench.add(Opcode.LOAD, memory_addr=1 << 20, spad_pixel=1)
    with pytest.raises(
        ValueError, match=r"^memory must hold address 0x100003, but has 0xa0 bytes \(give more memory or a smaller region\)$"
    ):
        bench.run(read_end=1 << 21)


def test_words_of_a_place() -> None:
    """The test's own arithmetic, by hand."""
    place = Place(PLAIN, height=2, width=4, groups=2, bank=2, addr=10)
    assert [place.locate(1, x) for x in range(3)] == [(0, 14), (1, 14), (2, 14)]
    assert place.delta(rows=1) == (1, 2)
