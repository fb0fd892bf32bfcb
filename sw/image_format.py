"""How a network wants its image: side, channels and normalization, as plain data that files and commands can carry."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """A square image of 8-bit samples, normalized as ``x = (sample / 255 - mean) / std`` per channel.

    Parameters
    ----------
    size
        Height and width in pixels.
    mean, std
        One a channel, in units of the full range: 0.5 is the sample 127.5. Three channels are red, green, blue; one is grey.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, not {self.size!r} (the image's side in pixels)")
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ValueError(f"mean and std must have 1 or 3 values each, not {self.mean!r} and {self.std!r} (grey or RGB)")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError(f"std must be above 0 and all values finite, not mean {self.mean!r}, std {self.std!r} (it divides)")

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return len(self.mean)

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest normalized value of any channel."""
        pairs = list(zip(self.mean, self.std, strict=True))
        return min(-mean / std for mean, std in pairs), max((1 - mean) / std for mean, std in pairs)


NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and std by name: ``imagenet`` is the one of torchvision's networks, ``unit`` (-1..1) that of TensorFlow's."""
