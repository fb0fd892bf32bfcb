"""What quantization knows of a network's activations: calibration images, or (in its data-free form) batch norms."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor
from torch.fx import GraphModule, Node

from tercel.sw.quantize.calibration import KEPT_IMAGES, CalibrationImages, calibrate
from tercel.sw.quantize.link_statistics import LinkStatistics, measure_links
from tercel.sw.quantize.links import Link, channel_maxima
from tercel.sw.quantize.rounding import images_to_keep, round_network
from tercel.sw.quantize.roundings import Rounding

Report = Callable[[str], Callable[[int, int], None]]


class Evidence(ABC):
    """Knowledge of one network's activations. ``example`` is an input ``[1, channels, height, width]`` of the network's shape."""

    example: Tensor

    @abstractmethod
    def read(self, captured: GraphModule) -> None:
        """Take what a captured graph tells, before its batch norms are folded."""

    @abstractmethod
    def maxima(self, prepared: GraphModule, links: Sequence[Link]) -> Mapping[Node, Tensor]:
        """Largest value of each channel before it is clamped, float32 ``[channels]`` by layer."""

    @abstractmethod
    def statistics(self, prepared: GraphModule, links: Sequence[Link]) -> Mapping[Node, LinkStatistics]:
        """What the channels of links are like, by layer, once the observers have seen the activations."""

    @abstractmethod
    def observe(self, prepared: GraphModule, *, report: Report) -> None:
        """Show the activations to the observers of a prepared graph."""

    @abstractmethod
    def round_weights(self, prepared: GraphModule, *, bias_correction: bool, report: Report) -> None:
        """Round all weights and correct the biases; the weights' scales must be chosen."""


class ImageEvidence(Evidence):
    """Calibration images.

    Parameters
    ----------
    images
        Read once.
    rounding, steps, checkpoint
        See :func:`tercel.sw.quantize.quantize`.

    Attributes
    ----------
    kept
        The images that rounding looks at, each ``[1, channels, height, width]``; there once the observers have seen all.
    """

    def __init__(self, images: CalibrationImages, *, rounding: Rounding, steps: int, checkpoint: Path | None) -> None:
        self.images, self.example = images, images.example
        self.rounding, self.steps, self.checkpoint = rounding, steps, checkpoint
        self.kept: list[Tensor] = []

    def read(self, captured: GraphModule) -> None:
        """Nothing: the images tell everything."""

    def maxima(self, prepared: GraphModule, links: Sequence[Link]) -> Mapping[Node, Tensor]:
        """On the first images."""
        return channel_maxima(prepared, links, self.kept[:KEPT_IMAGES] or self.images.first(KEPT_IMAGES))

    def statistics(self, prepared: GraphModule, links: Sequence[Link]) -> Mapping[Node, LinkStatistics]:
        """On the first images."""
        return measure_links(prepared, links, self.kept[:KEPT_IMAGES])

    def observe(self, prepared: GraphModule, *, report: Report) -> None:
        """All images."""
        self.kept = calibrate(prepared, self.images, keep=images_to_keep(self.rounding), progress=report("calibrate"))

    def round_weights(self, prepared: GraphModule, *, bias_correction: bool, report: Report) -> None:
        """On the first images."""
        round_network(
            prepared,
            self.kept,
            rounding=self.rounding,
            steps=self.steps,
            checkpoint=self.checkpoint,
            bias_correction=bias_correction,
            report=report,
        )
