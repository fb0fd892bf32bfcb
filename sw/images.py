"""Photographs as network input: opened, brought to size, normalized, and found in folders with or without labels."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tercel.sw.image_format import ImageFormat

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float32]
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Files that count as images in a folder."""

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's modes of at most 8 bits a channel."""
_MARGIN = 256 / 224
_COLUMNS = ("file", "label", "role")


class ImageError(ValueError):
    """An image or a list of images that cannot be used. The message names the file, the limit, the value and a way out."""


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """A line of ``labels.csv``: ``label`` counts classes from 0, ``role`` is what the image is for (``calib`` or ``eval``)."""

    path: Path
    label: int
    role: str


def read_samples(path: Path, *, image_format: ImageFormat, resize: bool = False) -> npt.NDArray[np.uint8]:
    """Samples ``uint8 [size, size, channels]`` of an image file.

    Without ``resize`` the image must have exactly the network's size. With it, the shorter side is brought to ``size * 256 / 224``
    (bilinear, antialiased) and the middle is cut out: the preparation that published ImageNet networks were tested with. Colour
    becomes grey, or grey colour, as the network has channels; transparency is dropped.
    Raises :class:`ImageError` for a file that is no image, more than 8 bits a channel, or another size.
    """
    size = image_format.size
    try:
        with Image.open(path) as opened:
            if opened.mode not in _MODES:
                raise ImageError(f"{path}: image has mode {opened.mode}, not one of {', '.join(_MODES)} (save it with 8 bits a channel)")
            image = opened.convert("RGB" if image_format.channels == 3 else "L")
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image (give the path of a file)") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be read as an image: {_reason(error)} (give one of {', '.join(SUFFIXES)})") from None
    if resize and image.size != (size, size):
        image = _centre(image, size)
    if image.size != (size, size):
        width, height = image.size
        raise ImageError(f"{path}: image is {width}x{height}, the network takes {size}x{size} (resize it, or ask for resizing)")
    return np.asarray(image, dtype=np.uint8).reshape(size, size, image_format.channels)


def normalize(samples: npt.NDArray[np.uint8], *, image_format: ImageFormat) -> Floats:
    """Samples ``[..., height, width, channels]`` to the network's input ``float32 [..., channels, height, width]``."""
    mean, std = (np.asarray(values, dtype=np.float32) for values in (image_format.mean, image_format.std))
    scaled = (samples.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def read_images(paths: Sequence[Path], *, image_format: ImageFormat, resize: bool = False) -> Floats:
    """Image files to one input ``float32 [n, channels, size, size]``. Raises :class:`ImageError` as :func:`read_samples`."""
    if not paths:
        return np.zeros((0, image_format.channels, image_format.size, image_format.size), dtype=np.float32)
    samples = np.stack([read_samples(path, image_format=image_format, resize=resize) for path in paths])
    return normalize(samples, image_format=image_format)


def image_batches(paths: Sequence[Path], *, image_format: ImageFormat, batch: int = 16, resize: bool = False) -> "Iterator[Tensor]":
    """Tensors ``[up to batch, channels, size, size]`` of image files, read as they are asked for: calibration data."""
    import torch

    for start in range(0, len(paths), batch):
        yield torch.from_numpy(read_images(paths[start : start + batch], image_format=image_format, resize=resize))


def image_files(path: Path) -> list[Path]:
    """The images of a folder and its sub-folders, sorted; a file stands for itself. Raises :class:`ImageError` if there are none."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not found:
        state = "holds no image" if path.is_dir() else "does not exist"
        raise ImageError(f"{path}: the folder {state} (give one with {', '.join(SUFFIXES)} files)")
    return found


def read_labels(folder: Path, *, role: str | None = None) -> list[LabelledImage]:
    """The images that ``labels.csv`` in ``folder`` lists, all or those of one ``role``, in its order.

    The file has a header line with at least ``file`` (relative to the folder), ``label`` and ``role``. Raises :class:`ImageError`.
    """
    path = folder / "labels.csv"
    if not path.is_file():
        raise ImageError(f"{path}: no such file (the folder needs a table with the columns {', '.join(_COLUMNS)})")
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        absent = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if absent:
            raise ImageError(f"{path}: no column {absent[0]} (the first line names {', '.join(_COLUMNS)})")
        listed = [_labelled(folder, path, line, row) for line, row in enumerate(table, start=2)]
    chosen = [image for image in listed if role in (None, image.role)]
    if not chosen:
        roles = ", ".join(sorted({image.role for image in listed}))
        raise ImageError(f"{path}: no image with role {role!r} (the roles there are {roles or 'none'})")
    return chosen


def _labelled(folder: Path, table: Path, line: int, row: dict[str, str]) -> LabelledImage:
    if not (row["file"] and (row["label"] or "").isdecimal() and row["role"] is not None):
        raise ImageError(f"{table}:{line}: label must be a whole number from 0 up, not {row['label']!r} (it counts the classes)")
    return LabelledImage(path=folder / row["file"], label=int(row["label"]), role=row["role"])


def _centre(image: Image.Image, size: int) -> Image.Image:
    short = round(size * _MARGIN)
    width, height = image.size
    if width <= height:
        width, height = short, max(short, short * height // width)
    else:
        width, height = max(short, short * width // height), short
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _reason(error: Exception) -> str:
    return str(error).split("\n")[0][:120] or type(error).__name__
