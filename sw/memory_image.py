"""External memory of a program: what is read, what is written, then the instructions."""

from dataclasses import dataclass, field

from tercel.hw.config import Config
from tercel.hw.isa import INSTRUCTION_BYTES
from tercel.sw.emitter import Instruction
from tercel.sw.program import LayerMark, Port, Program, Segment, make_words
from tercel.sw.tensor_layout import Integers

ALIGNMENT = 64
_FIRST_ADDRESS = 256


def _aligned(address: int) -> int:
    return -(-address // ALIGNMENT) * ALIGNMENT


@dataclass
class MemoryImage:
    """Gives addresses to data, inputs and outputs. Address 0 stays unused, so that a zero is out of range.

    ``prefix`` begins the names of what is added; it may change in between.
    """

    config: Config
    prefix: str = ""
    _segments: list[Segment] = field(default_factory=list)
    _inputs: list[Port] = field(default_factory=list)
    _outputs: list[Port] = field(default_factory=list)
    _written: list[Port] = field(default_factory=list)
    _end: int = _FIRST_ADDRESS
    _read_end: int = _FIRST_ADDRESS

    def add_data(self, name: str, data: bytes) -> int:
        """Address of constant bytes."""
        address = self._end
        self._segments.append(Segment(self.prefix + name, address, data))
        self._read_end = address + len(data)
        self._end = _aligned(self._read_end)
        return address

    def add_input(self, name: str, codes: Integers, *, signed: bool, fold: int = 1) -> Port:
        """An input tensor with the codes it holds until others are given; ``fold`` as in :class:`~tercel.sw.program.Port`."""
        height, width, channels = codes.shape
        shape = (height, width, channels)
        port = Port(name=self.prefix + name, address=self._end, shape=shape, lanes=self.config.lanes, signed=signed, fold=fold)
        self.add_data(name, port.pack(codes))
        self._inputs.append(port)
        return port

    def add_output(self, name: str, shape: tuple[int, int, int], *, signed: bool) -> Port:
        """Room for an output tensor."""
        port = self._room(name, shape, signed=signed)
        self._outputs.append(port)
        self._written.append(port)
        return port

    def add_tensor(self, name: str, shape: tuple[int, int, int], *, signed: bool) -> Port:
        """Room for a tensor that is written first and read later."""
        port = self._room(name, shape, signed=signed)
        self._written.append(port)
        self._read_end = port.address + port.size
        return port

    def share_output(self, port: Port) -> None:
        """Make a tensor of :meth:`add_tensor` an output too."""
        self._outputs.append(port)

    def _room(self, name: str, shape: tuple[int, int, int], *, signed: bool) -> Port:
        port = Port(name=self.prefix + name, address=self._end, shape=shape, lanes=self.config.lanes, signed=signed)
        self._end = _aligned(self._end + port.size)
        return port

    def program(self, instructions: list[Instruction], marks: tuple[LayerMark, ...]) -> Program:
        """The finished program."""
        return Program(
            config=self.config,
            words=make_words(instructions),
            segments=tuple(self._segments),
            program_base=self._end,
            read_base=_FIRST_ADDRESS,
            read_end=self._read_end,
            write_base=min(port.address for port in self._written),
            write_end=max(port.address + port.size for port in self._written),
            memory_bytes=_aligned(self._end + len(instructions) * INSTRUCTION_BYTES),
            inputs=tuple(self._inputs),
            outputs=tuple(self._outputs),
            marks=marks,
        )
