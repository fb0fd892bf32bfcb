"""A program: instructions, the memory image around them and what the bytes mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tercel.hw.config import Config
from tercel.hw.isa import INSTRUCTION_BYTES, Opcode, decode, encode
from tercel.sw.image_format import ImageFormat
from tercel.sw.tensor_layout import Integers, ceil_div, pack_tensor, unpack_tensor

if TYPE_CHECKING:
    from tercel.sw.graph.integer_graph import IntegerGraph
    from tercel.sw.host import HostGraph

class ProgramError(ValueError):
    """A program that cannot be read or run. The message names the field, what was expected and what was found."""


@dataclass(frozen=True)
class Segment:
    """Bytes at an address of external memory."""

    name: str
    address: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output tensor in external memory: ``[height][columns][channel groups][lanes]`` bytes from ``address`` on.

    ``fold`` pixels side by side, a divisor of the width, are one column, with all their channels one after the other.
    """

    name: str
    address: int
    shape: tuple[int, int, int]
    lanes: int
    signed: bool
    fold: int = 1

    @property
    def columns(self) -> int:
        """Columns of a row."""
        return self.shape[1] // self.fold

    @property
    def groups(self) -> int:
        """Channel groups of a column."""
        return ceil_div(self.shape[2] * self.fold, self.lanes)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self.shape[0] * self.columns * self.groups * self.lanes

    def read(self, memory: npt.NDArray[np.uint8]) -> Integers:
        """The tensor's ``[height, width, channels]`` codes out of a memory dump that begins at address 0."""
        data = memory[self.address : self.address + self.size]
        return unpack_tensor(data, shape=self._folded, lanes=self.lanes, signed=self.signed).reshape(self.shape)

    @property
    def _folded(self) -> tuple[int, int, int]:
        return self.shape[0], self.columns, self.shape[2] * self.fold

    def pack(self, codes: Integers) -> bytes:
        """The bytes of ``codes``; :class:`ProgramError` for another shape or a code out of range."""
        if codes.shape != self.shape:
            raise ProgramError(f"{self.name} must have shape {list(self.shape)}, not {list(codes.shape)} (height, width, channels)")
        low, high = (-128, 127) if self.signed else (0, 255)
        if codes.size and (codes.min() < low or codes.max() > high):
            raise ProgramError(f"{self.name} must hold codes in {low}..{high}, not {codes.min()}..{codes.max()} (quantize it first)")
        return pack_tensor(codes.reshape(self._folded), lanes=self.lanes)


