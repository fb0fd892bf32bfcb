"""What all networks of the zoo are made of."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tercel.sw.image_format import NORMALIZATIONS, ImageFormat
from tercel.sw.zoo.catalog import ZooError

PADDINGS = ("symmetric", "tensorflow")


class ImageNetwork(nn.Module):
    """A network from ``[batch, channels, size, size]`` normalized images to ``[batch, classes]`` logits."""

    image_format: ImageFormat

    def example(self, batch: int = 1) -> Tensor:
        """Zeros of the input's shape, for capturing the graph."""
        return torch.zeros(batch, self.image_format.channels, self.image_format.size, self.image_format.size)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's ``SAME``: output side ``ceil(side / stride)``, an odd rest goes right and bottom."""

    def forward(self, input: Tensor) -> Tensor:
        """Pad, then convolve without padding."""
        (top, bottom), (left, right) = (
            self._amounts(side, kernel, stride, dilation)
            for side, kernel, stride, dilation in zip(input.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        )
        return super().forward(functional.pad(input, (left, right, top, bottom)))

    @staticmethod
    def _amounts(side: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
        total = max((math.ceil(side / stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
        return total // 2, total - total // 2


def convolution(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1, padding: str) -> nn.Conv2d:
    """Make a convolution without bias; only one that needs one-sided padding is a :class:`SameConv2d`."""
    if padding == "tensorflow" and stride > 1 and kernel > 1:
        return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)


def conv_bn_relu6(
    inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1, padding: str, epsilon: float
) -> nn.Sequential:
    """Convolution, batch norm and ReLU6, named 0, 1, 2 as in torchvision."""
    conv = convolution(inputs, outputs, kernel=kernel, stride=stride, groups=groups, padding=padding)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=epsilon), nn.ReLU6(inplace=True))


def image_format(*, size: object, minimum: int, padding: object, normalization: object) -> ImageFormat:
    """Check the options that networks of photographs share."""
    if padding not in PADDINGS:
        raise ZooError(f"padding must be one of {', '.join(PADDINGS)}, not {padding!r} (tensorflow pads stride 2 right and bottom)")
    if normalization is None:
        normalization = "imagenet" if padding == "symmetric" else "unit"
    if not isinstance(normalization, str) or normalization not in NORMALIZATIONS:
        raise ZooError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, not {normalization!r} (or leave it out)")
    if type(size) is not int or size < minimum:
        raise ZooError(f"size must be a whole number from {minimum} up, not {size!r} (the image's side in pixels)")
    mean, std = NORMALIZATIONS[normalization]
    return ImageFormat(size=size, mean=mean, std=std)


def check_classes(classes: object) -> None:
    """Refuse a number of classes that is none."""
    if type(classes) is not int or classes < 1:
        raise ZooError(f"classes must be a whole number from 1 up, not {classes!r} (the network's outputs)")


def check_width(width: object) -> None:
    """Refuse a width multiplier outside 0.1..4."""
    if not isinstance(width, int | float) or isinstance(width, bool) or not 0.1 <= width <= 4:
        raise ZooError(f"width must be a number in 0.1..4, not {width!r} (it multiplies the channels; published ones are 0.25..1.4)")


def initialize(network: nn.Module) -> None:
    """Random parameters as in torchvision: He's for convolutions over the outputs, 0.01 for linear layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
