"""The instruction set's reference page, written from the tables in ``hw/isa.py`` so that it cannot drift from the gateware."""

import inspect

from tercel.hw import isa
from tercel.hw.isa import FIELDS, RESERVED_LOW, Engine, Fault, Mode, Opcode, Space

_SUMMARY = {
    Opcode.HALT: "Ends the program. It is dispatched when all queues are empty and all engines idle.",
    Opcode.SYNC: "Takes and gives tokens in the queue of one engine and does nothing else.",
    Opcode.LOAD: "Copies words from external memory into an on-chip memory, row by row.",
    Opcode.STORE: "Copies words from a scratchpad into external memory, row by row.",
    Opcode.ARRAY: "A convolution or matrix product on the systolic array, with requantization, thresholds and residual add.",
    Opcode.DEPTHWISE: "A depthwise convolution, pooling or matrix-vector product on the depthwise engine.",
}

_FAULTS = {
    Fault.NONE: "no fault",
    Fault.ILLEGAL_OPCODE: "no opcode, or DEPTHWISE without that engine",
    Fault.ILLEGAL_FIELD: "a field outside its limits, or a bit set past the last field",
    Fault.SCRATCHPAD_RANGE: "a scratchpad access at or past the depth",
    Fault.MEMORY_RANGE: "a load outside the read region or a store outside the write region",
    Fault.BUS_ERROR: "the memory answered with an error",
    Fault.BUS_TIMEOUT: "the memory did not answer",
    Fault.DEADLOCK: "nothing can move and HALT was not reached",
    Fault.PROGRAM_END: "no HALT before the end of the program",
}


def reference_page() -> str:
    """The page as Markdown."""
    notes = inspect.cleandoc(isa.__doc__ or "").replace("``", "`").replace(":class:`Field`", "fields")
    lines = [
        "# Instruction set",
        "",
        "Written by `tercel isa` from `hw/isa.py`; change it there.",
        "",
        notes,
        "",
        f"Tokens: a counter holds {isa.TOKEN_MAX}. Queues: {isa.QUEUE_DEPTH} instructions wait at an engine besides the one it runs.",
        "",
        "| opcode | name | bits used | |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {opcode.value} | [{opcode.name}](#{opcode.name.lower()}) | {RESERVED_LOW[opcode]} | {_SUMMARY[opcode]} |" for opcode in Opcode
    ]
    for opcode in Opcode:
        lines += ["", f"## {opcode.name}", "", _SUMMARY[opcode], "", *_field_table(opcode)]
    lines += ["", "## Numbered values", ""]
    lines += ["Engines (bits of `wait` and `post`; `engine` of SYNC):", "", *_value_table(Engine), ""]
    lines += ["Spaces (`space`): STORE reads the first two.", "", *_value_table(Space), ""]
    lines += ["Modes (`mode` of DEPTHWISE):", "", *_value_table(Mode), ""]
    lines += ["## Faults", "", "| code | fault | cause |", "|---|---|---|"]
    lines += [f"| {fault.value} | {fault.name} | {_FAULTS[fault]} |" for fault in Fault]
    return "\n".join(lines) + "\n"


def _field_table(opcode: Opcode) -> list[str]:
    lines = ["| bits | field | width | | meaning |", "|---|---|---|---|---|"]
    position = 0
    for field in FIELDS[opcode]:
        width = field.shape.width
        bits = f"{position + width - 1}..{position}" if width > 1 else str(position)
        lines.append(f"| {bits} | `{field.name}` | {width} | {'signed' if field.shape.signed else 'unsigned'} | {field.doc} |")
        position += width
    if position < isa.INSTRUCTION_BITS:
        lines.append(f"| {isa.INSTRUCTION_BITS - 1}..{position} | | {isa.INSTRUCTION_BITS - position} | | must be 0 |")
    return lines


def _value_table(values: type[Engine] | type[Space] | type[Mode]) -> list[str]:
    return ["| value | name |", "|---|---|", *(f"| {member.value} | {member.name} |" for member in values)]
