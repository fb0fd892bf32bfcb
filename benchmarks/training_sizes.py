"""How large the table of trained networks is: its data, networks and the length of training."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tercel.sim.parse import UsageError
from tercel.sw.image_format import NORMALIZATIONS, ImageFormat
from tercel.sw.zoo.digits_data import SIZE as DIGITS_SIZE
from tercel.sw.zoo.digits_data import digits_part

if TYPE_CHECKING:
    from tercel.sw.zoo.network import ImageNetwork

Bytes = npt.NDArray[np.uint8]
_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Images:
    """8-bit images ``[n, height, width]`` or ``[n, height, width, 3]`` and their classes ``[n]``, to train on and to test on."""

    train: Bytes
    train_labels: Bytes
    test: Bytes
    test_labels: Bytes


def _digits(_: Path | None) -> Images:
    train, test = digits_part("train"), digits_part("test")
    return Images(
        train=train.images,
        train_labels=train.labels.astype(np.uint8),
        test=test.images,
        test_labels=test.labels.astype(np.uint8),
    )


def _file(data: Path | None, name: str) -> Path:
    path = (data or Path()) / name
    if data is None or not path.is_file():
        raise UsageError(f"data must be a folder with {name}, not {data} (pass --data, or take size digits)")
    return path


def _fashion_mnist(data: Path | None) -> Images:
    with np.load(_file(data, "fashion_mnist/fashion_mnist.npz")) as file:
        return Images(train=file["x_train"], train_labels=file["y_train"], test=file["x_test"], test_labels=file["y_test"])


def _cifar10(data: Path | None) -> Images:
    train, test = (_photographs(_file(data, f"cifar10/cifar10_jpeg_{part}.npz")) for part in ("train20k", "test"))
    return Images(train=train[0], train_labels=train[1], test=test[0], test_labels=test[1])


def _photographs(path: Path) -> tuple[Bytes, Bytes]:
    from PIL import Image

    with np.load(path) as file:
        joined, ends = file["jpeg"], file["offset"]
        streams = (joined[start:end].tobytes() for start, end in pairwise(ends))
        return np.stack([np.asarray(Image.open(io.BytesIO(stream))) for stream in streams]), file["label"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """One size of the table.

    Parameters
    ----------
    read
        Gives the images, from the data folder.
    image_format
        What the networks want of them.
    networks
        Makes a network by name.
    images
        To train on, the first of all; they are shuffled once.
    float_epochs, epochs
        Passes over them: of the float network, and of the rounded one that starts from it.
    seeds
        Networks of each kind.
    """

    read: Callable[[Path | None], Images]
    image_format: ImageFormat
    networks: Mapping[str, Callable[[ImageFormat], "ImageNetwork"]]
    images: int
    float_epochs: int
    epochs: int
    seeds: int


def _resnet(image_format: ImageFormat, *, width: int, blocks: int) -> "ImageNetwork":
    from tercel.sw.zoo.resnet20 import ResNet20

    return ResNet20(classes=_CLASSES, image_format=image_format, widths=(width, 2 * width, 4 * width), blocks=blocks)


def _mobilenet(image_format: ImageFormat, *, stem_stride: int, groups: list[tuple[int, int, int, int]], last: int) -> "ImageNetwork":
    from tercel.sw.zoo.mobilenet_v2 import MobileNetV2

    return MobileNetV2(
        stem_channels=16,
        stem_stride=stem_stride,
        groups=groups,
        last_channels=last,
        classes=_CLASSES,
        padding="symmetric",
        dropout=0.1,
        image_format=image_format,
    )


def _small_mobilenet(image_format: ImageFormat) -> "ImageNetwork":
    return _mobilenet(image_format, stem_stride=2, groups=[(1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 2, 1)], last=128)


def _large_mobilenet(image_format: ImageFormat) -> "ImageNetwork":
    return _mobilenet(image_format, stem_stride=1, groups=[(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 3, 2)], last=256)


SIZES = {
    "digits": Size(
        read=_digits,
        image_format=ImageFormat(size=DIGITS_SIZE, mean=(0.0,), std=(1.0,)),
        networks={"resnet": lambda image_format: _resnet(image_format, width=8, blocks=1)},
        images=640,
        float_epochs=8,
        epochs=2,
        seeds=1,
    ),
    "quick": Size(
        read=_fashion_mnist,
        image_format=ImageFormat(size=28, mean=(0.286,), std=(0.353,)),
        networks={"resnet": lambda image_format: _resnet(image_format, width=8, blocks=2), "mobilenet_v2": _small_mobilenet},
        images=20_000,
        float_epochs=6,
        epochs=3,
        seeds=3,
    ),
    "full": Size(
        read=_cifar10,
        image_format=ImageFormat(size=32, mean=NORMALIZATIONS["imagenet"][0], std=NORMALIZATIONS["imagenet"][1]),
        networks={"resnet": lambda image_format: _resnet(image_format, width=16, blocks=3), "mobilenet_v2": _large_mobilenet},
        images=20_000,
        float_epochs=60,
        epochs=20,
        seeds=3,
    ),
}
