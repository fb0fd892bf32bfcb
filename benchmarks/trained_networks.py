"""A network of each training method on the machine: trained, converted, compiled, run on reference, golden model and RTL.

``python -m benchmarks.trained_networks`` trains the small ResNet of size ``digits`` once in floating point and once with each method, a
minute in all, and needs no data. What counts: every code of the golden model and the RTL is the reference's, and the integers' accuracy is
that of the network as it was trained, to within 0.3 points.
"""

import tempfile
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

import tercel
from benchmarks.errors import command
from benchmarks.training import chosen_methods
from benchmarks.training_methods import Method
from benchmarks.training_rows import (
    Data,
    Identity,
    count_float,
    layer_patterns,
    normalized_data,
    read_float,
    train_float,
    train_rounded,
)
from benchmarks.training_sizes import SIZES
from tercel.hw.config import Config
from tercel.sim.console import results
from tercel.sim.parse import parse_config
from tercel.sim.progress import progress_bars

_SIZE, _NETWORK = "digits", "resnet"
_LIMIT = 0.3
"""Points of accuracy between training and integers."""
FAILED = 1


@dataclass(frozen=True, kw_only=True)
class Proof:
    """One method. Accuracies are percents of ``images``; ``*_equal`` count images whose output codes are the reference's."""

    method: str
    images: int
    trained: float
    integers: float
    golden_images: int
    golden_equal: int
    rtl_images: int
    rtl_equal: int
    rtl_cycles: int
    predicted_cycles: int

    @property
    def ok(self) -> bool:
        """Whether all codes are equal and the accuracy is that of training."""
        equal = self.golden_equal == self.golden_images and self.rtl_equal == self.rtl_images
        return equal and abs(self.trained - self.integers) <= _LIMIT


def prove(identity: Identity, method: Method, data: Data, *, config: Config, file: Path, golden_images: int, rtl_images: int) -> Proof:
    """Train one method from the float network in ``file``, and run what comes of it."""
    model = read_float(identity, file=file)
    prepared = train_rounded(identity, method, model, data, widths=layer_patterns(model, bits=method.bits))
    network = tercel.compile(tercel.convert(prepared), config=config)
    reference = network.run(data.test, on="reference")
    expected = reference.codes[network.graph.outputs[0]]
    predicted = expected.reshape(len(expected), -1).argmax(axis=1)

    def equal(on: str, count: int) -> tuple[int, int]:
        found = network.run(data.test[:count], on=on)
        codes = found.codes[network.graph.outputs[0]]
        return sum(bool((one == other).all()) for one, other in zip(codes, expected, strict=False)), found.cycles or 0

    golden, _ = equal("golden", golden_images)
    rtl, cycles = equal("verilator", rtl_images) if rtl_images else (0, 0)
    total = len(data.test_labels)
    return Proof(
        method=method.label,
        images=total,
        trained=100 * count_float(prepared, data.test, data.test_labels) / total,
        integers=100 * float((predicted == data.test_labels.numpy()).mean()),
        golden_images=golden_images,
        golden_equal=golden,
        rtl_images=rtl_images,
        rtl_equal=rtl,
        rtl_cycles=cycles,
        predicted_cycles=network.profile.cycles,
    )


def trained_networks(
    *,
    config: Annotated[str, typer.Option(help="named config")] = "small",
    methods: Annotated[list[str] | None, typer.Option(help="pattern of methods' labels; several times for more")] = None,
    golden: Annotated[int, typer.Option(min=1, help="images on the golden model")] = 8,
    rtl: Annotated[int, typer.Option(min=0, help="images on the RTL")] = 1,
    seed: Annotated[int, typer.Option(help="of weights and batches")] = 0,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Train a network with each method and run it on reference, golden model and RTL."""
    torch.set_num_threads(1)
    machine = parse_config(config, None)
    chosen = [method for method in chosen_methods(methods or ["*"]) if method.way == "training" and not method.like]
    identity = Identity(size=_SIZE, network=_NETWORK, method="float", seed=seed, code="")
    proofs = []
    with progress_bars() as progress, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "float.safetensors"
        progress("methods", 0, len(chosen))
        data = normalized_data(SIZES[_SIZE], SIZES[_SIZE].read(None))
        train_float(identity, data, file=file)
        for number, method in enumerate(chosen, start=1):
            proofs.append(prove(identity, method, data, config=machine, file=file, golden_images=golden, rtl_images=rtl))
            progress("methods", number, len(chosen))
    if json:
        typer.echo(dumps([asdict(proof) | {"ok": proof.ok} for proof in proofs], indent=2))
    else:
        results().print(_table(proofs, config=machine))
    raise typer.Exit(0 if all(proof.ok for proof in proofs) else FAILED)


def _table(proofs: list[Proof], *, config: Config) -> Table:
    columns = ("method", "as trained", "integers", "golden = reference", "RTL = reference", "RTL cycles", "cycle model", "")
    table = Table(*columns, title=f"{_NETWORK} on {_SIZE}, config {config.name}")
    for proof in proofs:
        table.add_row(
            proof.method,
            f"{proof.trained:.2f} %",
            f"{proof.integers:.2f} %",
            f"{proof.golden_equal} of {proof.golden_images}",
            f"{proof.rtl_equal} of {proof.rtl_images}",
            f"{proof.rtl_cycles:,}",
            f"{proof.predicted_cycles:,}",
            "" if proof.ok else "differs",
        )
    return table


if __name__ == "__main__":
    raise SystemExit(command(trained_networks))
