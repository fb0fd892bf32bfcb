"""Post-training quantization of PyTorch networks to what the machine runs.

Importing the package does not import torch; its functions do, when they are called.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tercel.sw.quantize.errors import QuantizedFileError, QuantizeError
from tercel.sw.quantize.roundings import ROUNDINGS, Rounding
from tercel.sw.quantize.scheme import Scheme
from tercel.sw.quantize.schemes import SCHEMES

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

__all__ = [
    "ROUNDINGS",
    "SCHEMES",
    "QuantizeError",
    "QuantizedFileError",
    "Rounding",
    "Scheme",
    "load_quantized",
    "quantize",
    "save_quantized",
]


def quantize(
    model: "nn.Module",
    *,
    calibration: "Iterable[Tensor] | None" = None,
    example: "Tensor | None" = None,
    input_range: tuple[float, float] = (-3.0, 3.0),
    scheme: str | Scheme = "shift8",
    bits: int | Mapping[str, int] | None = None,
    bias_correction: bool = True,
    rounding: Rounding | None = None,
    equalization: bool = False,
    rounding_steps: int = 250,
    checkpoint: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> "ExportedProgram":
    """Quantize a network after its training, on calibration images or without any data.

    Batch norms are folded; activations get 8-bit codes whose range loses the least squared error of what the calibration images show;
    weights get the scheme's scales, and are rounded so that their errors cancel; biases are corrected for the mean error of their
    channel. The result is an ordinary
    ``torch.export`` program of quantize, dequantize and float operators that takes one image ``[1, channels, height, width]``, and
    the input of :func:`tercel.sw.importer.import_exported`. Module names and source lines stay in the nodes' metadata.

    Parameters
    ----------
    model
        Stays as it is. It is quantized in evaluation mode, in float32, on the CPU.
    calibration
        Batches ``[images, channels, height, width]`` of normalised images, or one such tensor; read once. A few dozen images do. None
        to quantize without images: then the batch norms tell the mean and standard deviation of each channel, from which ranges and
        corrections of biases follow (Nagel et al., arXiv 1906.04721). Through layers without a batch norm, both are carried on from an
        input taken as standard normal.
    example
        Without calibration, an input ``[1, channels, height, width]``. Only its shape counts.
    input_range
        Without calibration, the smallest and largest value of an input: what black and white become when they are normalised.
    scheme
        A name in :data:`SCHEMES` or a :class:`Scheme`.
    bits
        Weight bits, 2..8: for all layers, or by patterns on module names (``{"*": 8, "features.1*": 4}``), where the last one that
        matches counts. None, and layers that no pattern matches, take the scheme's own.
    bias_correction
        Whether to correct biases, on the first 128 images, or for the inputs that batch norms let expect.
    rounding
        ``nearest`` takes each weight to its nearest code, as the scheme sees it. ``compensated`` lets the errors of an output's weights
        cancel on the first 128 images, layer by layer, and with 5 bits or less also finds better scales. ``learned`` goes on from there,
        block of layers by block, and finds codes and biases by gradient descent on the block's outputs on the first 256 images; it keeps
        what every fourth image, held out, shows to be better. It is slow, and a few hundred images seldom give it much to gain. None is
        ``compensated`` with images and ``nearest`` without, where there is no other.
    equalization
        Whether to scale channels between layers so that one scale fits a layer's weights better (cross-layer equalization). The network
        computes the same; schemes with a scale or shift per channel gain little.
    rounding_steps
        Steps of gradient descent in each block, for ``learned``.
    checkpoint
        A folder where ``learned`` keeps finished blocks: the same call goes on behind the last of them. None to keep nothing.
    progress
        Called with the steps done, their total (0 where it is unknown), and what they are.

    Raises
    ------
    QuantizeError
        For arguments out of range, values that are not finite, images that do not fit each other or the network, and networks that
        ``torch.export`` refuses.
    """
    from tercel.sw.quantize.flow import quantize_model

    return quantize_model(
        model,
        calibration=calibration,
        example=example,
        input_range=input_range,
        scheme=scheme,
        bits=bits,
        bias_correction=bias_correction,
        rounding=rounding,
        equalization=equalization,
        rounding_steps=rounding_steps,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        progress=progress,
    )


def save_quantized(program: "ExportedProgram", path: str | Path) -> None:
    """Write a quantized network to a file, which ``torch.export.load`` reads too."""
    from tercel.sw.quantize.quantized_file import write_program

    write_program(program, Path(path))


def load_quantized(path: str | Path) -> "ExportedProgram":
    """Read what :func:`save_quantized` wrote.

    Raises
    ------
    QuantizedFileError
        For a file that is missing, damaged, or no quantized network.
    """
    from tercel.sw.quantize.quantized_file import read_program

    return read_program(Path(path))
