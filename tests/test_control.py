"""The sequencer against a plain model of queues, tokens and faults, with engines that only take time."""

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from amaranth.sim import Simulator
from wishbone_bench import WishboneMaster

from tercel.hw.config import Config
from tercel.hw.control.assembly import Assembly
from tercel.hw.control.csr import ADDRESSES
from tercel.hw.control.sequencer import Sequencer, sequencer_counter_names
from tercel.hw.control.supervisor import State
from tercel.hw.isa import INSTRUCTION_BYTES, QUEUE_DEPTH, TOKEN_MAX, Engine, Fault, Opcode, decode, encode

CONFIG = Config(memory_width=8)
EVENTS = {engine: ("busy", "stall") for engine in Engine}
OPCODES = {Engine.LOAD: Opcode.LOAD, Engine.ARRAY: Opcode.ARRAY, Engine.DEPTHWISE: Opcode.DEPTHWISE, Engine.STORE: Opcode.STORE}
BASE = 0x1000


@dataclass
class Program:
    """Instructions, the engine faults that the stub engines raise, and the instruction that memory refuses to deliver and how."""

    words: list[int]
    faults: dict[int, Fault] = field(default_factory=dict)
    unreadable: int | None = None
    refusal: Fault = Fault.BUS_ERROR


@dataclass
class Outcome:
    """What a run reports, and the instructions that engines completed (SYNC left out)."""

    fault: Fault
    index: int
    completed: set[int]


def legal(opcode: Opcode, **values: int) -> int:
    """An instruction with what the static checks demand."""
    if opcode in (Opcode.ARRAY, Opcode.DEPTHWISE):
        values = {"shift": 8, "dilation_x": 1, "dilation_y": 1, **values}
    return encode(opcode, values)


def model(program: Program) -> Outcome:
    """One instruction of one engine at a time, in any order, until nothing moves."""
    queues = {engine: deque() for engine in Engine}
    giving = dict.fromkeys(Engine)
    tokens = {(giver, taker): 0 for giver in Engine for taker in Engine}
    faults = {}
    stopped = set()
    completed = set()
    position = 0
    while True:
        moved = False
        if position not in faults:
            if position == program.unreadable:
                faults[position] = program.refusal
            elif position == len(program.words):
                faults[position] = Fault.PROGRAM_END
            elif not program.words[position] & 0xF:
                faults[position] = Fault.ILLEGAL_OPCODE
            else:
                opcode, values = decode(program.words[position])
                if opcode is Opcode.HALT:
                    if not stopped and not any(queues.values()) and not any(giving.values()):
                        return Outcome(Fault.NONE, 0, completed)
                else:
                    engine = Engine(values["engine"]) if opcode is Opcode.SYNC else Engine[opcode.name]
                    if len(queues[engine]) < QUEUE_DEPTH:
                        queues[engine].append((position, opcode, values))
                        position += 1
                        moved = True
        for engine in Engine:
            if engine in stopped:
                continue
            if giving[engine] is None and queues[engine]:
                index, opcode, values = queues[engine][0]
                takes = [(giver, engine) for giver in Engine if values["wait"] >> giver & 1]
                if all(tokens[pair] for pair in takes):
                    queues[engine].popleft()
                    for pair in takes:
                        tokens[pair] -= 1
                    moved = True
                    if index in program.faults and opcode is not Opcode.SYNC:
                        faults[index] = program.faults[index]
                        stopped.add(engine)
                        continue
                    if opcode is not Opcode.SYNC:
                        completed.add(index)
                    giving[engine] = (index, [(engine, taker) for taker in Engine if values["post"] >> taker & 1])
            if giving[engine] is not None:
                _, gives = giving[engine]
                if all(tokens[pair] < TOKEN_MAX for pair in gives):
                    for pair in gives:
                        tokens[pair] += 1
                    giving[engine] = None
                    moved = True
        if not moved:
            break
    if faults:
        return Outcome(faults[min(faults)], min(faults), completed)
    waiting = [giving[engine][0] if giving[engine] else queues[engine][0][0] for engine in Engine if giving[engine] or queues[engine]]
    return Outcome(Fault.DEADLOCK, min(waiting), completed)


