import json

import pytest

from tercel.sim import simulation_speed
from tercel.sim.cli import main
from tercel.sim.simulation_speed import Speed
from tercel.sim.verify import VERIFY_CONFIGS


def test_speed_of_a_cached_simulation():
    speed = simulation_speed.measure_speed(VERIFY_CONFIGS["prime"], runs=1, build=False)
    assert speed.cycles > 10_000
    assert speed.wall_seconds > 0 and speed.cpu_seconds > 0
    assert speed.build_seconds is None


@pytest.mark.parametrize(("wall", "build", "code"), [(1.0, 100.0, 0), (3.0, 100.0, 1), (1.0, 200.0, 1)])
def test_exit_code_follows_the_limits(monkeypatch, capsys, wall, build, code):
    speed = Speed(config="tiny", cycles=200_000, wall_seconds=wall, cpu_seconds=wall, build_seconds=build, load=0.0)
    monkeypatch.setattr(simulation_speed, "measure_speed", lambda *_, **__: speed)
    assert main(["speed", "tiny", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["cycles_per_second"] == 200_000 / wall
