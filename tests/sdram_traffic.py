"""Requests for the SDRAM controller, and a plain memory to hold its answers against."""

import random
from dataclasses import replace

import numpy as np

from tercel.hw.sdram.timing import SdramChip
from tercel.sim.soc.sdram_model import SdramModel
from tercel.sim.soc.sdram_simulation import ACK, ERR, NO_ANSWER, REQUEST, SdramBuild, SdramRun


def quick(chip: SdramChip) -> SdramChip:
    """The chip, ready 1 us after power-up."""
    return replace(chip, timing=replace(chip.timing, power_up=1000.0))


def random_requests(build: SdramBuild, count: int, *, seed: int, waits: tuple[int, ...] = (0,), abandon: float = 0.0) -> np.ndarray:
    """Runs of beats and single ones over few rows, so that rows and banks collide; some lie past the end of the chip."""
    rng = random.Random(seed)
    width, chip = build.memory_width, build.chip
    beats = chip.bytes // width
    in_row = chip.columns * chip.width // width
    rows = [in_row * row for row in random.Random(1).sample(range(beats // in_row), 5)] + [0, beats - in_row]
    requests = np.zeros(count, REQUEST)
    place = 0
    while place < count:
        addr, write, mixed = rng.choice(rows) + rng.randrange(in_row), rng.random() < 0.5, rng.random() < 0.2
        wait = rng.choice(waits)
        for i in range(rng.choice((1, 1, 2, 5, 20, 100))):
            if place == count:
                break
            if mixed:
                write, wait = rng.random() < 0.5, rng.choice(waits)
            request = requests[place]
            request["adr"] = beats + rng.getrandbits(8) if rng.random() < 0.01 else (addr + i) % beats
            request["wait"] = wait
            request["write"] = write
            request["sel"] = rng.choice((2**width - 1, rng.getrandbits(width)))
            request["data"] = np.frombuffer(rng.randbytes(16), np.uint8)
            if rng.random() < abandon:
                request["abandon"], request["wait"] = 1, rng.choice((1, 2, 30))
            place += 1
    return requests


def check_run(build: SdramBuild, run: SdramRun, *, npu: np.ndarray, host: np.ndarray | None = None) -> None:
    """No rule broken; every answer what a plain memory gives, in order; and the chip holds in the end what that memory does."""
    assert run.violations == ()
    width = build.memory_width
    memory = SdramModel(build.chip, clock_mhz=build.clock_mhz).contents.copy()
    every = [(answer, request) for answers, requests in ((run.npu, npu), (run.host, host)) if requests is not None
             for answer, request in zip(answers, requests, strict=True)]  # fmt: skip
    every.sort(key=lambda pair: int(pair[0]["accepted"]))
    for answer, request in every:
        start = int(request["adr"]) * width
        bad = start >= build.chip.bytes
        if answer["kind"] != NO_ANSWER:
            assert answer["kind"] == (ERR if bad else ACK)
            assert answer["answered"] > answer["accepted"]
        if bad:
            continue
        if request["write"]:
            selected = np.array([int(request["sel"]) >> i & 1 for i in range(width)], bool)
            memory[start : start + width][selected] = request["data"][:width][selected]
        elif answer["kind"] == ACK:
            assert answer["data"][:width].tobytes() == memory[start : start + width].tobytes()
    for answers in (run.npu, run.host):
        answered = answers["answered"][answers["kind"] != NO_ANSWER]
        assert (np.diff(answered.astype(np.int64)) > 0).all()
        assert (np.diff(answers["accepted"].astype(np.int64)) > 0).all()
    assert np.array_equal(memory, run.contents)
