"""Calibration images: checking them, and showing them to a prepared network."""

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.fx import GraphModule

from tercel.sw.quantize.errors import QuantizeError

KEPT_IMAGES = 128
"""Images that weights are rounded and biases corrected on; the largest tensors of all of them are in memory at once."""


def check_images(batch: object, *, name: str) -> Tensor:
    """``batch`` in float32 on the CPU; :class:`~tercel.sw.quantize.errors.QuantizeError` if it is no batch of normalised images."""
    if not isinstance(batch, Tensor):
        raise QuantizeError(f"{name} must be a tensor of images, not {type(batch).__name__} (leave out the labels)")
    if not batch.is_floating_point():
        raise QuantizeError(f"{name} must hold real numbers, not {batch.dtype} (normalise the images as the network expects)")
    if batch.dim() != 4:
        raise QuantizeError(f"{name} must have the shape [images, channels, height, width], not {list(batch.shape)} "
                            "(add a batch dimension with [None])")  # fmt: skip
    if not bool(torch.isfinite(batch).all()):
        raise QuantizeError(f"{name} must be finite, but holds NaN or infinity (check how the images are normalised)")
    return batch.detach().to(device="cpu", dtype=torch.float32)


class CalibrationImages:
    """A stream of single images out of a user's batches, checked one by one.

    Parameters
    ----------
    batches
        Tensors ``[images, channels, height, width]``, or one such tensor. Read once.
    """

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._batches = iter([batches] if isinstance(batches, Tensor) else batches)
        self.batch_count = 1 if isinstance(batches, Tensor) else operator.length_hint(batches)
        first = next(self._batches, None)
        if first is None:
            raise QuantizeError("calibration must hold at least one image, but is empty (a few dozen are enough)")
        self._first = self._check(first, 0, None)
        if not len(self._first):
            raise QuantizeError("calibration[0] must hold at least one image, not 0 (a few dozen are enough)")
        self.example = self._first[:1]
        self._singles = self._split()
        self._ahead: list[tuple[int, Tensor]] = []

    def first(self, count: int) -> list[Tensor]:
        """The first ``count`` images, or all if there are fewer, each ``[1, channels, height, width]``; before any iteration."""
        self._ahead += itertools.islice(self._singles, max(0, count - len(self._ahead)))
        return [image for _, image in self._ahead[:count]]

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Number of the batch and an image ``[1, channels, height, width]``; only once."""
        return itertools.chain(self._ahead, self._singles)

    def _split(self) -> Iterator[tuple[int, Tensor]]:
        for image in self._first:
            yield 0, image[None]
        for number, batch in enumerate(self._batches, start=1):
            for image in self._check(batch, number, self._first):
                yield number, image[None]

    @staticmethod
    def _check(batch: object, number: int, first: Tensor | None) -> Tensor:
        name = f"calibration[{number}]"
        images = check_images(batch, name=name)
        if first is not None and images.shape[1:] != first.shape[1:]:
            raise QuantizeError(f"{name} must hold images of {list(first.shape[1:])} as calibration[0] does, not {list(images.shape[1:])} "
                                "(resize or crop them)")  # fmt: skip
        return images


@torch.no_grad()
def calibrate(
    graph_module: GraphModule, images: CalibrationImages, *, progress: Callable[[int, int], None], keep: int = KEPT_IMAGES
) -> list[Tensor]:
    """Show every image to the observers of a prepared network; returns the first ``keep`` for later.

    ``progress`` is called with the number of batches done and their total, 0 where it cannot be known.
    """
    kept: list[Tensor] = []
    current = 0
    for number, image in images:
        if number != current:
            progress(number, images.batch_count)
            current = number
        graph_module(image)
        if len(kept) < keep:
            kept.append(image)
    progress(current + 1, images.batch_count)
    return kept
