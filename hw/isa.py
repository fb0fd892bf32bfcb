"""The instruction set, spelled once.

An instruction is 640 bits (80 bytes, little-endian). Each opcode is a table of :class:`Field`; the Amaranth layout that the
gateware decodes with, the encoder, the decoder, the assembler and the reference page are all made from these tables.

A *pointer* names a pixel in a scratchpad: ``bank`` in 0..P-1 and ``addr``, the word address of the pixel's first channel group
in that bank. Pixel ``i`` of a tensor whose pixel 0 is ``(bank, addr)`` lies in bank ``(bank + i) mod P`` at
``addr + ((bank + i) div P) * pixel``, where ``pixel`` is the tensor's number of channel groups. A *delta* has the same two parts;
adding it adds the banks, carries ``pixel`` words when they reach P, and adds the addresses. Addresses are 14 bits and
wrap at 2**14. Rows may live in a circular buffer: whenever a row delta (``in_row``, ``in_ky``, ``out_row``, ``res_row``,
``spad_row``) has been added and the address is at or above ``limit``, ``span`` is subtracted once (a ``limit`` of 0 means never).
An access at or past a scratchpad's depth is a fault. The linear memories (weights, parameters, records, thresholds) are rings:
their addresses wrap at the depth, but a start address at or past it is a fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data

ISA_VERSION = 2
"""Grows with every change of what an instruction's bits mean; machines and program files tell it."""
INSTRUCTION_BITS = 640
INSTRUCTION_BYTES = INSTRUCTION_BITS // 8
ADDR_BITS = 14
TOKEN_MAX = 15
QUEUE_DEPTH = 2
"""Instructions that wait at one engine besides the one it runs."""


class Engine(IntEnum):
    """The four instruction queues. The value is the bit in ``wait`` and ``post`` masks."""

    LOAD = 0
    ARRAY = 1
    DEPTHWISE = 2
    STORE = 3


class Opcode(IntEnum):
    """0 is no opcode, so that cleared memory is a fault."""

    HALT = 1
    SYNC = 2
    LOAD = 3
    STORE = 4
    ARRAY = 5
    DEPTHWISE = 6


class Space(IntEnum):
    """On-chip memories as LOAD targets; STORE reads the two scratchpads only."""

    ARRAY = 0
    WINDOW = 1
    WEIGHT = 2
    PARAMETER = 3
    RECORD = 4
    DEPTHWISE_PARAMETER = 5
    THRESHOLD = 6


class Mode(IntEnum):
    """What the depthwise engine computes."""

    CONV = 0
    MAX = 1
    MATRIX_VECTOR = 2
    AVERAGE = 3


class Fault(IntEnum):
    """Status codes. The fault register also holds the index of the instruction."""

    NONE = 0
    ILLEGAL_OPCODE = 1
    ILLEGAL_FIELD = 2
    SCRATCHPAD_RANGE = 3
    MEMORY_RANGE = 4
    BUS_ERROR = 5
    BUS_TIMEOUT = 6
    DEADLOCK = 7
    PROGRAM_END = 8


@dataclass(frozen=True)
class Field:
    """One field: its name, shape and meaning (value range and unit)."""

    name: str
    shape: Shape
    doc: str


def _u(name: str, width: int, doc: str) -> Field:
    return Field(name, unsigned(width), doc)


def _s(name: str, width: int, doc: str) -> Field:
    return Field(name, signed(width), doc)


def _pointer(prefix: str, doc: str) -> list[Field]:
    return [_u(f"{prefix}_bank", 4, f"{doc}: bank, 0..P-1"), _u(f"{prefix}_addr", ADDR_BITS, f"{doc}: word address")]


def _wrap(prefix: str) -> list[Field]:
    return [
        _u(f"{prefix}_limit", ADDR_BITS, f"{prefix} addresses at or above this wrap; 0: never"),
        _u(f"{prefix}_span", ADDR_BITS, f"{prefix} words subtracted when they do"),
    ]


_HEADER = [
    _u("opcode", 4, "see Opcode"),
    _u("wait", 4, "engines from which one token each is taken before the start"),
    _u("post", 4, "engines to which one token each is given when all writes have landed"),
    _u("fence", 1, "start only when the engine's own earlier writes have landed"),
]