def random_program(rng: random.Random) -> Program:
    """From tame (every wait has its token in program order) to wild."""
    wildness = rng.choice([0, 0, 0.02, 0.1, 0.5])
    overflow = rng.choice([0, 0, 1])
    post_density = rng.choice([0.1, 0.3, 0.7])
    wait_density = rng.choice([0.1, 0.5, 1.0])
    engines = rng.choice([list(Engine), list(Engine), rng.sample(list(Engine), 2)])
    tokens = {(giver, taker): 0 for giver in Engine for taker in Engine}
    words = []
    for _ in range(rng.choice([5, 20, 60])):
        engine = rng.choice(engines)
        others = [other for other in Engine if other != engine]
        wait = post = 0
        for other in others:
            if (tokens[other, engine] or rng.random() < wildness) and rng.random() < wait_density:
                wait |= 1 << other
                tokens[other, engine] -= 1
            if rng.random() < post_density and (tokens[engine, other] < TOKEN_MAX or rng.random() < wildness + overflow):
                post |= 1 << other
                tokens[engine, other] += 1
        values = {"wait": wait, "post": post, "fence": rng.random() < 0.2}
        if rng.random() < 0.2:
            words.append(legal(Opcode.SYNC, engine=engine, **values))
        else:
            words.append(legal(OPCODES[engine], **values))
    if rng.random() < 0.9:
        words.append(legal(Opcode.HALT))
    program = Program(words)
    if rng.random() < 0.3:
        for _ in range(rng.choice([1, 2, 5])):
            program.faults[rng.randrange(len(words))] = rng.choice([Fault.SCRATCHPAD_RANGE, Fault.MEMORY_RANGE])
    if rng.random() < 0.1:
        words[rng.randrange(len(words))] = 0
    if rng.random() < 0.1:
        program.unreadable = rng.randrange(len(words))
        program.refusal = rng.choice([Fault.BUS_ERROR, Fault.BUS_TIMEOUT])
    return program


