"""MobileNet V2: inverted residuals, with torchvision's parameter names."""

from collections.abc import Sequence

from torch import Tensor, nn

from tercel.sw.image_format import ImageFormat
from tercel.sw.zoo.network import ImageNetwork, check_classes, check_width, conv_bn_relu6, convolution, image_format, initialize

Group = tuple[int, int, int, int]
"""Expansion, output channels, blocks, stride of the first block."""

_GROUPS: tuple[Group, ...] = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _LAST = 32, 1280
_EPSILONS = {"symmetric": 1e-5, "tensorflow": 1e-3}
"""Of the batch norms, in torchvision and in TensorFlow."""


class MobileNetV2(ImageNetwork):
    """``features.0`` is the stem, then one inverted residual each, last the widening 1x1; ``classifier.1`` is linear.

    Parameters
    ----------
    stem_channels, stem_stride
        Of the first 3x3 convolution.
    groups
        Of inverted residuals, with channels after any width multiplier.
    last_channels
        Of the 1x1 convolution before the pool.
    """

    def __init__(
        self,
        *,
        stem_channels: int,
        stem_stride: int,
        groups: Sequence[Group],
        last_channels: int,
        classes: int,
        padding: str,
        dropout: float,
        image_format: ImageFormat,
    ) -> None:
        super().__init__()
        self.image_format = image_format
        epsilon = _EPSILONS[padding]
        channels = stem_channels
        layers: list[nn.Module] = [
            conv_bn_relu6(image_format.channels, channels, kernel=3, stride=stem_stride, padding=padding, epsilon=epsilon)
        ]
        for expansion, outputs, blocks, first_stride in groups:
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                layers.append(_InvertedResidual(channels, outputs, expansion=expansion, stride=stride, padding=padding, epsilon=epsilon))
                channels = outputs
        layers.append(conv_bn_relu6(channels, last_channels, kernel=1, padding=padding, epsilon=epsilon))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last_channels, classes))
        initialize(self)

    def forward(self, input: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.classifier(self.pool(self.features(input)).flatten(1))
        return logits


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int, padding: str, epsilon: float) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_bn_relu6(inputs, hidden, kernel=1, padding=padding, epsilon=epsilon))
        layers.append(conv_bn_relu6(hidden, hidden, kernel=3, stride=stride, groups=hidden, padding=padding, epsilon=epsilon))
        layers += [convolution(hidden, outputs, kernel=1, padding=padding), nn.BatchNorm2d(outputs, eps=epsilon)]
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.conv(input)
        return input + output if self.adds else output


def mobilenet_v2(
    *, width: float = 1.0, size: int = 224, classes: int = 1000, padding: str = "symmetric", normalization: str | None = None
) -> MobileNetV2:
    """Make a MobileNet V2; channels are multiples of 8 nearest to ``width * c``, the last layer is never narrower than 1280."""
    check_width(width)
    check_classes(classes)
    return MobileNetV2(
        stem_channels=_multiple_of_8(_STEM * width),
        stem_stride=2,
        groups=[(expansion, _multiple_of_8(outputs * width), blocks, stride) for expansion, outputs, blocks, stride in _GROUPS],
        last_channels=_multiple_of_8(_LAST * max(width, 1.0)),
        classes=classes,
        padding=padding,
        dropout=0.2,
        image_format=image_format(size=size, minimum=32, padding=padding, normalization=normalization),
    )


def _multiple_of_8(channels: float) -> int:
    """Nearest multiple of 8, at least 8 and never more than 10 % below: the rule of both published lineages."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