_REQUANTIZE = [
    _u("multiplier", 16, "M, the layer's multiplier (ignored where the config stores M per channel)"),
    _u("shift", 6, "E, 8..39, or 1..31 where M has fewer than 12 bits; E + s is taken modulo 32 in that range, s the channel's shift"),
    _s("z_out", 9, "output zero point"),
    _s("lo", 9, "lower clamp"),
    _s("hi", 9, "upper clamp"),
]

_GEOMETRY = [
    _u("stride", 2, "stride - 1 in both directions"),
    _u("dilation_x", 4, "input pixels between kernel columns, 1..15"),
    _u("dilation_y", 4, "input rows between kernel rows, 1..15"),
    _u("kernel_width", 4, "kernel columns - 1"),
    _u("kernel_height", 4, "kernel rows - 1"),
    _s("x_start", 8, "input column of output column 0 and kernel column 0: minus the left padding"),
    _s("y_start", 13, "input row of the first output row and kernel row 0"),
    _u("in_width", 12, "input columns; columns outside 0..in_width-1 read as z_in"),
    _u("in_height", 12, "input rows; rows outside 0..in_height-1 read as z_in"),
    _u("out_width", 12, "output columns - 1"),
    _u("rows", 10, "output rows - 1"),
]

_INPUT = [
    *_pointer("in", "pixel (first input row, column x_start), channel group 0"),
    *_pointer("in_kx", "delta of one kernel column (dilation_x pixels)"),
    *_pointer("in_ky", "delta of one kernel row (dilation_y rows)"),
    *_pointer("in_row", "delta of one output row (stride rows)"),
    _u("in_pixel", ADDR_BITS, "channel groups of the input tensor: words between pixels i and i+P"),
    *_wrap("in"),
]

_OUTPUT = [
    _u("out_space", 1, "scratchpad written: 0 array, 1 window"),
    *_pointer("out", "output pixel (first row, column 0), channel group 0"),
    *_pointer("out_row", "delta of one output row"),
    _u("out_pixel", ADDR_BITS, "channel groups of the output tensor"),
    *_wrap("out"),
]

_MEMORY = [
    _u("space", 3, "see Space"),
    _u("memory_addr", 32, "byte address in external memory, a multiple of the memory width"),
    _u("memory_row", 32, "bytes between rows in external memory, a multiple of the memory width"),
    _u("rows", 12, "rows - 1"),
    _u("pixels", 12, "pixels of a row - 1"),
    _u("groups", 12, "words of a pixel - 1"),
    *_pointer("spad", "scratchpad: pointer of pixel 0; other spaces: addr_linear is used"),
    *_pointer("spad_row", "scratchpad: delta of one row"),
    _u("spad_pixel", ADDR_BITS, "scratchpad: channel groups of the tensor"),
    *_wrap("spad"),
    _u("addr_linear", 16, "other spaces: first word; rows, pixels and groups count words that follow one another"),
]

