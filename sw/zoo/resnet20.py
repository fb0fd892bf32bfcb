"""ResNet-20 for 32x32 images, with shortcuts that have no parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tercel.sw.image_format import ImageFormat
from tercel.sw.zoo.network import ImageNetwork, check_classes, convolution, image_format, initialize

_WIDTHS = (16, 32, 64)
_BLOCKS = 3


class ResNet20(ImageNetwork):
    """``conv1``, ``bn1``, ``layer{1..3}.{0..2}``, global average pool, ``linear``.

    Parameters
    ----------
    widths
        Channels of the three groups, each at least those of the one before.
    blocks
        In each group.
    """

    def __init__(self, *, classes: int, image_format: ImageFormat, widths: Sequence[int] = _WIDTHS, blocks: int = _BLOCKS) -> None:
        super().__init__()
        self.image_format = image_format
        self.conv1 = convolution(image_format.channels, widths[0], kernel=3, padding="symmetric")
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        inputs = (widths[0], *widths)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(_Block(inputs[i] if j == 0 else width, width) for j in range(blocks))) for i, width in enumerate(widths)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[-1], classes)
        initialize(self)

    def forward(self, input: Tensor) -> Tensor:
        """Images to logits."""
        x = self.relu(self.bn1(self.conv1(input)))
        logits: Tensor = self.linear(self.pool(self.layer3(self.layer2(self.layer1(x)))).flatten(1))
        return logits


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        widens = inputs != outputs
        self.conv1 = convolution(inputs, outputs, kernel=3, stride=2 if widens else 1, padding="symmetric")
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = convolution(outputs, outputs, kernel=3, padding="symmetric")
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU(inplace=True)
        self.shortcut = _Widen(inputs, outputs) if widens else None

    def forward(self, input: Tensor) -> Tensor:
        short = input if self.shortcut is None else self.shortcut(input)
        output: Tensor = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(input))))) + short)
        return output


class _Widen(nn.Module):
    """Every second pixel, zeros as new channels on both sides: a 1x1 convolution with a one-hot weight, which the machine has."""

    weight: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        weight = torch.zeros(outputs, inputs, 1, 1)
        first = (outputs - inputs) // 2
        weight[first : first + inputs, :, 0, 0] = torch.eye(inputs)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return functional.conv2d(input, self.weight, stride=2)


def resnet20(*, size: int = 32, classes: int = 10) -> ResNet20:
    """Make a ResNet-20."""
    check_classes(classes)
    return ResNet20(classes=classes, image_format=image_format(size=size, minimum=8, padding="symmetric", normalization="imagenet"))
