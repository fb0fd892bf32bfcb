"""The memory port in Verilator: three clients, a memory with random stalls, a model of what each client must see.

Drivers and monitors only move values between queues and signals; the model only sees queues.
"""

import random
from collections import deque
from dataclasses import dataclass, field

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

WIDTH = 2
WORDS = 512
CLIENTS = ("fetch", "load", "store")


@dataclass(frozen=True)
class Scenario:
    """Chances, each cycle, that something pauses; and the memory's latency in cycles."""

    client_pause: float
    memory_stall: float
    latency: int
    requests: int = 300


SCENARIOS = [
    Scenario(client_pause=0.0, memory_stall=0.0, latency=1),
    Scenario(client_pause=0.0, memory_stall=0.0, latency=20),
    Scenario(client_pause=0.5, memory_stall=0.5, latency=3),
    Scenario(client_pause=0.0, memory_stall=0.8, latency=6),
    Scenario(client_pause=0.9, memory_stall=0.1, latency=2),
]


@dataclass
class Model:
    """What the memory holds and what the clients must be told: readers see the untouched half, the store fills the other."""

    words: list[int]
    expected: dict[str, deque] = field(default_factory=lambda: {client: deque() for client in CLIENTS})

    def read(self, client: str, addr: int) -> None:
        """A reader asked."""
        self.expected[client].append(self.words[addr])

    def write(self, addr: int, data: int, last: int) -> None:
        """The store asked."""
        self.words[addr] = data
        self.expected["store"].append(last)


class Driver:
    """Offers requests on a stream, with pauses; a request stays until it is taken."""

    def __init__(self, dut, client: str, requests: list[int], pause: float, seed: int) -> None:
        self.valid = getattr(dut, f"{client}__request__valid")
        self.ready = getattr(dut, f"{client}__request__ready")
        self.payload = getattr(dut, f"{client}__request__payload")
        self.clk = dut.clk
        self.requests = requests
        self.pause = pause
        self.random = random.Random(seed)

    async def run(self) -> None:
        """Until all requests are taken."""
        for request in self.requests:
            while self.random.random() < self.pause:
                self.valid.value = 0
                await RisingEdge(self.clk)
            self.valid.value = 1
            self.payload.value = request
            while True:
                await ReadOnly()
                taken = int(self.ready.value)
                await RisingEdge(self.clk)
                if taken:
                    break
        self.valid.value = 0


class Monitor:
    """Collects a client's answers: the read data, or the tag of a write."""

    def __init__(self, dut, client: str) -> None:
        self.valid = getattr(dut, f"{client}__valid")
        self.err = getattr(dut, f"{client}__err")
        self.value = getattr(dut, f"{client}__last" if client == "store" else f"{client}__data")
        self.clk = dut.clk
        self.answers: deque = deque()

    async def run(self) -> None:
        """For ever."""
        while True:
            await RisingEdge(self.clk)
            await ReadOnly()
            if int(self.valid.value):
                assert int(self.err.value) == 0
                self.answers.append(int(self.value.value))


class Memory:
    """Pipelined Wishbone slave."""

    def __init__(self, dut, words: list[int], scenario: Scenario, seed: int) -> None:
        self.dut = dut
        self.words = words
        self.scenario = scenario
        self.random = random.Random(seed)
        self.most_outstanding = 0

    async def run(self) -> None:
        """For ever: answers in order, not before ``latency`` cycles have gone by."""
        dut, scenario = self.dut, self.scenario
        waiting: deque = deque()
        cycle = 0
        while True:
            stall = self.random.random() < scenario.memory_stall
            dut.bus__stall.value = stall
            dut.bus__ack.value = 0
            if waiting and waiting[0][0] <= cycle and self.random.random() >= scenario.memory_stall:
                _, addr, write, data = waiting.popleft()
                dut.bus__ack.value = 1
                dut.bus__dat_r.value = self.words[addr]
                if write:
                    self.words[addr] = data
            await ReadOnly()
            if int(dut.bus__cyc.value) and int(dut.bus__stb.value) and not stall:
                assert int(dut.bus__sel.value) == (1 << WIDTH) - 1
                waiting.append((cycle + scenario.latency, int(dut.bus__adr.value), int(dut.bus__we.value), int(dut.bus__dat_w.value)))
                self.most_outstanding = max(self.most_outstanding, len(waiting))
            await RisingEdge(dut.clk)
            cycle += 1


def requests_for(model: Model, *, client: str, count: int, source: random.Random) -> list[int]:
    """Random requests of one client, told to the model as well."""
    requests = []
    for _ in range(count):
        if client == "store":
            addr, data, last = WORDS // 2 + source.randrange(WORDS // 2), source.randrange(1 << 8 * WIDTH), source.randrange(2)
            model.write(addr, data, last)
            requests.append(last << 31 + 8 * WIDTH | data << 31 | addr)
        else:
            addr = source.randrange(WORDS // 2)
            model.read(client, addr)
            requests.append(addr)
    return requests


@cocotb.test()
@cocotb.parametrize(index=range(len(SCENARIOS)))
async def clients_get_their_answers_in_order(dut, index: int) -> None:
    """Every request is answered once, in order, with the right word; and memory holds what was stored."""
    scenario = SCENARIOS[index]
    source = random.Random(index)
    words = [source.randrange(1 << 8 * WIDTH) for _ in range(WORDS)]
    model = Model(words=list(words))
    memory = Memory(dut, words, scenario, seed=100 + index)
    drivers = [
        Driver(dut, client, requests_for(model, client=client, count=scenario.requests, source=source), scenario.client_pause, seed=number)
        for number, client in enumerate(CLIENTS)
    ]
    monitors = {client: Monitor(dut, client) for client in CLIENTS}

    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 1
    dut.bus__err.value = 0
    for driver in drivers:
        driver.valid.value = 0
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    cocotb.start_soon(memory.run())
    for monitor in monitors.values():
        cocotb.start_soon(monitor.run())
    tasks = [cocotb.start_soon(driver.run()) for driver in drivers]
    for task in tasks:
        await task
    for _ in range(2000):
        await RisingEdge(dut.clk)
        if all(len(monitors[client].answers) >= scenario.requests for client in CLIENTS):
            break
    for _ in range(50):
        await RisingEdge(dut.clk)

    for client in CLIENTS:
        assert list(monitors[client].answers) == list(model.expected[client]), client
    assert words == model.words
    assert memory.most_outstanding <= 16
    assert int(dut.idle.value) == 1
