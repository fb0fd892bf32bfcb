"""Programs as text: one instruction a line, ``OPCODE field=value ...``, fields that are 0 left out, ``#`` begins a comment.

``wait`` and ``post`` name engines (``wait=LOAD|STORE``); every other value is a number, decimal or with a ``0x`` prefix.
"""

from collections.abc import Iterable

from tercel.hw.isa import FIELDS, INSTRUCTION_BYTES, Engine, IsaError, Opcode, decode, encode

_MASKS = ("wait", "post")


class AssemblyError(ValueError):
    """A line that is no instruction. The message names the line, the field, the limit and the value."""


def disassemble(words: Iterable[int]) -> str:
    """One line an instruction, in order of the fields in the word; its index follows as a comment.

    A word that is no instruction becomes ``.word 0x...``, so any program can be shown and assembled again.
    """
    lines = []
    for index, word in enumerate(words):
        try:
            opcode, values = decode(word)
            parts = [opcode.name]
            for name, value in values.items():
                if name != "opcode" and value:
                    parts.append(f"{name}={_mask_text(value) if name in _MASKS else value}")
        except IsaError:
            parts = [".word", f"{word:#x}"]
        lines.append(f"{' '.join(parts)}  # {index}\n")
    return "".join(lines)


def assemble(text: str) -> list[int]:
    """The instructions of ``text``; :class:`AssemblyError` for the first line that is none."""
    words = []
    for number, line in enumerate(text.splitlines(), start=1):
        parts = line.split("#", 1)[0].split()
        if parts:
            try:
                words.append(_assemble_line(parts))
            except (IsaError, AssemblyError) as error:
                raise AssemblyError(f"line {number}: {error}") from None
    return words


def _assemble_line(parts: list[str]) -> int:
    name = parts[0]
    if name == ".word":
        if len(parts) != 2:
            raise AssemblyError(f".word must have one value, not {len(parts) - 1}")
        word = _number(".word", parts[1])
        if not 0 <= word < 1 << 8 * INSTRUCTION_BYTES:
            raise AssemblyError(f".word must be in 0..2**{8 * INSTRUCTION_BYTES}-1, not {parts[1]}")
        return word
    if name not in Opcode.__members__:
        raise AssemblyError(f"opcode must be one of {', '.join(Opcode.__members__)}, not {name!r}")
    opcode = Opcode[name]
    known = [field.name for field in FIELDS[opcode] if field.name != "opcode"]
    values: dict[str, int] = {}
    for part in parts[1:]:
        field, equals, value = part.partition("=")
        if not equals:
            raise AssemblyError(f"{name} operands must be field=value, not {part!r}")
        if field not in known:
            raise AssemblyError(f"{name} has no field {field!r} (its fields: {', '.join(known)})")
        if field in values:
            raise AssemblyError(f"{name}.{field} must be given once, not twice")
        values[field] = _mask(f"{name}.{field}", value) if field in _MASKS else _number(f"{name}.{field}", value)
    return encode(opcode, values)


def _mask_text(value: int) -> str:
    return "|".join(engine.name for engine in Engine if value >> engine & 1)


def _mask(name: str, text: str) -> int:
    mask = 0
    for part in text.split("|"):
        if part not in Engine.__members__:
            raise AssemblyError(f"{name} must be engines of {', '.join(Engine.__members__)} joined by |, not {text!r}")
        mask |= 1 << Engine[part]
    return mask


def _number(name: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise AssemblyError(f"{name} must be a whole number, not {text!r}") from None
