"""A bad line to the system in simulation: whatever happens to the frames, memory and registers are as the host asked, and nothing hangs."""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tercel.hw.config import Config
from tercel.hw.control.csr import ADDRESSES
from tercel.hw.soc import OnChip
from tercel.sim.soc.link_model import Noise, NoisyTransport
from tercel.sim.soc.simulation import SocBuild, SocSimulation
from tercel.sw.link.session import Session

NOISE = Noise(corrupt=0.15, truncate=0.08, duplicate=0.1, delay=0.1, insert=0.07)
"""Half of all frames."""

MEMORY_BYTES = 4096
"""Of the memory, that are used."""

LEAST = Config(
    name="least",
    pixels=1,
    lanes=2,
    outputs=2,
    depthwise=False,
    drain_lanes=1,
    array_depth=256,
    window_depth=0,
    weight_depth=128,
    parameter_depth=16,
    record_depth=0,
    threshold_depth=0,
    memory_width=2,
)
"""The smallest accelerator that runs networks, for a fast simulation."""

_SETTINGS = ("program_base", "read_base", "read_end", "write_base", "write_end")
_LENGTH_MAX = 24
_TIMEOUT_S = 5e-5
_ATTEMPTS = 200
_CLOCK_HZ = 48_000_000


@dataclass(frozen=True, kw_only=True)
class FuzzResult:
    """What a bad line did.

    Attributes
    ----------
    spoiled, passed
        Frames, in both directions.
    requests, repeats
        By the session.
    wrong_reads
        Reads that gave something else than was written.
    wrong_bytes
        Bytes of memory, and registers, that hold something else at the end, as read over a good line.
    cycles
        Of the machine.
    """

    spoiled: int
    passed: int
    requests: int
    repeats: int
    wrong_reads: int
    wrong_bytes: int
    cycles: int

    @property
    def ok(self) -> bool:
        """Whether nothing wrong was accepted."""
        return self.wrong_reads == self.wrong_bytes == 0

    def as_json(self) -> dict[str, object]:
        """For scripts."""
        return {**asdict(self), "ok": self.ok}


def fuzz_build() -> SocBuild:
    """The smallest system, with the fastest line."""
    return SocBuild(config=LEAST, memory=OnChip(size=8 * MEMORY_BYTES), clock_hz=_CLOCK_HZ, baud=_CLOCK_HZ // 4, payload_bytes=256)


def fuzz_link(
    simulation: SocSimulation, *, frames: int, seed: int, noise: Noise = NOISE, progress: Callable[[int], None] | None = None
) -> FuzzResult:
    """Random accesses over a bad line until ``frames`` frames were spoiled; then everything is read over the good one.

    Raises
    ------
    LinkError
        The link did not recover, or a request was not answered in 200 attempts.
    """
    rng = random.Random(seed)
    line = NoisyTransport(simulation, noise=noise, seed=seed)
    good = Session(simulation, timeout_s=_TIMEOUT_S)
    memory = bytearray(good.read_memory(0, MEMORY_BYTES))
    settings = {name: good.read_csr(ADDRESSES[name])[0] for name in _SETTINGS}
    session = Session(line, timeout_s=_TIMEOUT_S, attempts=_ATTEMPTS)
    wrong_reads = 0
    while line.counts.spoiled < frames:
        address, name = rng.randrange(MEMORY_BYTES - _LENGTH_MAX), rng.choice(_SETTINGS)
        length = rng.randint(1, _LENGTH_MAX)
        kind = rng.randrange(4)
        if kind == 0:
            memory[address : address + length] = data = rng.randbytes(length)
            session.write_memory(address, data)
        elif kind == 1:
            wrong_reads += session.read_memory(address, length) != memory[address : address + length]
        elif kind == 2:
            settings[name] = rng.getrandbits(32)
            session.write_csr(ADDRESSES[name], settings[name])
        else:
            wrong_reads += session.read_csr(ADDRESSES[name]) != [settings[name]]
        if progress is not None:
            progress(line.counts.spoiled)
    good = Session(simulation, timeout_s=_TIMEOUT_S)
    held = good.read_memory(0, MEMORY_BYTES)
    wrong_bytes = sum(byte != expected for byte, expected in zip(held, memory, strict=True))
    wrong_bytes += sum(good.read_csr(ADDRESSES[name]) != [value] for name, value in settings.items())
    return FuzzResult(
        spoiled=line.counts.spoiled,
        passed=line.counts.passed,
        requests=session.counts.requests,
        repeats=session.counts.repeats,
        wrong_reads=wrong_reads,
        wrong_bytes=wrong_bytes,
        cycles=simulation.statistics().cycles,
    )