FIELDS: dict[Opcode, list[Field]] = {
    Opcode.HALT: [*_HEADER],
    Opcode.SYNC: [*_HEADER, _u("engine", 2, "the engine whose queue this goes through")],
    Opcode.LOAD: [*_HEADER, *_MEMORY],
    Opcode.STORE: [*_HEADER, *_MEMORY],
    Opcode.ARRAY: [
        *_HEADER,
        *_INPUT,
        *_GEOMETRY,
        _u("z_in", 8, "input zero point, fed for padding; 128 more where input codes are signed"),
        _u("in_signed", 1, "input codes are signed: the array takes them, and z_in, 128 greater than they are"),
        _u("in_tile", ADDR_BITS, "words between the inputs of tile t and t+1: stride * in_pixel"),
        _u("tiles", 10, "tiles of P pixels in an output row - 1"),
        _u("groups", 10, "input channel groups - 1"),
        _u("last_lanes", 4, "valid lanes of the last channel group - 1"),
        _u("output_groups", 10, "groups of N output channels - 1"),
        _u("digits", 2, "digit planes - 1"),
        _u("weight_addr", 16, "first weight word; the layout is [output group][plane][ky][kx][channel group], planes from the top"),
        _s("offset", 10, "factor of the sum of activations: g*c + h, c the digit offset 0, 2, 10, 42 of 1..4 planes"),
        _u("gain", 1, "g - 1"),
        _u("narrow", 1, "N/J cycles a tile instead of N: sums are taken modulo 2**18, E + s modulo 16 from 4 * (bits of M div 4) on"),
        _u("parameter_addr", 16, "first parameter word; N/J words an output group"),
        *_REQUANTIZE,
        _u("thresholds", 4, "thresholds per channel, 0: clamp"),
        _u("threshold_shared", 1, "one table for all channels"),
        _u("threshold_addr", 16, "first threshold; 16 a channel, or one table"),
        _u("residual", 1, "add a residual tensor"),
        *_pointer("res", "residual pixel of output pixel (first row, column 0)"),
        *_pointer("res_row", "delta of one output row"),
        _u("res_pixel", ADDR_BITS, "channel groups of the residual tensor"),
        *_wrap("res"),
        _u("res_multiplier", 16, "R"),
        _u("res_shift", 5, "k; k + s above 31 counts as 31"),
        _u("z_res", 8, "zero point of the residual; 128 more where residual codes are signed"),
        _u("res_signed", 1, "residual codes are signed"),
        *_OUTPUT,
    ],
    Opcode.DEPTHWISE: [
        *_HEADER,
        _u("mode", 2, "see Mode"),
        *_INPUT,
        *_GEOMETRY,
        _s("z_in", 9, "input zero point, fed for padding"),
        _u("in_signed", 1, "input codes are signed"),
        _u("groups", 10, "channel groups - 1 (matrix-vector: output groups - 1)"),
        _u("steps", 10, "matrix-vector: input channel groups - 1"),
        _u("record_addr", 16, "first weight record; its bytes are the weights, signed"),
        _u("parameter_addr", 16, "first parameter word; one a channel group"),
        *_REQUANTIZE,
        *_OUTPUT,
    ],
}

LAYOUTS: dict[Opcode, data.StructLayout] = {
    opcode: data.StructLayout({field.name: field.shape for field in table}) for opcode, table in FIELDS.items()
}
HEADER_LAYOUT = data.StructLayout({field.name: field.shape for field in _HEADER})
RESERVED_LOW = {opcode: layout.size for opcode, layout in LAYOUTS.items()}
"""First bit of an instruction that must be zero."""


class IsaError(ValueError):
    """A field that does not exist or a value that does not fit. The message names opcode, field, limit and value."""


def encode(opcode: Opcode, values: Mapping[str, int]) -> int:
    """The 640-bit word of an instruction. Fields left out are 0; ``opcode`` itself is not among ``values``."""
    word = int(opcode)
    position = 0
    rest = dict(values)
    for field in FIELDS[opcode]:
        width = field.shape.width
        value = int(opcode) if field.name == "opcode" else int(rest.pop(field.name, 0))
        low, high = (-(1 << width - 1), (1 << width - 1) - 1) if field.shape.signed else (0, (1 << width) - 1)
        if not low <= value <= high:
            raise IsaError(f"{opcode.name}.{field.name} must be in {low}..{high}, not {value} ({field.doc})")
        word |= (value & (1 << width) - 1) << position
        position += width
    if rest:
        known = ", ".join(field.name for field in FIELDS[opcode])
        raise IsaError(f"{opcode.name} has no field {next(iter(rest))!r} (its fields: {known})")
    return word


def decode(word: int) -> tuple[Opcode, dict[str, int]]:
    """Opcode and all fields of a 640-bit word. :class:`IsaError` for an unknown opcode or bits set past the last field."""
    number = word & 0xF
    if number not in Opcode._value2member_map_:
        raise IsaError(f"opcode must be one of {', '.join(f'{o.value} {o.name}' for o in Opcode)}, not {number}")
    opcode = Opcode(number)
    if word >> RESERVED_LOW[opcode]:
        raise IsaError(f"{opcode.name} must be 0 from bit {RESERVED_LOW[opcode]} on, not {word >> RESERVED_LOW[opcode]:#x}")
    values = {}
    position = 0
    for field in FIELDS[opcode]:
        width = field.shape.width
        value = word >> position & (1 << width) - 1
        if field.shape.signed and value >> width - 1:
            value -= 1 << width
        values[field.name] = value
        position += width
    return opcode, values
