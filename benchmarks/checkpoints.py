"""The trained networks that are measured, and the images that they are measured on.

The data folder has ``weights/`` with the files below and ``imagenet_sample/`` with prepared photographs and their ``labels.csv``
(columns file, label, source, role; role ``calib`` or ``eval``). The digits come with the package and scikit-learn.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from tercel.sim.parse import UsageError
from tercel.sw import zoo
from tercel.sw.image_format import ImageFormat
from tercel.sw.images import normalize, read_labels, read_samples

if TYPE_CHECKING:
    from torch import Tensor

    from tercel.sw.zoo.network import ImageNetwork

_PHOTOGRAPHS = "imagenet_sample"
_BATCH = 16
Role = Literal["calib", "eval"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network of the zoo with its weights; ``file`` is None for those that come with the package. ``note`` goes below tables.

    ``statistics`` names a file of means and standard deviations of each convolution's outputs, from which batch norms are rebuilt that
    the weights have no more.
    """

    name: str
    network: str
    options: Mapping[str, object] = field(default_factory=dict)
    file: str | None = None
    statistics: str | None = None
    note: str = ""

    def weights(self, data: Path | None) -> Path:
        """The file of weights; :class:`~tercel.sim.parse.UsageError` if it needs a data folder that is not there."""
        if self.file is None:
            shipped = zoo.shipped_weights(self.network)
            assert shipped is not None
            return shipped
        path = _data_folder(self.name, data) / "weights" / self.file
        if not path.is_file():
            raise UsageError(f"{path}: no such file (data must be a folder with weights/{self.file}, or choose other networks)")
        return path

    def build(self, data: Path | None) -> "ImageNetwork":
        """The network with its weights, in evaluation mode."""
        model = zoo.build(self.network, **self.options)
        zoo.load_weights(model, self.weights(data))
        if self.statistics is not None:
            _rebuild_norms(model, self.weights(data).parent / self.statistics)
        return model


CHECKPOINTS = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint(
            name="mobilenet_v1_0.25", network="mobilenet_v1", options={"width": 0.25}, file="mobilenet_v1_0.25_keras.pth", note="Keras"
        ),
        Checkpoint(name="mobilenet_v2", network="mobilenet_v2", file="mobilenet_v2_1.0_bnfolded.pth", note="torchvision"),
        Checkpoint(
            name="mobilenet_v2_norms",
            network="mobilenet_v2",
            file="mobilenet_v2_1.0_bnfolded.pth",
            statistics="mobilenet_v2_1.0_bnfolded_preact_stats.npz",
            note="torchvision; batch norms rebuilt from channel statistics that were measured on the calibration photographs",
        ),
        Checkpoint(
            name="mobilenet_v2_tf",
            network="mobilenet_v2",
            options={"padding": "tensorflow"},
            file="mobilenet_v2_1.0_tf_int8grid.pth",
            note="TensorFlow; its weights lie on an 8-bit grid per channel, so 8 bits per channel lose nothing by construction",
        ),
        Checkpoint(name="digits", network="digits", note="trained by the package"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Images ``uint8 [n, size, size, channels]``, labels ``[n]`` and where each image comes from."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    sources: tuple[str, ...]

    def with_mirrored(self) -> "Samples":
        """These images, and after them each once more with left and right exchanged."""
        return Samples(
            images=np.concatenate([self.images, self.images[:, :, ::-1]]),
            labels=np.concatenate([self.labels, self.labels]),
            sources=self.sources * 2,
        )

    @property
    def identity(self) -> str:
        """A digest of images and labels."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()[:16]

    def batches(self, image_format: ImageFormat) -> "Iterator[Tensor]":
        """The images as normalized tensors ``[up to 16, channels, size, size]``."""
        import torch

        for start in range(0, len(self.labels), _BATCH):
            yield torch.from_numpy(normalize(self.images[start : start + _BATCH], image_format=image_format))


def read_set(checkpoint: Checkpoint, data: Path | None, *, role: Role, count: int | None) -> Samples:
    """Images for a network: all with a role, or ``count`` of them evenly spread over the list.

    :class:`~tercel.sim.parse.UsageError` without a data folder, :class:`~tercel.sw.images.ImageError` for one that is not as above.
    """
    if checkpoint.network == "digits":
        from tercel.sw.zoo.digits_data import digits_part

        digits = digits_part("calibration" if role == "calib" else "test")
        chosen = _spread(len(digits.labels), count)
        return Samples(images=digits.images[chosen, ..., None], labels=digits.labels[chosen], sources=("digits",) * len(chosen))
    folder = _data_folder(checkpoint.name, data) / _PHOTOGRAPHS
    listed = read_labels(folder, role=role)
    photographs = [listed[index] for index in _spread(len(listed), count)]
    image_format = zoo.build(checkpoint.network, **checkpoint.options).image_format
    return Samples(
        images=np.stack([read_samples(photograph.path, image_format=image_format) for photograph in photographs]),
        labels=np.array([photograph.label for photograph in photographs]),
        sources=tuple(photograph.path.parent.name for photograph in photographs),
    )


def _rebuild_norms(model: "ImageNetwork", path: Path) -> None:
    """Give each batch norm, an identity that adds a bias, the statistics of its outputs; what the network computes stays."""
    import torch
    from torch import nn

    if not path.is_file():
        raise UsageError(f"{path}: no such file (it holds <convolution>.mean and .std, or choose other networks)")
    known = np.load(path)
    convolution = ""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = name
        elif isinstance(module, nn.BatchNorm2d):
            mean, std = (torch.from_numpy(known[f"{convolution}.{kind}"]).float() for kind in ("mean", "std"))
            variance = (std.square() - module.eps).clamp(min=0)
            assert isinstance(module.running_mean, torch.Tensor) and isinstance(module.running_var, torch.Tensor)
            module.running_mean.copy_(mean - module.bias.detach())
            module.running_var.copy_(variance)
            module.weight.data.copy_((variance + module.eps).sqrt())
            module.bias.data.copy_(mean)


def _spread(total: int, count: int | None) -> npt.NDArray[np.int64]:
    wanted = total if count is None else min(count, total)
    return np.arange(wanted) * total // wanted


def _data_folder(name: str, data: Path | None) -> Path:
    if data is None:
        raise UsageError(f"data must be a folder for {name}, not left out (give --data or set TERCEL_DATA; digits needs none)")
    if not data.is_dir():
        raise UsageError(f"data must be a folder, not {data} (it holds weights/ and {_PHOTOGRAPHS}/)")
    return data
