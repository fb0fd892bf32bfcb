"""Network inputs from files: arrays and photographs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tercel.sim.parse import UsageError
from tercel.sw.image_format import NORMALIZATIONS, ImageFormat

ARRAYS = (".npy", ".npz")


def read_input(paths: Sequence[Path], *, image_format: ImageFormat | None, resize: bool = False) -> Any:
    """What :func:`~tercel.sim.tensors.input_codes` takes, from files.

    Parameters
    ----------
    paths
        One ``.npy`` with floats (NCHW) or codes (NHWC), one ``.npz`` with an array for each of the network's inputs by name, or any number
        of photographs and folders of them.
    image_format
        How photographs become its input; None where it is not known.
    resize
        See :func:`~tercel.sw.images.read_samples`.

    :class:`~tercel.sim.parse.UsageError` for other files, :class:`~tercel.sw.images.ImageError` for photographs that cannot be used.
    """
    if any(path.suffix in ARRAYS for path in paths):
        return _read_array(paths)
    from tercel.sw.images import image_files, read_images

    if image_format is None:
        raise UsageError(
            f"input must be a .npy or .npz file, not {paths[0]} (the program does not say how photographs become its input; "
            f"--normalization does, one of {', '.join(NORMALIZATIONS)})"
        )
    return read_images([file for path in paths for file in image_files(path)], image_format=image_format, resize=resize)


def image_format_of(shape: tuple[int, ...], stored: ImageFormat | None, *, normalization: str | None) -> ImageFormat | None:
    """The stored format, or that of a named normalization; ``shape`` is that of the network's input: channels, height, width."""
    if normalization is None:
        return stored
    if normalization not in NORMALIZATIONS:
        raise UsageError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, not {normalization!r} (mean and std of the training)")
    mean, std = NORMALIZATIONS[normalization]
    if len(shape) != 3 or shape[1] != shape[2] or shape[0] != len(mean):
        text = "x".join(str(side) for side in (*shape[1:], *shape[:1]))
        raise UsageError(f"normalization must be left out for an input of {text} (give a .npy file)")
    return ImageFormat(size=shape[1], mean=mean, std=std)


def _read_array(paths: Sequence[Path]) -> Any:
    if len(paths) > 1:
        raise UsageError(f"input must be one array file, not {len(paths)} files (stack the images into a batch)")
    try:
        loaded = np.load(paths[0], allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"input must be an array file, but {paths[0]} is not: {reason} (write it with numpy.save)") from error
    return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
