"""A program with its memory, and tensors in scratchpads, for tests of the golden model: all addresses in plain Python."""

from dataclasses import dataclass

import numpy as np

from tercel.hw.config import Config
from tercel.hw.isa import INSTRUCTION_BYTES, Opcode, Space, encode
from tercel.sim.golden import GoldenResult, run_golden

PLAIN = Config(
    pixels=3,
    lanes=4,
    outputs=8,
    drain_lanes=2,
    array_depth=512,
    window_depth=512,
    weight_depth=1024,
    parameter_depth=64,
    record_depth=64,
    threshold_depth=1024,
    memory_width=2,
)


class Bench:
    """Collects data and instructions; every byte of memory may be read and written."""

    def __init__(self, config: Config = PLAIN) -> None:
        self.config = config
        self.data = bytearray()
        self.program: list[int] = []
        self.memory = np.zeros(0, dtype=np.uint8)

    def place(self, data: bytes | np.ndarray) -> int:
        """Put bytes into memory; their address."""
        self.data += bytes(-len(self.data) % 16)
        addr = len(self.data)
        self.data += data if isinstance(data, bytes) else data.astype(np.uint8).tobytes()
        return addr

    def add(self, opcode: Opcode, **values: int) -> int:
        """Append an instruction; its index."""
        self.program.append(encode(opcode, values))
        return len(self.program) - 1

    def load_linear(self, space: Space, words: np.ndarray, addr: int = 0, **values: int) -> None:
        """LOAD of ``words[count, bytes]``."""
        self.add(Opcode.LOAD, space=space, memory_addr=self.place(words), pixels=len(words) - 1, addr_linear=addr, **values)

    def run(self, *, halt: bool = True, **regions: int) -> GoldenResult:
        """Run all that was added; ``memory`` then holds the external memory."""
        if halt:
            self.add(Opcode.HALT)
        base = self.place(b"".join(word.to_bytes(INSTRUCTION_BYTES, "little") for word in self.program))
        self.memory = np.frombuffer(bytes(self.data), dtype=np.uint8).copy()
        end = len(self.memory)
        arguments = {"read_base": 0, "read_end": end, "write_base": 0, "write_end": end, **regions}
        return run_golden(self.config, self.memory, program_base=base, program_count=len(self.program), **arguments)


@dataclass
class Place:
    """Where a tensor ``[height, width, groups * K]`` lies in a scratchpad.

    ``row_words`` 0: pixel follows pixel over the ends of rows. Otherwise rows start that many words apart in bank ``bank``; with
    ``capacity`` they go round a buffer of so many rows, row 0 at its row ``first``.
    """

    config: Config
    height: int
    width: int
    groups: int
    bank: int
    addr: int
    row_words: int = 0
    capacity: int = 0
    first: int = 0

    def locate(self, y: int, x: int) -> tuple[int, int]:
        """Bank and address of a pixel, also left of, above or past the tensor."""
        if self.row_words:
            row = (self.first + y) % self.capacity if self.capacity else y
            carry, bank = divmod(self.bank + x, self.config.pixels)
            return bank, (self.addr + row * self.row_words + carry * self.groups) % 2**14
        carry, bank = divmod(self.bank + y * self.width + x, self.config.pixels)
        return bank, (self.addr + carry * self.groups) % 2**14

    def delta(self, *, rows: int = 0, pixels: int = 0) -> tuple[int, int]:
        """The delta of so many rows and pixels."""
        if not self.row_words:
            pixels += rows * self.width
            rows = 0
        if self.capacity:
            rows %= self.capacity
        carry, bank = divmod(pixels, self.config.pixels)
        return bank, (carry * self.groups + rows * self.row_words) % 2**14

    def fields(self, prefix: str, *, y: int = 0, x: int = 0, rows: int = 1) -> dict[str, int]:
        """Pointer, row delta of ``rows`` rows, pixel, limit and span."""
        values = {f"{prefix}_pixel": self.groups}
        values[f"{prefix}_bank"], values[f"{prefix}_addr"] = self.locate(y, x)
        values[f"{prefix}_row_bank"], values[f"{prefix}_row_addr"] = self.delta(rows=rows)
        if self.capacity:
            values[f"{prefix}_span"] = self.capacity * self.row_words
            # Pointers of rows stand at column x, so the buffer ends for them where that column of the row past it would be.
            carry = (self.bank + x) // self.config.pixels
            values[f"{prefix}_limit"] = (self.addr + self.capacity * self.row_words + carry * self.groups) % 2**14
        return values

    def transfer(self, bench: Bench, opcode: Opcode, space: Space, addr: int, **values: int) -> None:
        """LOAD or STORE of the whole tensor, dense in memory."""
        bench.add(
            opcode,
            space=space,
            memory_addr=addr,
            memory_row=self.width * self.groups * self.config.lanes,
            rows=self.height - 1,
            pixels=self.width - 1,
            groups=self.groups - 1,
            **self.fields("spad"),
            **values,
        )


def random_place(rng: np.random.Generator, config: Config, *, height: int, width: int, groups: int, first_word: int) -> Place:
    """One of the three ways to lay a tensor out, from word ``first_word`` on."""
    bank = int(rng.integers(config.pixels))
    kind = rng.integers(3)
    if kind == 0:
        return Place(config, height, width, groups, bank, first_word)
    row_words = -(-(bank + width) // config.pixels) * groups + int(rng.integers(3))
    if kind == 1:
        return Place(config, height, width, groups, bank, first_word, row_words)
    capacity = height + int(rng.integers(2))
    return Place(config, height, width, groups, bank, first_word, row_words, capacity, int(rng.integers(capacity)))


def as_code(byte: int, *, signed: bool) -> int:
    """A stored byte as an activation code."""
    return byte - 256 if signed and byte > 127 else byte


def register(value: int, bits: int) -> int:
    """``value`` in a signed register."""
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def requantized(v: int, *, multiplier: int, exponent: int, residual: int = 0) -> int:
    """One rounding, half up."""
    return (v * multiplier + residual + (1 << exponent >> 1)) >> exponent


def total_shift(e: int, *, multiplier_bits: int, narrow: bool = False) -> int:
    """E + s as the machine takes it."""
    first, count = (multiplier_bits // 4 * 4, 16) if narrow else (8 if multiplier_bits >= 12 else 0, 32)
    while e < first:
        e += count
    while e >= first + count:
        e -= count
    return e


def parameter_words(
    config: Config, bias: np.ndarray, shift: np.ndarray, multiplier: np.ndarray, *, channels: int, word_bytes: int
) -> np.ndarray:
    """Parameter memory words of ``channels`` entries each, padded to ``word_bytes``."""
    words = np.zeros((len(bias) // channels, word_bytes), dtype=np.uint8)
    for n, entry in enumerate(zip(bias.tolist(), shift.tolist(), multiplier.tolist(), strict=True)):
        b, s, m = entry
        data = b.to_bytes(4, "little", signed=True) + bytes([s | 0xA0, 0x5A]) + m.to_bytes(2, "little")
        words[n // channels, 8 * (n % channels) : 8 * (n % channels) + 8] = list(data)
    return words
