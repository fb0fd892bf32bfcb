"""Frames a second of whole networks on the boards: cycles with the board's memory in simulation, and clocks of bitstreams.

``python -m benchmarks.frames --data DIR -o build/frames.md`` runs one image of each network, with each width of weights, on each board in
simulation; instructions, weights and input are put into the memory chip by its back door, and every output code is compared with the golden
model. Finished rows are kept beside the table, so that an interrupted run goes on. A frame begins when the one before has ended.
Cycles do not depend on the values of weights, so the networks are rounded to nearest, which is quick and loses accuracy.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.board_runs import run_on_board
from benchmarks.checkpoints import CHECKPOINTS, Samples, read_set
from benchmarks.errors import command
from benchmarks.quantized_networks import quantized_network
from benchmarks.results import code_identity, file_identity
from benchmarks.row_file import JsonRows
from tercel.boards.area import parse_report
from tercel.boards.board import Board
from tercel.boards.boards import BOARDS, named_board
from tercel.boards.simulation import board_build
from tercel.sim.api import compile_network
from tercel.sim.console import results
from tercel.sim.demo import WIDTHS, layer_bits
from tercel.sim.execution import Progress
from tercel.sim.parse import UsageError
from tercel.sim.progress import progress_bars
from tercel.sim.soc.simulation import SocBuild
from tercel.sim.verilator.compile import gateware_sources
from tercel.sw.compiler import FitError
from tercel.sw.images import normalize
from tercel.sw.importer import UnsupportedError

DIFFERENT = 1
_NETWORKS = ("mobilenet_v2", "digits")
_CALIBRATION = 16
_SCHEMES = {width.bits: width.scheme for width in WIDTHS if not width.trained}
"""Of the demo: ternary weights at 2 bits."""

_COMPILER = (
    *("compiler", "graph", "importer", "zoo", "band.py", "chunk.py", "cycles.py", "emitter.py", "layer.py", "layer_array.py"),
    *("layer_bounds.py", "layer_depthwise.py", "layer_spec.py", "lowered_layer.py", "memory_image.py", "program.py", "tensor_layout.py"),
    "transfer.py",
)
"""Parts of ``sw`` that a network's instructions depend on."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Everything that a row depends on; ``system`` stands for the board's clock, memory and gateware."""

    board: str
    network: str
    bits: int
    weights: str
    images: str
    system: str
    code: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network on one board.

    Attributes
    ----------
    config, chip
        Of the board.
    clock_mhz
        At which the memory was simulated.
    refused
        Why the compiler gives no program, with the first of several layers; then the figures are 0.
    equal
        Whether all output codes are the golden model's.
    cycles, ideal_cycles, predicted_cycles, bytes_moved
        Of one frame, see :class:`~benchmarks.board_runs.ImageRun`.
    violations
        Broken rules of the memory chip.
    """

    identity: Identity
    config: str
    chip: str
    clock_mhz: float
    refused: str = ""
    equal: bool = True
    cycles: int = 0
    ideal_cycles: int = 0
    predicted_cycles: int = 0
    bytes_moved: int = 0
    violations: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing differs and no rule is broken."""
        return self.equal and self.violations == 0


class RowFile(JsonRows[Identity, Row]):
    """Rows of the table."""

    @staticmethod
    def read(values: dict[str, Any]) -> Row:
        """See :meth:`~benchmarks.row_file.JsonRows.read`."""
        return Row(identity=Identity(**values.pop("identity")), **values)


def measure(
    boards: Sequence[Board], networks: Sequence[str], widths: Sequence[int], *, data: Path | None, rows: RowFile, progress: Progress
) -> Iterator[Row]:
    """The rows, board after board; those that ``rows`` has are not measured again."""
    whole, done = len(boards) * len(networks) * len(widths), 0
    for board in boards:
        for name in networks:
            samples = read_set(CHECKPOINTS[name], data, role="eval", count=1)
            for bits in widths:
                progress("rows", done, whole)
                identity = _identity(board, name, bits, samples, data)
                if identity not in rows.rows:
                    rows.add(_row(identity, board, samples, data, scratch=rows.path.with_suffix(""), progress=progress))
                yield rows.rows[identity]
                done += 1
    progress("rows", done, whole)


def _identity(board: Board, network: str, bits: int, samples: Samples, data: Path | None) -> Identity:
    return Identity(
        board=board.name,
        network=network,
        bits=bits,
        weights=file_identity(CHECKPOINTS[network].weights(data)),
        images=samples.identity,
        system=_system_identity(board_build(board)),
        code=code_identity(_COMPILER),
    )


def _system_identity(build: SocBuild) -> str:
    digest = hashlib.sha256(f"{build!r} {build.config.hash:08x}".encode())
    for path in gateware_sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _row(identity: Identity, board: Board, samples: Samples, data: Path | None, *, scratch: Path, progress: Progress) -> Row:
    checkpoint = CHECKPOINTS[identity.network]
    model = checkpoint.build(data)
    kept = hashlib.sha256(f"{identity.weights} {code_identity()}".encode()).hexdigest()[:16]
    quantized = quantized_network(
        checkpoint,
        data,
        model,
        file=scratch / f"{identity.network}-{identity.bits}-{kept}.tq",
        calibration=_CALIBRATION,
        progress=progress,
        scheme=_SCHEMES[identity.bits],
        bits=layer_bits(model, identity.bits),
        rounding="nearest",
        bias_correction=False,
    )
    figures = {"config": board.config.name, "chip": board.memory.name, "clock_mhz": board.clock_hz / 1e6}
    try:
        network = compile_network(quantized, config=board.config, progress=progress)
    except (FitError, UnsupportedError) as error:
        return Row(identity=identity, refused="; ".join(line.strip() for line in str(error).splitlines()[:2]), **figures)
    inputs = network.inputs(normalize(samples.images, image_format=model.image_format))
    codes = {name: batch[0] for name, batch in inputs.items()}
    runs = run_on_board(board_build(board), network.program, [codes], back_door=True, progress=progress)
    (image,) = runs.images
    return Row(
        identity=identity,
        equal=image.equal,
        cycles=image.cycles,
        ideal_cycles=image.ideal_cycles,
        predicted_cycles=image.predicted_cycles,
        bytes_moved=image.bytes_moved,
        violations=runs.violations,
        **figures,
    )


def clocks(given: Sequence[str], *, bitstreams: Path, boards: Sequence[Board]) -> dict[str, float]:
    """MHz by board: as given (``BOARD=MHZ``), or the board's clock where place and route below ``bitstreams`` reached it.

    :class:`~tercel.sim.parse.UsageError` for anything else than a board and a number.
    """
    found = {}
    for board in boards:
        report = bitstreams / f"bitstream-{board.name}" / "report.json"
        if report.is_file():
            _, fmax, _ = parse_report(report.read_text(), device=board.device)
            if fmax is not None and fmax * 1e6 >= board.clock_hz:
                found[board.name] = board.clock_hz / 1e6
    for text in given:
        name, _, mhz = text.partition("=")
        try:
            found[named_board(name).name] = float(mhz)
        except ValueError:
            raise UsageError(f"clock must be BOARD=MHZ, not {text!r} (for example ulx3s-85f=60)") from None
    return found


_COLUMNS = (
    *("board", "config", "chip", "network", "weight bits"),
    *("cycles", "cycles, ideal memory", "bytes a cycle", "MHz", "frames/s"),
)


def cells(row: Row, mhz: float | None) -> list[str]:
    """A row of the table as texts; nothing for what is not known."""
    identity = row.identity
    texts = [identity.board, row.config, row.chip, identity.network, str(identity.bits)]
    if row.refused:
        return [*texts, "does not compile", "", "", "", ""]
    texts += [f"{row.cycles:,}", f"{row.ideal_cycles:,}", f"{row.bytes_moved / row.cycles:.2f}"]
    return [*texts, *(("", "") if mhz is None else (f"{mhz:g}", f"{mhz * 1e6 / row.cycles:.1f}"))]


def notes(table: Sequence[Row]) -> list[str]:
    """What the table leaves out: the compiler's reasons, and rows that are wrong."""
    found = [f"{row.identity.network}, {row.identity.bits} bits on {row.config}: {row.refused}" for row in table if row.refused]
    for row in table:
        if not row.ok:
            what = f"{row.violations} rules of the memory chip broken" if row.equal else "outputs differ from the golden model"
            found.append(f"wrong: {row.identity.network}, {row.identity.bits} bits on {row.identity.board}: {what}")
    return found


