"""A board in simulation: the system of its bitstream, its memory chip, and the driver at the other end of a simulated line."""

from tercel.boards.board import Board
from tercel.boards.boards import named_board
from tercel.sim.board_backend import BoardBackend, Progress
from tercel.sim.soc.simulation import SocBuild, SocSimulation

CYCLES_A_BIT = 4
"""On the simulated line, which is faster than the board's so that loading takes fewer cycles."""

_ANSWER_SECONDS = 0.01
"""Simulated; the memory's power-up takes the longest."""


def board_build(board: Board) -> SocBuild:
    """What is simulated for a board."""
    return SocBuild(
        config=board.config,
        memory=board.memory,
        clock_hz=board.clock_hz,
        baud=board.clock_hz // CYCLES_A_BIT,
        pin_latency=board.pin_latency,
    )


def open_simulation(where: str, *, progress: Progress | None = None) -> BoardBackend:
    """The board called ``where``, simulated; :class:`~tercel.sim.toolchain.ToolError` if it cannot be built."""
    notify = progress or (lambda *_: None)
    simulation = SocSimulation(board_build(named_board(where)), report=lambda step: notify(step, 0, 0))
    try:
        return BoardBackend(simulation, progress=progress, timeout_s=_ANSWER_SECONDS)
    except BaseException:
        simulation.close()
        raise
