"""Scikit-learn's handwritten digits as 8-bit images, in fixed parts for training, calibration and test."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

SIZE = 16
"""Side of an image: each of the 8x8 original samples is repeated twice in both directions."""

_TEST = 397
_CALIBRATION_EVERY = 14
Part = Literal["train", "calibration", "test"]


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Images ``uint8 [n, SIZE, SIZE]``, 0 black, 255 white, and labels ``int64 [n]``."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def normalized(self) -> npt.NDArray[np.float32]:
        """The network's input ``[n, 1, SIZE, SIZE]``: samples divided by 255."""
        return (self.images[:, None] / np.float32(255)).astype(np.float32)


def digits_part(part: Part) -> Digits:
    """Read one part: the last 397 of the 1797 images are for test, every 14th of the others for calibration, the rest for training.

    The images are in the order in which people wrote them, so the test images are by other hands than the training images.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    count = len(data.target)
    position = np.arange(count)
    test = position >= count - _TEST
    calibration = ~test & (position % _CALIBRATION_EVERY == 0)
    chosen = {"train": ~test & ~calibration, "calibration": calibration, "test": test}[part]
    samples = np.round(data.images[chosen] * 255 / 16).astype(np.uint8)
    return Digits(images=np.repeat(np.repeat(samples, SIZE // 8, axis=1), SIZE // 8, axis=2), labels=data.target[chosen].astype(np.int64))
