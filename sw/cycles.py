"""How many cycles an instruction takes, itemised by the events that the engines' counters count.

The numbers in capitals are the pipelines' overheads; the rest follows from the instruction alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from tercel.hw.config import Config
from tercel.hw.isa import INSTRUCTION_BYTES, Engine, Mode, Opcode, Space
from tercel.sw.emitter import engine_of
from tercel.sw.tensor_layout import ceil_div

ARRAY_START = 5
"""Cycles before the first step of an instruction that was there in time."""
ARRAY_ROW_START = 1
"""Cycles before the first step of a further row."""
ARRAY_ROW_CYCLES = 5
"""Fewest cycles a row takes before the next can begin."""
ARRAY_FEED_LATENCY = 8
"""From the issue of a step to the array."""
ARRAY_DRAIN_LATENCY = 13
"""From a tile's last step to its last write, besides what :func:`array_drain_latency` adds and the drain interval."""
ARRAY_DRAIN_LANES = 4
"""Requantizers of a row from which on the drain takes a cycle more."""
DEPTHWISE_START = 33
"""Cycles of an instruction besides its operations: its pipeline fills, and empties before the next one begins."""
DEPTHWISE_WALK_START = 30
"""The same, besides the walk over the first output row's kernel rows, where that is what takes longest."""
DEPTHWISE_ROWS_START = 1
"""Further cycles on a machine that takes 3 taps a cycle."""
DEPTHWISE_ROWS_RESTS = 2
"""Cycles there between a window and the next operation; in MAX mode, which does not multiply, 1 after each output."""
DEPTHWISE_KERNEL_ROW_CYCLES = 2
"""Cycles that the walk over the rows takes for a kernel row; it runs an output row ahead."""
DEPTHWISE_LATENCY = 5
"""From the end of the pipeline to the last write."""
LOAD_START = 2
"""Cycles between the requests of two LOADs."""
LOAD_LATENCY = 6
"""From the start to the last word's way into its memory, besides the beats and the memory's latency."""
LOAD_SCRATCHPAD_LATENCY = 1
"""Further cycles of a LOAD into a scratchpad."""
STORE_START = 2
"""Cycles between the reads of two STOREs."""
STORE_LATENCY = 12
"""From the start to the last acknowledge, besides the beats and the memory's latency."""
SYNC_LATENCY = 1
"""From start to end of a SYNC."""
FETCH_LATENCY = 7
"""Cycles to fetch and dispatch an instruction, besides its beats and the memory's latency."""


@dataclass(frozen=True, kw_only=True)
class InstructionCycles:
    """What one instruction costs its engine.

    Parameters
    ----------
    events
        Cycles by the engine's counters, without stalls for tokens and memory. Their sum is the time until the engine may begin the next.
    latency
        Cycles from the end of that time until all writes have landed.
    beats
        Transfers on the memory port.
    first_tile
        Of an ARRAY, cycles from the start to the last step of its first tile.
    emptying
        Of an ARRAY, cycles from its end until the next instruction's first tile may have its last step: the drain is empty before another
        instruction's tile enters it.
    writes
        Of an ARRAY or DEPTHWISE, the cycles of the above in which it writes a bank of its scratchpad (or the path to all of them), so that
        a LOAD's word for it waits.
    """

    events: Mapping[str, int]
    latency: int
    beats: int = 0
    first_tile: int = 0
    emptying: int = 0
    writes: int = 0

    @property
    def issue(self) -> int:
        """Cycles for which the engine is taken."""
        return sum(self.events.values())


def instruction_cycles(opcode: Opcode, values: Mapping[str, int], config: Config) -> InstructionCycles:
    """The cycles of any instruction but HALT, which takes none. Illegal fields do no harm; ``values`` must be decoded, hence complete."""
    match engine_of(opcode, values) if opcode is not Opcode.SYNC else None:
        case Engine.ARRAY:
            return array_cycles(values, config)
        case Engine.DEPTHWISE:
            return depthwise_cycles(values, config)
        case Engine.LOAD:
            beats = transfer_beats(values, config)
            latency = LOAD_LATENCY + (LOAD_SCRATCHPAD_LATENCY if values.get("space", 0) <= Space.WINDOW else 0)
            return InstructionCycles(events={"beat": beats, "start": LOAD_START}, latency=latency, beats=beats)
        case Engine.STORE:
            beats = transfer_beats(values, config)
            return InstructionCycles(events={"beat": beats, "start": STORE_START}, latency=STORE_LATENCY, beats=beats)
        case _:
            return InstructionCycles(events={}, latency=SYNC_LATENCY if opcode is Opcode.SYNC else 0)


