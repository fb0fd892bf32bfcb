"""All boards by name."""

from tercel.boards.board import Board
from tercel.boards.tang_nano_20k import TANG_NANO_20K
from tercel.boards.ulx3s import ULX3S_25F, ULX3S_85F
from tercel.sim.parse import UsageError

BOARDS: dict[str, Board] = {board.name: board for board in (ULX3S_85F, ULX3S_25F, TANG_NANO_20K)}


def named_board(name: str) -> Board:
    """The board called ``name``; :class:`~tercel.sim.parse.UsageError` lists the names when there is none."""
    try:
        return BOARDS[name]
    except KeyError:
        raise UsageError(f"board must be one of {', '.join(BOARDS)}, not {name!r} (a file in boards/ describes another)") from None