class Bench:
    """A sequencer with stub engines and a memory that holds a program; both as slow as ``rng`` likes."""

    def __init__(self) -> None:
        self.dut = Sequencer(CONFIG, engine_events=EVENTS)
        self.rng = random.Random(0)
        self.program = Program([])
        self.completed: set[int] = set()
        self.overlap = 1
        self.slowness = 1
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-6)
        for engine in Engine:
            self.simulator.add_testbench(self._engine(engine), background=True)
        self.simulator.add_testbench(self._memory, background=True)

    def _engine(self, engine: Engine):
        async def stub(ctx) -> None:
            port = getattr(self.dut, engine.name.lower())
            running: deque[list[int]] = deque()  # index, post, cycles left
            ready = False
            ended = 0
            while True:
                faulty = [entry[0] for entry in running if entry[2] == 0 and entry[0] in self.program.faults]
                if faulty:
                    ctx.set(port.fault_valid, 1)
                    ctx.set(port.fault_index, min(faulty))
                    ctx.set(port.fault_code, self.program.faults[min(faulty)])
                else:
                    ctx.set(port.fault_valid, 0)
                good = bool(running) and running[0][2] == 0 and running[0][0] not in self.program.faults
                ctx.set(port.done.valid, good)
                ended = running[0] if good else None
                if good:
                    ctx.set(port.done.p.index, running[0][0])
                    ctx.set(port.done.p.post, running[0][1])
                busy = bool(running) and self.rng.random() < 0.9
                ctx.set(port.events, self.rng.choice([1, 2]) if busy else 0)
                ready = len(running) < self.overlap and self.rng.random() < 0.8
                ctx.set(port.start.ready, ready)
                _, _, reset, valid, payload, taken = await ctx.tick().sample(
                    self.dut.reset, port.start.valid, port.start.payload, port.done.ready
                )
                if reset:
                    running.clear()
                    continue
                if ended is not None and taken:
                    self.completed.add(ended[0])
                    running.popleft()
                # Instructions pass through a pipeline: a later one may have its fault before an earlier one has ended.
                for entry in running:
                    if entry[2] and self.rng.random() < 0.7:
                        entry[2] -= 1
                if ready and valid:
                    word = payload.instruction
                    assert word == self.program.words[payload.index], "an engine must get the whole instruction"
                    opcode, values = decode(word)
                    assert opcode.name == engine.name
                    assert not (values["fence"] and running), "a fence waits until the engine is empty"
                    running.append([payload.index, values["post"], self.rng.randrange(1, 1 + self.slowness)])

        return stub

    async def _memory(self, ctx) -> None:
        port = self.dut.program
        waiting: deque[int] = deque()
        while True:
            ready = self.rng.random() < 0.9
            ctx.set(port.request.ready, ready)
            answer = bool(waiting) and self.rng.random() < 0.9
            ctx.set(port.valid, answer)
            ctx.set(port.err, 0)
            if answer:
                offset = waiting.popleft() * CONFIG.memory_width - BASE
                index, byte = divmod(offset, INSTRUCTION_BYTES)
                assert 0 <= index < len(self.program.words), "the fetch must stay inside the program"
                word = self.program.words[index] >> 8 * byte & (1 << 8 * CONFIG.memory_width) - 1
                ctx.set(port.data, word)
                ctx.set(port.err, index == self.program.unreadable and byte >= 40)
                ctx.set(port.timeout, self.program.refusal is Fault.BUS_TIMEOUT)
            ctx.set(self.dut.memory_idle, not waiting and not answer)
            _, _, valid, addr = await ctx.tick().sample(port.request.valid, port.request.payload)
            if valid and ready:
                waiting.append(addr)

    async def run(self, ctx, program: Program, *, seed: int, overlap: int, slowness: int) -> Outcome:
        """Start the program and wait for its end; the counters are checked on the way."""
        csr = WishboneMaster(ctx, self.dut.csr)
        await csr.write(ADDRESSES["control"], 2)
        await ctx.tick().repeat(2)
        self.program, self.overlap, self.slowness = program, overlap, slowness
        self.rng.seed(seed)
        self.completed = set()
        await csr.write(ADDRESSES["program_base"], BASE)
        await csr.write(ADDRESSES["program_count"], len(program.words))
        await csr.write(ADDRESSES["control"], 1)
        for _ in range(20000):
            if ctx.get(self.dut.interrupt):
                break
            await ctx.tick()
        status = await csr.read(ADDRESSES["status"])
        state, fault = State(status & 3), Fault(status >> 4 & 15)
        assert state is (State.DONE if fault is Fault.NONE else State.FAULT), f"{state.name}, {fault.name}"
        index = await csr.read(ADDRESSES["fault_index"])
        await self._check_counters(csr)
        return Outcome(fault, index, set(self.completed))

    @staticmethod
    async def _check_counters(csr: WishboneMaster) -> None:
        names = sequencer_counter_names(EVENTS)
        assert await csr.read(ADDRESSES["counter_count"]) == len(names)
        sums: dict[str, int] = {}
        for number, name in enumerate(names):
            part = name.split(".")[0]
            sums[part] = sums.get(part, 0) + await csr.read(ADDRESSES["counters"] + 4 * number)
        assert sums["machine"] > 0
        for engine in Engine:
            assert sums[engine.name.lower()] == sums["machine"], "an engine's counters must add up to the cycles"


@pytest.mark.parametrize("seed", range(4))
def test_random_programs(seed: int) -> None:
    """Status, code, index and completed instructions equal the model's, whatever the engines' speed and overlap."""
    bench = Bench()
    rng = random.Random(seed)

    async def testbench(ctx) -> None:
        for number in range(15):
            program = random_program(rng)
            expected = model(program)
            actual = await bench.run(ctx, program, seed=number, overlap=rng.randint(1, 3), slowness=rng.choice([3, 30, 200]))
            assert (actual.fault, actual.index) == (expected.fault, expected.index), f"program {number}"
            if expected.fault is Fault.NONE:
                assert actual.completed == expected.completed

    bench.simulator.add_testbench(testbench)
    bench.simulator.run()


def mask(*engines: Engine) -> int:
    """A ``wait`` or ``post`` mask."""
    return sum(1 << engine for engine in engines)


def instructions(engine: Engine, *, count: int = 1, **values: int) -> list[int]:
    """The same instruction ``count`` times."""
    return [legal(OPCODES[engine], **values)] * count


