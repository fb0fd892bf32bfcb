"""The machine around the engines: dispatch, queues, tokens and the fault that is reported."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tercel.hw.config import Config
from tercel.hw.isa import INSTRUCTION_BYTES, QUEUE_DEPTH, TOKEN_MAX, Engine, Fault, Opcode, decode
from tercel.sim.golden.array import execute_array
from tercel.sim.golden.checks import ENGINE_OF, check_fields, check_opcode
from tercel.sim.golden.depthwise import execute_depthwise
from tercel.sim.golden.state import Bytes, EngineFault, ExternalMemory, MachineState
from tercel.sim.golden.transfer import execute_load, execute_store


@dataclass(frozen=True)
class GoldenResult:
    """How a program ended.

    Attributes
    ----------
    fault, fault_index
        The report; NONE and 0 when HALT was reached (or the limit).
    executed
        Indices of the instructions that ran without a fault, in the order in which they ended (HALT is not among them).
    state
        The on-chip memories as the program left them.
    """

    fault: Fault
    fault_index: int
    executed: list[int]
    state: MachineState


@dataclass(frozen=True)
class _Instruction:
    index: int
    opcode: Opcode
    values: dict[str, int]


@dataclass
class _EngineQueue:
    """One engine: its waiting instructions, the one that has run and waits to give its tokens, and whether it has faulted."""

    waiting: deque[_Instruction] = field(default_factory=deque)
    giving: _Instruction | None = None
    fault: tuple[int, Fault] | None = None

    @property
    def idle(self) -> bool:
        return not self.waiting and self.giving is None and self.fault is None

    @property
    def blocked_index(self) -> int | None:
        """The instruction that waits for tokens or to give them."""
        if self.fault is not None:
            return None
        if self.giving is not None:
            return self.giving.index
        return self.waiting[0].index if self.waiting else None


def run_golden(
    config: Config,
    memory: Bytes,
    *,
    program_base: int,
    program_count: int,
    read_base: int,
    read_end: int,
    write_base: int,
    write_end: int,
    limit_instructions: int | None = None,
) -> GoldenResult:
    """Run a program to its end.

    Parameters
    ----------
    config
        The machine that the program was made for.
    memory
        uint8, one-dimensional: external memory from address 0 on. STORE writes into it.
    program_base, program_count
        Address of instruction 0 and number of instructions, up to 65535.
    read_base, read_end, write_base, write_end
        The regions that LOAD and STORE may touch; ends are exclusive.
    limit_instructions
        Dispatch only so many instructions and stop when nothing can move; then neither DEADLOCK nor PROGRAM_END is reported.

    Raises
    ------
    ValueError
        The program or an access inside the regions lies past the end of ``memory``, or an argument is out of range.
    """
    if memory.dtype != np.uint8 or memory.ndim != 1:
        raise ValueError(f"memory must be a one-dimensional uint8 array, not {memory.ndim}-dimensional {memory.dtype}")
    if not 0 <= program_count < 1 << 16:
        raise ValueError(f"program_count must be in 0..65535, not {program_count} (an index has 16 bits)")
    external = ExternalMemory(memory, read_base=read_base, read_end=read_end, write_base=write_base, write_end=write_end)
    external.span(program_base, program_count * INSTRUCTION_BYTES)
    machine = _Machine(config, external, program_base=program_base, program_count=program_count, limit=limit_instructions)
    machine.run()
    fault_index, fault = machine.report()
    return GoldenResult(fault=fault, fault_index=fault_index, executed=machine.executed, state=machine.state)


class _Machine:
    """One run. Engines take turns, one instruction each; tokens alone order them, so any other turns would end the same."""

    def __init__(self, config: Config, memory: ExternalMemory, *, program_base: int, program_count: int, limit: int | None) -> None:
        self.state = MachineState(config)
        self.executed: list[int] = []
        self._config = config
        self._memory = memory
        self._program = (program_base, program_count)
        self._limit = limit
        self._queues = {engine: _EngineQueue() for engine in Engine}
        self._tokens = {(giver, taker): 0 for giver in Engine for taker in Engine}
        self._next = 0
        self._fetched: _Instruction | None = None
        self._halted = False
        self._fault: tuple[int, Fault] | None = None

    def run(self) -> None:
        """Until HALT, or until nothing can move."""
        moved = True
        while moved and not self._halted:
            moved = False
            for engine in Engine:
                moved |= self._dispatch()
                moved |= self._step(engine)

    def report(self) -> tuple[int, Fault]:
        """Index and code of the fault."""
        faults = [fault for fault in (self._fault, *(queue.fault for queue in self._queues.values())) if fault is not None]
        if faults:
            return min(faults)
        if self._halted or self._limit is not None:
            return 0, Fault.NONE
        return min(index for queue in self._queues.values() if (index := queue.blocked_index) is not None), Fault.DEADLOCK

    def _dispatch(self) -> bool:
        """Put instructions into queues while they have room; whether any moved."""
        moved = False
        while not self._halted and self._fault is None and self._next != self._limit:
            if self._fetched is None:
                self._fetched = self._fetch(self._next)
                if self._fetched is None:
                    break
            if self._fetched.opcode is Opcode.HALT:
                self._halted = all(queue.idle for queue in self._queues.values())
                break
            queue = self._queues[self._engine_of(self._fetched)]
            if len(queue.waiting) == QUEUE_DEPTH:
                break
            queue.waiting.append(self._fetched)
            self._fetched = None
            self._next += 1
            moved = True
        return moved

    def _fetch(self, index: int) -> _Instruction | None:
        """The checked instruction, or None with the dispatcher's fault set."""
        base, count = self._program
        if index == count:
            self._fault = (index, Fault.PROGRAM_END)
            return None
        word = int.from_bytes(self._memory.span(base + index * INSTRUCTION_BYTES, INSTRUCTION_BYTES).tobytes(), "little")
        code = check_opcode(word, self._config)
        if code is Fault.NONE:
            opcode, values = decode(word)
            code = check_fields(opcode, values, self._config)
            if code is Fault.NONE:
                return _Instruction(index=index, opcode=opcode, values=values)
        self._fault = (index, code)
        return None

    @staticmethod
    def _engine_of(instruction: _Instruction) -> Engine:
        if instruction.opcode is Opcode.SYNC:
            return Engine(instruction.values["engine"])
        return ENGINE_OF[instruction.opcode]

    def _step(self, engine: Engine) -> bool:
        """Let an engine run one instruction or give its tokens; whether it did either."""
        queue = self._queues[engine]
        if queue.fault is not None:
            return False
        started = False
        if queue.giving is None:
            if not queue.waiting or any(self._tokens[giver, engine] == 0 for giver in _engines(queue.waiting[0].values["wait"])):
                return False
            instruction = queue.waiting.popleft()
            for giver in _engines(instruction.values["wait"]):
                self._tokens[giver, engine] -= 1
            try:
                self._execute(instruction)
            except EngineFault as fault:
                queue.fault = (instruction.index, fault.code)
                return True
            self.executed.append(instruction.index)
            queue.giving = instruction
            started = True
        takers = list(_engines(queue.giving.values["post"]))
        if any(self._tokens[engine, taker] == TOKEN_MAX for taker in takers):
            return started
        for taker in takers:
            self._tokens[engine, taker] += 1
        queue.giving = None
        return True

    def _execute(self, instruction: _Instruction) -> None:
        match instruction.opcode:
            case Opcode.LOAD:
                execute_load(self.state, self._memory, instruction.values)
            case Opcode.STORE:
                execute_store(self.state, self._memory, instruction.values)
            case Opcode.ARRAY:
                execute_array(self.state, instruction.values)
            case Opcode.DEPTHWISE:
                execute_depthwise(self.state, instruction.values)


def _engines(mask: int) -> Iterator[Engine]:
    """The engines of a ``wait`` or ``post`` mask."""
    return (engine for engine in Engine if mask >> engine & 1)
