"""Plain-Python models for the tests of data movement: the walk of LOAD and STORE, and a memory on a Wishbone bus."""

import random
from collections import deque
from dataclasses import dataclass, field

from tercel.hw.config import Config
from tercel.hw.isa import Fault, Space

SPAN = 1 << 32
WRAP = 1 << 14


def memory_word_bytes(config: Config, space: int) -> int:
    """Bytes of a word outside, from the README's list."""
    return {
        Space.ARRAY: config.lanes,
        Space.WINDOW: config.lanes,
        Space.WEIGHT: config.weight_word_bytes,
        Space.PARAMETER: config.parameter_word_bytes,
        Space.RECORD: config.lanes,
        Space.DEPTHWISE_PARAMETER: config.depthwise_parameter_word_bytes,
        Space.THRESHOLD: config.threshold_word_bytes,
    }[Space(space)]


def memory_depth(config: Config, space: int) -> int:
    """Words of a memory; of a bank for scratchpads."""
    return {
        Space.ARRAY: config.array_depth,
        Space.WINDOW: config.window_depth,
        Space.WEIGHT: config.weight_depth,
        Space.PARAMETER: config.parameter_depth,
        Space.RECORD: config.record_depth,
        Space.DEPTHWISE_PARAMETER: config.record_depth,
        Space.THRESHOLD: config.threshold_depth,
    }[Space(space)]


def walk(config: Config, fields: dict[str, int]):
    """Memory byte address and place on chip, (bank, addr) or (tap, record) or (0, word), of every word in order."""
    space = fields["space"]
    size = memory_word_bytes(config, space)
    bank, addr = fields["spad_bank"], fields["spad_addr"]
    count = 0
    for row in range(fields["rows"] + 1):
        if row:
            total = bank + fields["spad_row_bank"]
            addr = (addr + fields["spad_row_addr"] + (fields["spad_pixel"] if total >= config.pixels else 0)) % WRAP
            bank = total % config.pixels
            if fields["spad_limit"] and addr >= fields["spad_limit"]:
                addr = (addr - fields["spad_span"]) % WRAP
        for pixel in range(fields["pixels"] + 1):
            for group in range(fields["groups"] + 1):
                words = pixel * (fields["groups"] + 1) + group
                outside = (fields["memory_addr"] + row * fields["memory_row"] + words * size) % SPAN
                if space == Space.RECORD:
                    place = (count % 9, fields["addr_linear"] + count // 9)
                elif space >= Space.WEIGHT:
                    place = (0, fields["addr_linear"] + count)
                else:
                    turns, where = divmod(bank + pixel, config.pixels)
                    place = (where, (addr + turns * fields["spad_pixel"] + group) % WRAP)
                count += 1
                yield outside, place


def word_fault(config: Config, fields: dict[str, int], outside: int, place: tuple[int, int], region: tuple[int, int]) -> Fault:
    """The fault of one word, the memory side first."""
    size = memory_word_bytes(config, fields["space"])
    if outside < region[0] or outside + size > region[1]:
        return Fault.MEMORY_RANGE
    if fields["space"] <= Space.WINDOW and place[1] >= memory_depth(config, fields["space"]):
        return Fault.SCRATCHPAD_RANGE
    return Fault.NONE


def good_words(config: Config, fields: dict[str, int], region: tuple[int, int]):
    """The words before the first fault, and that fault."""
    words = []
    for outside, place in walk(config, fields):
        fault = word_fault(config, fields, outside, place, region)
        if fault:
            return words, fault
        words.append((outside, place))
    return words, Fault.NONE


@dataclass
class WishboneMemory:
    """A memory that takes and answers beats in order; every byte that was never written is a function of its address.

    ``latency`` (least, most) cycles from a taken beat to its answer, 0 is the same cycle; ``stall`` and ``hesitate`` are probabilities of
    not taking a beat and of not answering one; beats at byte addresses in ``errors`` are refused; after ``silent_after`` answers there
    are none.
    """

    config: Config
    bus: object
    rng: random.Random
    latency: tuple[int, int] = (1, 1)
    stall: float = 0.0
    hesitate: float = 0.0
    errors: set[int] = field(default_factory=set)
    silent_after: int | None = None
    contents: dict[int, int] = field(default_factory=dict)
    taken: list[tuple[int, int, int]] = field(default_factory=list)
    most_pending: int = 0
    answers: int = 0

    def read(self, address: int, count: int) -> int:
        """``count`` bytes, little-endian."""
        values = (self.contents.get((address + i) % SPAN, (address + i) * 0x9E3779B1 >> 11 & 0xFF) for i in range(count))
        return int.from_bytes(bytes(values), "little")

    def write(self, address: int, value: int, count: int) -> None:
        """``count`` bytes, little-endian."""
        for i in range(count):
            self.contents[address + i] = value >> 8 * i & 0xFF

    async def run(self, ctx) -> None:
        """The testbench; one iteration is one cycle."""
        bus, width = self.bus, self.config.memory_width
        pending: deque[tuple[int, int, int, int]] = deque()
        cycle = 0
        while True:
            stalled = self.rng.random() < self.stall
            ctx.set(bus.stall, stalled)
            assert not (ctx.get(bus.stb) and not ctx.get(bus.cyc))
            if not ctx.get(bus.cyc):
                pending.clear()
            if ctx.get(bus.stb) and not stalled:
                assert ctx.get(bus.sel) == (1 << width) - 1
                address, we = ctx.get(bus.adr) * width, ctx.get(bus.we)
                due = cycle + self.rng.randint(*self.latency)
                pending.append((due, address, we, ctx.get(bus.dat_w)))
                self.taken.append((cycle, address, we))
            self.most_pending = max(self.most_pending, len(pending))
            quiet = self.silent_after is not None and self.answers >= self.silent_after
            ack = err = 0
            data = self.rng.getrandbits(8 * width)
            if pending and pending[0][0] <= cycle and not quiet and self.rng.random() >= self.hesitate:
                _, address, we, value = pending.popleft()
                self.answers += 1
                if address in self.errors:
                    err, ack = 1, self.rng.randint(0, 1)
                else:
                    ack = 1
                    if we:
                        self.write(address, value, width)
                    else:
                        data = self.read(address, width)
            ctx.set(bus.ack, ack)
            ctx.set(bus.err, err)
            ctx.set(bus.dat_r, data)
            await ctx.tick()
            cycle += 1
