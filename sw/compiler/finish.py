"""Tokens, fences and marks: from ordered operations to the program."""

from tercel.hw.isa import Opcode
from tercel.sw.compiler.trace import Trace
from tercel.sw.emitter import Emitter, Instruction


def give_tokens(trace: Trace, order: list[int]) -> list[Instruction]:
    """The operations in the order ``order`` with tokens and fences, and a HALT. :class:`~tercel.sw.emitter.TokenError` if tokens run out."""
    emitter = Emitter()
    places: dict[int, int] = {}
    for index in order:
        operation = trace.operations[index]
        places[index] = emitter.add(operation.opcode, operation.values, after=[places[other] for other in operation.after])
    return emitter.finish()


def ranges(indices: list[int]) -> tuple[tuple[int, int], ...]:
    """First and last of each run of ascending ``indices``."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and found[-1][1] == index - 1:
            found[-1] = (found[-1][0], index)
        else:
            found.append((index, index))
    return tuple(found)


def engine_name(opcode: Opcode) -> str:
    """As in :class:`~tercel.sw.program.LayerMark`."""
    return opcode.name.lower()
