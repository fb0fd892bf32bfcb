"""Trained networks, quantized: read from the file that an earlier run left, or made and kept there."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.checkpoints import Checkpoint, read_set
from tercel.sim.execution import Progress
from tercel.sim.quantized_file import load_quantized_file, save_quantized_file
from tercel.sw.quantize import quantize

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from tercel.sw.zoo.network import ImageNetwork


def quantized_network(
    checkpoint: Checkpoint,
    data: Path | None,
    model: "ImageNetwork",
    *,
    file: Path | None,
    calibration: int | None,
    progress: Progress,
    **options: Any,
) -> "ExportedProgram":
    """``model`` in integers.

    Parameters
    ----------
    checkpoint, data
        Where its calibration images come from.
    model
        With its weights.
    file
        Read if it is there, whatever the other arguments are; else written. None keeps nothing.
    calibration
        Images; None takes all.
    progress
        See :data:`~tercel.sim.execution.Progress`.
    options
        Of :func:`~tercel.sw.quantize.quantize`.
    """
    if file is not None and file.is_file():
        return load_quantized_file(file).program
    samples = read_set(checkpoint, data, role="calib", count=calibration)
    program = quantize(
        model,
        calibration=samples.batches(model.image_format),
        progress=lambda done, total, what: progress(what, done, total),
        **options,
    )
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"partial-{file.name}")  # what an interruption leaves is not taken for the network
        save_quantized_file(program, partial, image_format=model.image_format)
        partial.replace(file)
    return program