@dataclass(frozen=True, kw_only=True)
class LayerMark:
    """Which instructions belong to a layer.

    Parameters
    ----------
    name
        The layer's name in its network.
    kind
        As in :class:`~tercel.sw.layer_spec.LayerSpec`; ``concat`` for a concatenation that takes instructions of its own.
    engine
        ``array``, ``depthwise`` or, where nothing is computed, ``load``.
    instructions
        Ranges of indices, first and last, in ascending order; the layer's loads and stores among them. Those of different layers may
        interleave but share no index.
    macs
        Useful multiply-accumulates, digit planes not counted.
    digits
        Digit planes of its weights; 1 on the depthwise engine.
    group
        Layers of one group pass tensors to each other on chip; groups count from 0 in program order.
    """

    name: str
    kind: str
    engine: str
    instructions: tuple[tuple[int, int], ...]
    macs: int
    digits: int
    group: int = 0

    def indices(self) -> list[int]:
        """All its instructions."""
        return [index for first, last in self.instructions for index in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program for one :class:`~tercel.hw.config.Config`.

    Parameters
    ----------
    words
        The 640-bit instructions; they lie at ``program_base``.
    segments
        Everything else that memory holds at the start. The rest is 0.
    read_base, read_end, write_base, write_end
        The byte ranges that LOAD may read and STORE may write.
    memory_bytes
        Size of the memory, addresses from 0.
    inputs, outputs
        Tensors in memory; compiled networks name them like the graph's tensors.
    marks
        One a layer.
    graph
        The network, where the program was compiled from one. It does not count when programs are compared.
    image_format
        How photographs become the network's input, where that is known. It does not count either.
    host_head, host_tail
        What the host computes before and after the layers of ``graph``, None where that is nothing. They do not count either.
        :class:`~tercel.sw.host.HostError` if they do not fit the graph.
    """

    config: Config
    words: tuple[int, ...]
    segments: tuple[Segment, ...]
    program_base: int
    read_base: int
    read_end: int
    write_base: int
    write_end: int
    memory_bytes: int
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    marks: tuple[LayerMark, ...] = ()
    graph: "IntegerGraph | None" = field(default=None, compare=False, repr=False)
    image_format: ImageFormat | None = field(default=None, compare=False)
    host_head: "HostGraph | None" = field(default=None, compare=False)
    host_tail: "HostGraph | None" = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.on_host:
            from tercel.sw.host import check_ends

            if self.graph is None:
                raise ProgramError("graph must be given with operators on the host, not left out (they read and make its tensors)")
            check_ends(self.graph, self.host_head, self.host_tail)

    @property
    def on_host(self) -> bool:
        """Whether the host computes a part of the network."""
        return self.host_head is not None or self.host_tail is not None

    def instructions(self) -> list[tuple[Opcode, dict[str, int]]]:
        """The decoded instructions; :class:`~tercel.hw.isa.IsaError` for a word that is none."""
        return [decode(word) for word in self.words]

    def memory(self, inputs: Mapping[str, Integers] | None = None) -> npt.NDArray[np.uint8]:
        """The whole memory at the start, with ``inputs`` by name in place of the ones stored in the program."""
        image = np.zeros(self.memory_bytes, dtype=np.uint8)

        def place(address: int, data: bytes) -> None:
            image[address : address + len(data)] = np.frombuffer(data, dtype=np.uint8)

        for segment in self.segments:
            place(segment.address, segment.data)
        place(self.program_base, instruction_bytes(self.words))
        ports = {port.name: port for port in self.inputs}
        for name, codes in (inputs or {}).items():
            if name not in ports:
                raise ProgramError(f"input must be one of {', '.join(ports) or 'none'}, not {name!r} (the program's inputs)")
            place(ports[name].address, ports[name].pack(codes))
        return image

    def read_outputs(self, memory: npt.NDArray[np.uint8]) -> dict[str, Integers]:
        """The output tensors' codes out of a dump of the whole memory."""
        return {port.name: port.read(memory) for port in self.outputs}

    def to_bytes(self) -> bytes:
        """The content of a ``.tnpu`` file, see :mod:`tercel.sw.program_file`."""
        from tercel.sw.program_file import program_to_bytes

        return program_to_bytes(self)

    def save(self, path: Path | str) -> None:
        """Write a ``.tnpu`` file."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes, *, config: Config | None = None) -> "Program":
        """Read the content of a ``.tnpu`` file; :class:`ProgramError` if it is damaged, of another version or not for ``config``."""
        from tercel.sw.program_file import program_from_bytes

        return program_from_bytes(data, config=config)

    @classmethod
    def load(cls, path: Path | str, *, config: Config | None = None) -> "Program":
        """Read a ``.tnpu`` file, as :meth:`from_bytes`."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ProgramError(f"{path} cannot be read: {error.strerror}") from error
        return cls.from_bytes(data, config=config)


def check_config(own: Config, machine: Config) -> None:
    """:class:`ProgramError` unless a program for ``own`` runs on ``machine``; it names every parameter that differs."""
    if own.hash != machine.hash:
        differences = ", ".join(
            f"{field.name} is {getattr(own, field.name)!r} there and {getattr(machine, field.name)!r} here"
            for field in fields(Config)
            if field.name != "name" and getattr(own, field.name) != getattr(machine, field.name)
        )
        raise ProgramError(f"config of the program must be that of the machine, but {differences} (compile it for {machine.name!r})")


def make_words(instructions: list[tuple[Opcode, dict[str, int]]]) -> tuple[int, ...]:
    """Encoded instructions. ``values`` may hold ``opcode`` or not."""
    return tuple(encode(opcode, {name: value for name, value in values.items() if name != "opcode"}) for opcode, values in instructions)


def instruction_bytes(words: tuple[int, ...]) -> bytes:
    """The words as they lie in memory."""
    return b"".join(word.to_bytes(INSTRUCTION_BYTES, "little") for word in words)