def markdown(table: Sequence[Row], mhz: dict[str, float]) -> str:
    """The table and its notes as Markdown."""
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *(cells(row, mhz.get(row.identity.board)) for row in table)]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([*text, "", *(f"* {note}" for note in notes(table)), ""])


def main(
    *,
    data: Annotated[Path | None, typer.Option(envvar="TERCEL_DATA", help="folder with weights/ and imagenet_sample/")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Markdown file; finished rows beside it as .jsonl")] = Path(
        "build/frames.md"
    ),
    boards: Annotated[str, typer.Option(help=f"any of {', '.join(BOARDS)}")] = ",".join(BOARDS),
    networks: Annotated[str, typer.Option(help=f"any of {', '.join(CHECKPOINTS)}")] = ",".join(_NETWORKS),
    bits: Annotated[str, typer.Option(help="weight bits; first, last and depthwise layers have 8")] = "8,4,2",
    clock: Annotated[list[str] | None, typer.Option(help="BOARD=MHZ, for frames/s; several times for more")] = None,
    bitstreams: Annotated[Path, typer.Option(help="folder in which tercel bitstream left its reports")] = Path("build"),
) -> None:
    """Measure frames a second. Example: python -m benchmarks.frames --networks digits --boards ulx3s-25f --clock ulx3s-25f=60."""
    chosen = [named_board(name) for name in boards.split(",")]
    for name in networks.split(","):
        if name not in CHECKPOINTS:
            raise UsageError(f"networks must be among {', '.join(CHECKPOINTS)}, not {name!r} (the trained ones)")
    for width in bits.split(","):
        if width not in map(str, _SCHEMES):
            raise UsageError(f"bits must be among {', '.join(map(str, _SCHEMES))}, not {width!r} (with commas between)")
    mhz = clocks(clock or (), bitstreams=bitstreams, boards=chosen)
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = RowFile(output.with_suffix(".jsonl"))
    widths = [int(width) for width in bits.split(",")]
    with progress_bars() as progress:
        table = list(measure(chosen, networks.split(","), widths, data=data, rows=rows, progress=progress))
    output.write_text(markdown(table, mhz))
    shown = Table(*_COLUMNS)
    for row in table:
        shown.add_row(*cells(row, mhz.get(row.identity.board)))
    results().print(shown)
    for note in notes(table):
        typer.echo(note)
    typer.echo(f"{output}: {len(table)} rows")
    raise typer.Exit(0 if all(row.ok for row in table) else DIFFERENT)


if __name__ == "__main__":
    raise SystemExit(command(main))
