"""LOAD and STORE: words between external memory and the memories on chip."""

from collections.abc import Mapping

import numpy as np

from tercel.hw.isa import Fault, Space
from tercel.sim.golden.pointers import Tensor
from tercel.sim.golden.state import TAPS, EngineFault, ExternalMemory, Indices, MachineState

ADDRESS_SPACE = 1 << 32


def execute_load(state: MachineState, memory: ExternalMemory, values: Mapping[str, int]) -> None:
    """Copy words into a scratchpad or a linear memory, up to the first word that is out of range (then :class:`EngineFault`)."""
    space = Space(values["space"])
    if space > Space.WINDOW:
        _load_linear(state, memory, values, space)
        return
    scratchpad, size = state.scratchpad(space), state.config.lanes
    tensor = Tensor(values, "spad", banks=state.config.pixels)
    for row, pointer in enumerate(tensor.rows(values["rows"] + 1)):
        start, count, fault = _row_extent(values, memory.read_region, row, size=size)
        bank, addr, fault = _words_inside(tensor, pointer, count, fault, groups=values["groups"] + 1, depth=scratchpad.depth)
        scratchpad.write(bank, addr, memory.span(start, len(addr) * size).reshape(-1, size))
        _raise(fault)


def _load_linear(state: MachineState, memory: ExternalMemory, values: Mapping[str, int], space: Space) -> None:
    linear = state.linear[space]
    size = linear.shape[1]
    position = values["addr_linear"] * (TAPS if space is Space.RECORD else 1)
    for row in range(values["rows"] + 1):
        start, count, fault = _row_extent(values, memory.read_region, row, size=size)
        linear[(position + np.arange(count)) % len(linear)] = memory.span(start, count * size).reshape(-1, size)
        _raise(fault)
        position += count


def execute_store(state: MachineState, memory: ExternalMemory, values: Mapping[str, int]) -> None:
    """Copy words out of a scratchpad, up to the first word that is out of range (then :class:`EngineFault`)."""
    scratchpad, size = state.scratchpad(values["space"]), state.config.lanes
    tensor = Tensor(values, "spad", banks=state.config.pixels)
    for row, pointer in enumerate(tensor.rows(values["rows"] + 1)):
        start, count, fault = _row_extent(values, memory.write_region, row, size=size)
        bank, addr, fault = _words_inside(tensor, pointer, count, fault, groups=values["groups"] + 1, depth=scratchpad.depth)
        memory.span(start, len(addr) * size)[:] = scratchpad.read(bank, addr).ravel()
        _raise(fault)


def _row_extent(values: Mapping[str, int], region: tuple[int, int], row: int, *, size: int) -> tuple[int, int, Fault]:
    """Memory address of a row, how many of its words lie inside the region before the first that does not, and that one's fault."""
    words = (values["pixels"] + 1) * (values["groups"] + 1)
    start = (values["memory_addr"] + row * values["memory_row"]) % ADDRESS_SPACE
    # A row cannot run around the end of the address space inside a region: a region ends below it.
    count = min(max((region[1] - start) // size, 0), words) if start >= region[0] else 0
    return start, count, Fault.MEMORY_RANGE if count < words else Fault.NONE


def _words_inside(
    tensor: Tensor, pointer: tuple[int, int], count: int, fault: Fault, *, groups: int, depth: int
) -> tuple[Indices, Indices, Fault]:
    """Bank and address of the first ``count`` words of a row, cut before the first outside the scratchpad, and the row's fault."""
    pixel, group = np.divmod(np.arange(count), groups)
    bank, addr = tensor.locate(pointer[0] + pixel, np.int64(pointer[1]) + group)
    outside = addr >= depth
    if outside.any():
        count = int(outside.argmax())
        return bank[:count], addr[:count], Fault.SCRATCHPAD_RANGE
    return bank, addr, fault


def _raise(fault: Fault) -> None:
    if fault is not Fault.NONE:
        raise EngineFault(fault)