GIVE_TO_ARRAY = {"post": mask(Engine.ARRAY)}
HALT = [legal(Opcode.HALT)]
DIRECTED = {
    "empty": (Program([]), Fault.PROGRAM_END, 0),
    "halt": (Program(HALT), Fault.NONE, 0),
    "counter_holds_its_maximum": (Program(instructions(Engine.LOAD, count=TOKEN_MAX, **GIVE_TO_ARRAY) + HALT), Fault.NONE, 0),
    "giver_waits": (
        Program(instructions(Engine.LOAD, count=TOKEN_MAX + 1, **GIVE_TO_ARRAY) + instructions(Engine.LOAD) + HALT),
        Fault.DEADLOCK,
        TOKEN_MAX,
    ),
    "sync_waits_to_give": (
        Program([legal(Opcode.SYNC, engine=Engine.LOAD, **GIVE_TO_ARRAY)] * (TOKEN_MAX + 3) + HALT),
        Fault.DEADLOCK,
        TOKEN_MAX,
    ),
    # Instruction 2 may be in the engine already, but it waits: 4 finds the queue full, 5 never comes to free 0.
    "behind_a_fault_is_waiting": (
        Program(
            instructions(Engine.DEPTHWISE, wait=mask(Engine.LOAD))
            + instructions(Engine.ARRAY, count=4)
            + instructions(Engine.LOAD, post=mask(Engine.DEPTHWISE))
            + HALT,
            faults={0: Fault.MEMORY_RANGE, 1: Fault.SCRATCHPAD_RANGE},
        ),
        Fault.SCRATCHPAD_RANGE,
        1,
    ),
    # The last instruction may have taken its token, but makes no room for another: the LOAD before the faulty one still waits to give.
    "behind_a_fault_nothing_is_taken": (
        Program(
            instructions(Engine.LOAD, count=TOKEN_MAX + 1, **GIVE_TO_ARRAY)
            + instructions(Engine.LOAD)
            + instructions(Engine.ARRAY)
            + instructions(Engine.ARRAY, wait=mask(Engine.LOAD)),
            faults={TOKEN_MAX + 1: Fault.MEMORY_RANGE, TOKEN_MAX + 2: Fault.SCRATCHPAD_RANGE},
        ),
        Fault.SCRATCHPAD_RANGE,
        TOKEN_MAX + 2,
    ),
    "lowest_fault": (
        Program(
            instructions(Engine.STORE) + instructions(Engine.ARRAY) + [0],
            faults={0: Fault.MEMORY_RANGE, 1: Fault.SCRATCHPAD_RANGE},
        ),
        Fault.MEMORY_RANGE,
        0,
    ),
    "never_fetched": (
        Program(instructions(Engine.STORE, wait=mask(Engine.LOAD)) + instructions(Engine.STORE, count=3) + HALT, unreadable=4),
        Fault.DEADLOCK,
        0,
    ),
}


def test_directed_programs() -> None:
    """The corners of the rules, with engines that take three instructions at once and are slow, quick or anything."""
    bench = Bench()

    async def testbench(ctx) -> None:
        for name, (program, fault, index) in DIRECTED.items():
            expected = model(program)
            assert (expected.fault, expected.index) == (fault, index), name
            for slowness in (1, 8, 60):
                actual = await bench.run(ctx, program, seed=slowness, overlap=3, slowness=slowness)
                assert (actual.fault, actual.index) == (fault, index), name

    bench.simulator.add_testbench(testbench)
    bench.simulator.run()


@pytest.mark.parametrize("memory_width", [1, 8])
def test_an_assembly_keeps_the_low_bits_of_the_last_instruction(memory_width: int) -> None:
    """Complete in the cycle after the last beat's bits, and still there when the next instruction's first one comes; beats may pause."""
    kept = 13 + 8 * memory_width
    dut = Assembly(Config(memory_width=memory_width), instruction_bits=kept)
    rng = random.Random(memory_width)

    async def testbench(ctx) -> None:
        bits = 0  # of the beat that came in the cycle before
        for _ in range(20):
            word = rng.getrandbits(8 * INSTRUCTION_BYTES)
            numbers = [number for number in range(INSTRUCTION_BYTES // memory_width) for _ in range(rng.choice([1, 1, 2]))]
            for number, following in zip(numbers, [*numbers[1:], None], strict=True):
                # A number that comes again is a pause.
                ctx.set(dut.beat, {"valid": number != following, "number": number, "data": bits})
                bits = word >> 8 * memory_width * number & (1 << 8 * memory_width) - 1 if number != following else rng.getrandbits(8)
                await ctx.tick()
            for _ in range(rng.randrange(1, 4)):
                ctx.set(dut.beat, {"valid": 0, "number": 0, "data": bits})
                await ctx.tick()
                assert ctx.get(dut.instruction) == word & (1 << kept) - 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
