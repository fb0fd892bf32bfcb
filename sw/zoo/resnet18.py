"""ResNet-18 for photographs, with torchvision's parameter names."""

from torch import Tensor, nn

from tercel.sw.image_format import ImageFormat
from tercel.sw.zoo.network import ImageNetwork, check_classes, convolution, image_format, initialize

_WIDTHS = (64, 128, 256, 512)


class ResNet18(ImageNetwork):
    """``conv1``, ``bn1``, max pool, ``layer{1..4}`` of two blocks each, global average pool, ``fc``."""

    def __init__(self, *, classes: int, image_format: ImageFormat) -> None:
        super().__init__()
        self.image_format = image_format
        self.conv1 = convolution(3, _WIDTHS[0], kernel=7, stride=2, padding="symmetric")
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = (_WIDTHS[0], *_WIDTHS)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(_Block(inputs[i], width, stride=1 if i == 0 else 2), _Block(width, width, stride=1))
            for i, width in enumerate(_WIDTHS)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(_WIDTHS[-1], classes)
        initialize(self)

    def forward(self, input: Tensor) -> Tensor:
        """Images to logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(input))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, kernel=3, stride=stride, padding="symmetric")
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = convolution(outputs, outputs, kernel=3, padding="symmetric")
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1:
            self.downsample = nn.Sequential(
                convolution(inputs, outputs, kernel=1, stride=stride, padding="symmetric"), nn.BatchNorm2d(outputs)
            )

    def forward(self, input: Tensor) -> Tensor:
        short = input if self.downsample is None else self.downsample(input)
        output: Tensor = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(input))))) + short)
        return output


def resnet18(*, size: int = 224, classes: int = 1000) -> ResNet18:
    """Make a ResNet-18."""
    check_classes(classes)
    return ResNet18(classes=classes, image_format=image_format(size=size, minimum=32, padding="symmetric", normalization="imagenet"))
