"""Residual networks for training at 2 to 4 bits: a shifted PReLU before each convolution, batch norm after it, sums left as they are."""

from collections.abc import Sequence

from torch import Tensor, nn

from tercel.sw.image_format import ImageFormat
from tercel.sw.training.n2uq.rprelu import RPReLU
from tercel.sw.zoo.digits_data import SIZE
from tercel.sw.zoo.network import ImageNetwork, check_classes, convolution, image_format, initialize


class RPReLUResNet(ImageNetwork):
    """``conv1``, ``bn1``, ``relu``, ``layer{1..}.{0..}``, ``avgpool``, ``fc``.

    The first layer's codes and the sums have 8 bits; each block rounds a function of its own of them to few, once for each of its two
    convolutions.

    Parameters
    ----------
    stem
        Channels of the first convolution.
    widths
        Channels of each group of blocks; each group after the first halves height and width.
    blocks
        Blocks in a group.
    """

    def __init__(self, *, stem: int, widths: Sequence[int], blocks: int, classes: int, image_format: ImageFormat) -> None:
        super().__init__()
        self.image_format = image_format
        self.conv1 = convolution(image_format.channels, stem, kernel=3, padding="symmetric")
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        inputs = (stem, *widths)
        for number, width in enumerate(widths):
            stride = 1 if number == 0 else 2
            group = [_Block(inputs[number] if index == 0 else width, width, stride=stride if index == 0 else 1) for index in range(blocks)]
            self.add_module(f"layer{number + 1}", nn.Sequential(*group))
        self.groups = len(widths)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], classes)
        initialize(self)

    def forward(self, input: Tensor) -> Tensor:
        """Images to logits."""
        x = self.relu(self.bn1(self.conv1(input)))
        for number in range(self.groups):
            x = self.get_submodule(f"layer{number + 1}")(x)
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.prelu1 = RPReLU(inputs)
        self.conv1 = convolution(inputs, outputs, kernel=3, stride=stride, padding="symmetric")
        self.bn1 = nn.BatchNorm2d(outputs)
        self.prelu2 = RPReLU(outputs)
        self.conv2 = convolution(outputs, outputs, kernel=3, padding="symmetric")
        self.bn2 = nn.BatchNorm2d(outputs)
        widens = stride != 1 or inputs != outputs
        shortcut = convolution(inputs, outputs, kernel=1, stride=stride, padding="symmetric")
        self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs)) if widens else None

    def forward(self, input: Tensor) -> Tensor:
        short = input if self.downsample is None else self.downsample(input)
        inner = self.prelu2(self.bn1(self.conv1(self.prelu1(input))))
        output: Tensor = self.bn2(self.conv2(inner)) + short
        return output


def resnet20_rprelu(*, size: int = 32, classes: int = 10) -> RPReLUResNet:
    """Make a network of the size of ResNet-20, for photographs of at least 8x8 pixels."""
    check_classes(classes)
    form = image_format(size=size, minimum=8, padding="symmetric", normalization="imagenet")
    return RPReLUResNet(stem=16, widths=(16, 32, 64), blocks=3, classes=classes, image_format=form)


def digits_rprelu() -> RPReLUResNet:
    """Make a network for the handwritten digits: 16x16 grey images, ten classes, four blocks."""
    form = ImageFormat(size=SIZE, mean=(0.0,), std=(1.0,))
    return RPReLUResNet(stem=16, widths=(16, 32), blocks=2, classes=10, image_format=form)
