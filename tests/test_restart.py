"""A run that is stopped in its midst leaves nothing behind that the next one could meet, though most registers have no reset."""

import random

import numpy as np
import pytest

from tercel.sim.backend import GoldenBackend
from tercel.sim.verify import COMPOSITE, PRIME, TERNARY, memory_model
from tercel.sim.verilator.build import build_simulation
from tercel.sim.verilator.model import Job, Simulation
from tercel.sw.random_program import random_program


@pytest.mark.parametrize("config", [PRIME, COMPOSITE, TERNARY], ids=lambda config: config.name)
def test_stopped_anywhere_the_next_program_computes_what_it_should(config):
    stopped = 0
    with Simulation(build_simulation(config)) as simulation:
        for seed in range(40):
            cut, whole = (random_program(config, seed=number).program for number in (seed, 1000 + seed))
            after = random.Random(seed).randrange(3000)
            memory = cut.memory()
            outcome = simulation.run(Job.of(cut, memory, model=memory_model(seed), stop_after=after, keep=seed % 2 == 1))
            stopped += not np.array_equal(outcome.memory, GoldenBackend().run(cut).memory)
            expected = GoldenBackend().run(whole)
            outcome = simulation.run(Job.of(whole, whole.memory(), model=memory_model(seed + 1), keep=True))
            assert (outcome.fault, outcome.fault_index) == (expected.fault, expected.fault_index), f"seed {seed}"
            np.testing.assert_array_equal(outcome.memory, expected.memory, err_msg=f"seed {seed}")
    assert stopped > 20