def fetch_beats(config: Config) -> int:
    """Transfers on the memory port that fetch one instruction."""
    return INSTRUCTION_BYTES // config.memory_width


def transfer_beats(values: Mapping[str, int], config: Config) -> int:
    """Transfers on the memory port of a LOAD or STORE."""
    wide_words: dict[int, int] = {
        Space.WEIGHT: config.weight_word_bytes,
        Space.PARAMETER: config.parameter_word_bytes,
        Space.DEPTHWISE_PARAMETER: config.depthwise_parameter_word_bytes,
        Space.THRESHOLD: config.threshold_word_bytes,
    }
    word_bytes = wide_words.get(values.get("space", 0), config.lanes)
    words = _count(values, "rows") * _count(values, "pixels") * _count(values, "groups")
    return words * (word_bytes // config.memory_width)


def array_interval(values: Mapping[str, int], config: Config) -> int:
    """D, the fewest cycles between the last steps of two tiles."""
    if values.get("narrow", 0):
        return config.drain_groups
    return config.outputs * max(1, values.get("thresholds", 0))


def array_drain_latency(config: Config) -> int:
    """Cycles from a tile's last step to its last write, besides the drain interval; also kept between two instructions."""
    return ARRAY_DRAIN_LATENCY + (config.drain_lanes >= ARRAY_DRAIN_LANES) + config.lanes.bit_length() - 1 + config.pixels


def array_cycles(values: Mapping[str, int], config: Config) -> InstructionCycles:
    """ARRAY: every tile takes its steps (times ``gcd(stride, P)``) and its residual words, but at least the drain's interval."""
    steps = _count(values, "digits") * _count(values, "kernel_height") * _count(values, "kernel_width") * _count(values, "groups")
    residual = config.words_per_tile if values.get("residual", 0) else 0
    interval = array_interval(values, config)
    tile = steps * gcd(_count(values, "stride"), config.pixels) + residual
    rows, tiles = _count(values, "rows"), _count(values, "tiles") * _count(values, "output_groups")
    row = (tiles - 1) * max(tile, interval)
    row_start = ARRAY_ROW_START + max(0, ARRAY_ROW_CYCLES - row - tile)
    total = ARRAY_START + tile + row + (rows - 1) * (max(tile + row_start, interval) + row)
    events = {
        "step": rows * tiles * steps,
        "conflict": rows * tiles * (tile - residual - steps),
        "residual": rows * tiles * residual,
        "drain": rows * row - rows * (tiles - 1) * tile + (rows - 1) * max(0, interval - tile - row_start),
        "start": ARRAY_START + (rows - 1) * row_start,
    }
    assert sum(events.values()) == total
    emptying = array_drain_latency(config) + interval
    return InstructionCycles(
        events=events,
        latency=ARRAY_FEED_LATENCY + emptying,
        first_tile=ARRAY_START + tile,
        emptying=emptying,
        writes=rows * tiles * config.words_per_tile,
    )


def depthwise_cycles(values: Mapping[str, int], config: Config) -> InstructionCycles:
    """DEPTHWISE: one operation a cycle, plus a cycle for each further word that an operation reads from one bank.

    A machine that takes 3 taps a cycle rests after each window.
    """
    groups = _count(values, "groups")
    by_rows = config.depthwise_taps == 3
    start = DEPTHWISE_START + (DEPTHWISE_ROWS_START if by_rows else 0)
    if values.get("mode", 0) == Mode.MATRIX_VECTOR:
        records = groups * _count(values, "steps") * max(1, config.lanes // 8)
        rests = DEPTHWISE_ROWS_RESTS * (records - 1) if by_rows else 0
        return _depthwise(emit=records, fill=2 * records, conflict=0, taps=rests, start=start, writes=groups)
    maximum = values.get("mode", 0) == Mode.MAX
    walk = DEPTHWISE_KERNEL_ROW_CYCLES * _count(values, "kernel_height")
    emit = fill = conflict = late = 0
    known: dict[tuple[tuple[bool, ...], ...], tuple[int, int, int]] = {}
    row_words = _count(values, "out_width") if maximum else 0
    for row in range(_count(values, "rows")):
        blocks = _row_blocks(values, row)
        if blocks not in known:
            known[blocks] = _depthwise_row(values, config, blocks)
        row_emit, row_fill, row_conflict = known[blocks]
        emit += row_emit
        fill += row_fill
        conflict += row_conflict
        row_rests = (row_words or DEPTHWISE_ROWS_RESTS * row_emit) if by_rows else 0
        late += max(0, walk - row_emit - row_fill - row_conflict - row_rests)
    rests = 0
    if by_rows:
        rests = groups * _count(values, "rows") * row_words - 1 if maximum else DEPTHWISE_ROWS_RESTS * (groups * emit - 1)
    start += max(0, DEPTHWISE_WALK_START + walk - DEPTHWISE_START)
    start += groups * late
    writes = groups * _count(values, "rows") * _count(values, "out_width")
    return _depthwise(emit=groups * emit, fill=groups * fill, conflict=groups * conflict, taps=rests, start=start, writes=writes)


def _depthwise(*, emit: int, fill: int, conflict: int, taps: int, start: int, writes: int) -> InstructionCycles:
    events = {"emit": emit, "fill": fill, "conflict": conflict, "taps": taps, "start": start}
    return InstructionCycles(events=events, latency=DEPTHWISE_LATENCY, writes=writes)


def _count(values: Mapping[str, int], field: str) -> int:
    return values.get(field, 0) + 1


def _row_blocks(values: Mapping[str, int], row: int) -> tuple[tuple[bool, ...], ...]:
    """For each three kernel rows, which of them lie inside the image."""
    height = _count(values, "kernel_height")
    start = values["y_start"] + row * _count(values, "stride")
    inside = [0 <= start + ky * values["dilation_y"] < values["in_height"] for ky in range(height)]
    return tuple(tuple(inside[first : first + 3]) for first in range(0, height, 3))


def _is_slide(values: Mapping[str, int]) -> bool:
    """Whether neighbouring windows share columns, which are then read once."""
    small = values["kernel_width"] < 3 and values["kernel_height"] < 3 and values["stride"] < 2
    return small and values["dilation_x"] == 1 and values["mode"] != Mode.MAX


def _depthwise_row(values: Mapping[str, int], config: Config, blocks: tuple[tuple[bool, ...], ...]) -> tuple[int, int, int]:
    """Operations that complete a window, other operations and conflicts of one output row of one channel group."""
    banks = config.pixels
    width, outputs, stride = _count(values, "kernel_width"), _count(values, "out_width"), _count(values, "stride")
    dilation, x_start = values["dilation_x"], values["x_start"]
    conflict = 0

    def wait(block: int, columns: list[int]) -> int:
        """Cycles that an operation of these kernel columns, counted in input columns, waits for a bank."""
        taken = [0] * banks
        for column in columns:
            if 0 <= column < values["in_width"]:
                for row, inside in enumerate(blocks[block]):
                    if inside:
                        taken[((3 * block + row) * values["in_ky_bank"] + column) % banks] += 1
        return max(0, max(taken) - 1)

    if _is_slide(values):
        needed = {x * stride + kx for x in range(outputs) for kx in range(width)}
        operations = [[0, 1], [2]]
        operations += [list(range(3 + stride * (x - 1), 3 + stride * x)) for x in range(1, outputs)]
        conflict = sum(wait(0, [x_start + column for column in columns if column in needed]) for columns in operations)
        return outputs, 1, conflict
    for x in range(outputs):
        for block in range(len(blocks)):
            for first in range(0, width, 3):
                columns = [x_start + x * stride + kx * dilation for kx in range(first, min(first + 3, width))]
                if values["mode"] == Mode.MAX:
                    conflict += sum(wait(block, [column]) for column in columns)
                else:
                    conflict += wait(block, columns[:2]) + wait(block, columns[2:])
    if values["mode"] == Mode.MAX:
        return outputs * len(blocks) * width, 0, conflict
    windows = outputs * len(blocks) * ceil_div(width, 3)
    return windows, windows, conflict
