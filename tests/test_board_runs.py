"""Networks on boards in simulation: over the line and by the back door, the table of frames a second, and wrong arguments."""

import json
from dataclasses import replace

import numpy as np
import pytest
from benchmarks import board_runs, frames, soc
from benchmarks.board_runs import BoardRuns, ImageRun, line_bytes, run_on_board
from benchmarks.errors import command
from compiled_networks import NetworkBuilder

from tercel.boards.boards import BOARDS
from tercel.hw.config import TINY
from tercel.hw.sdram.chips import GW2AR18
from tercel.sim.backend import GoldenBackend
from tercel.sim.parse import UsageError
from tercel.sim.soc.link_fuzz import LEAST, fuzz_build
from tercel.sim.soc.simulation import SocBuild, SocSimulation
from tercel.sw.compiler import compile_graph

BUILD = SocBuild(config=LEAST, memory=GW2AR18, clock_hz=27_000_000, baud=27_000_000 // 4, pin_latency=2)


class IdealBackend(GoldenBackend):
    """The golden model with a clock of its own, in place of the accelerator alone."""

    def __init__(self, **_) -> None:
        self.wrong = 0

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def run(self, program, *, inputs=None):
        ran = super().run(program, inputs=inputs)
        outputs = {name: codes + self.wrong for name, codes in ran.outputs.items()}
        return replace(ran, outputs=outputs, counters={"machine.cycles": 7})


def test_line_and_back_door(monkeypatch) -> None:
    """Both ways in give the golden model's codes in the same number of cycles; a wrong code is noticed."""
    monkeypatch.setattr(board_runs, "VerilatorBackend", IdealBackend)
    builder = NetworkBuilder(LEAST, input=(6, 6, 4), bits=8)
    program = compile_graph(builder.graph(builder.layer("conv", builder.input, out=4, kernel=(3, 3), padding=(1, 1, 1, 1))), LEAST)
    codes = [{"image": np.random.default_rng(seed).integers(0, 256, (6, 6, 4))} for seed in range(2)]
    steps: list[list[str]] = [[], []]
    line, back = (
        run_on_board(BUILD, program, codes, back_door=way, progress=lambda what, *_, to=to: to.append(what))
        for way, to in zip((False, True), steps, strict=True)
    )
    assert line.ok and back.ok
    assert (line.violations, line.repeats, back.repeats) == (0, 0, 0)
    assert "board: sending" in steps[0] and "board: sending" not in steps[1]
    assert "board: running, cycles" in steps[1]
    for slow, fast in zip(line.images, back.images, strict=True):
        assert abs(slow.cycles - fast.cycles) < 0.02 * slow.cycles  # refreshes fall elsewhere
        assert slow.bytes_moved == fast.bytes_moved > line_bytes(program)
        assert (slow.ideal_cycles, slow.bytes_per_cycle) == (7, round(slow.bytes_moved / slow.cycles, 3))
    assert line.images[0].line_cycles > back.images[0].line_cycles + 40 * line_bytes(program)
    monkeypatch.setattr(
        IdealBackend, "run", lambda self, program, *, inputs=None: replace(GoldenBackend().run(program), counters={"machine.cycles": 7})
    )
    assert not run_on_board(BUILD, program, codes[:1], back_door=True, progress=lambda *_: None).ok


def test_preload() -> None:
    """The back door leads to the chip's bytes and no further."""
    simulation = SocSimulation(BUILD)
    try:
        before = simulation.memory(0, 16)
        simulation.preload(3, b"bytes")
        expected = bytes(before[:3]) + b"bytes" + bytes(before[8:])
        assert bytes(simulation.memory(0, 16)) == expected
        simulation.preload(GW2AR18.bytes - 1, b"x")
        with pytest.raises(ValueError, match=rf"^address must lie in the memory chip, 0\.\.{GW2AR18.bytes}, not {GW2AR18.bytes - 1}\.\."):
            simulation.preload(GW2AR18.bytes - 1, b"xy")
    finally:
        simulation.close()
    on_chip = SocSimulation(fuzz_build())
    try:
        with pytest.raises(
            ValueError, match=r"^address must lie in the memory chip, 0\.\.0, not 0\.\.1 \(memory on the FPGA has no back door\)$"
        ):
            on_chip.memory(0, 1)
    finally:
        on_chip.close()


def runs(*, equal: bool = True, violations: int = 0):
    """Made-up runs in place of the simulation; the programs that were run are kept in ``programs``."""
    programs = []

    def run(build, program, images, *, back_door, progress):
        programs.append((build, program, back_door))
        figures = {"cycles": 60_000, "ideal_cycles": 50_000, "predicted_cycles": 59_000, "bytes_moved": 90_000, "line_cycles": 99_000}
        image = ImageRun(equal=equal, bytes_per_cycle=1.5, **figures)
        return BoardRuns(images=(image,) * len(images), violations=violations, repeats=0)

    run.programs = programs
    return run


@pytest.fixture
def tiny_board(monkeypatch) -> None:
    """A board whose machine is too small for the networks."""
    monkeypatch.setitem(BOARDS, "tang-nano-20k", replace(BOARDS["tang-nano-20k"], config=TINY))


@pytest.mark.usefixtures("tiny_board")
def test_frames(tmp_path, monkeypatch, capsys) -> None:
    """A table with the compiler's reason where there is no program; the second time no row is measured again."""
    run = runs()
    monkeypatch.setattr(frames, "run_on_board", run)
    path = tmp_path / "frames.md"
    arguments = [
        "--networks",
        "digits",
        "--bits",
        "2",
        "--boards",
        "ulx3s-25f,tang-nano-20k",
        "--bitstreams",
        str(tmp_path),
        "-o",
        str(path),
    ]
    assert command(frames.main, [*arguments, "--clock", "ulx3s-25f=30"]) == 0
    lines = path.read_text().splitlines()
    assert lines[0].startswith("| board | config | chip | network | weight bits | cycles | ")
    assert lines[2] == "| ulx3s-25f | small | IS42S16160G-7 | digits | 2 | 60,000 | 50,000 | 1.50 | 30 | 500.0 |"
    assert lines[3] == "| tang-nano-20k | tiny | GW2AR-18 | digits | 2 | does not compile |  |  |  |  |"
    assert lines[5].startswith(
        "* digits, 2 bits on tiny: 4 layers do not fit; features.2.conv.1.0: input must need at most array_depth=256 words"
    )
    (build, program, back_door) = run.programs[0]
    assert (build.config.name, back_door, len(run.programs)) == ("small", True, 1)
    assert min(layer.spec.weight_bits for layer in program.graph.layers()) == 2

    assert command(frames.main, arguments) == 0
    assert len(run.programs) == 1, "kept"
    assert "| 60,000 | 50,000 | 1.50 |  |  |" in path.read_text(), "no clock, no frames a second"
    assert f"{path}: 2 rows" in capsys.readouterr().out


def test_wrong_frames(tmp_path, monkeypatch, capsys) -> None:
    """Codes that differ and broken rules are said and end with exit code 1."""
    identity = frames.Identity(board="ulx3s-25f", network="digits", bits=8, weights="", images="", system="", code="")
    row = frames.Row(identity=identity, config="small", chip="IS42S16160G-7", clock_mhz=60, cycles=3000, bytes_moved=10)
    wrong = [replace(row, equal=False), replace(row, violations=3), row]
    monkeypatch.setattr(frames, "measure", lambda *_, **__: iter(wrong))
    assert command(frames.main, ["-o", str(tmp_path / "frames.md")]) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong: ")]
    assert said == [
        "wrong: digits, 8 bits on ulx3s-25f: outputs differ from the golden model",
        "wrong: digits, 8 bits on ulx3s-25f: 3 rules of the memory chip broken",
    ]


def test_clocks(tmp_path) -> None:
    """From the report of a bitstream that reached the board's clock, or as given."""
    boards = [BOARDS[name] for name in ("ulx3s-85f", "ulx3s-25f")]
    for board, fmax in zip(boards, (board.clock_hz / 1e6 + step for board, step in zip(boards, (1, -1), strict=True)), strict=True):
        folder = tmp_path / f"bitstream-{board.name}"
        folder.mkdir()
        report = {"utilization": {}, "fmax": {"clk": {"achieved": fmax}}}
        (folder / "report.json").write_text(json.dumps(report))
    mhz = boards[0].clock_hz / 1e6
    assert frames.clocks((), bitstreams=tmp_path, boards=boards) == {"ulx3s-85f": mhz}
    assert frames.clocks(("ulx3s-25f=41.5",), bitstreams=tmp_path, boards=boards) == {"ulx3s-85f": mhz, "ulx3s-25f": 41.5}
    with pytest.raises(UsageError, match=r"^clock must be BOARD=MHZ, not 'ulx3s-25f' \(for example ulx3s-85f=60\)$"):
        frames.clocks(("ulx3s-25f",), bitstreams=tmp_path, boards=boards)


def test_layers_on_a_board(monkeypatch, capsys) -> None:
    """A block of a network: its layers, its bytes and the way they go; a network is sent by the back door only if it is large."""
    run = runs()
    monkeypatch.setattr(soc, "run_on_board", run)
    arguments = ["ulx3s-25f", "--layers", "features.2.*", "--bits", "4", "--images", "2"]
    assert command(soc.main, arguments) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["ok"] and made["sent"] == "line" and len(made["images"]) == 2
    assert made["layers"] == ["features.2.conv.0.0", "features.2.conv.1.0", "features.2.conv.2"]
    assert made["milliseconds"] == round(60_000 / made["clock_mhz"] / 1e3, 3)
    monkeypatch.setattr(soc, "LINE_BYTES_MAX", made["sent_bytes"] - 1)
    assert command(soc.main, arguments) == 0
    assert json.loads(capsys.readouterr().out)["sent"] == "back door"
    assert [back_door for _, _, back_door in run.programs] == [False, True]


@pytest.mark.usefixtures("tiny_board")
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((soc.main, ["ulx4s"], 2), "board must be one of ulx3s-85f, ulx3s-25f, tang-nano-20k, not 'ulx4s'"),
        ((soc.main, ["--network", "vgg"], 2), "network must be one of mobilenet_v1_0.25,"),
        (
            (soc.main, ["tang-nano-20k"], 4),
            "features.2.conv.1.0: input must need at most array_depth=256 words a bank for one output row, not 448",
        ),
        ((frames.main, ["--networks", "vgg"], 2), "networks must be among mobilenet_v1_0.25,"),
        ((frames.main, ["--bits", "3"], 2), "bits must be among 8, 4, 2, not '3' (with commas between)"),
        ((frames.main, ["--networks", "mobilenet_v2"], 2), "data must be a folder for mobilenet_v2, not left out"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, capsys, asked, message) -> None:
    monkeypatch.delenv("TERCEL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    main, arguments, code = asked
    assert command(main, arguments) == code
    assert message in capsys.readouterr().err
