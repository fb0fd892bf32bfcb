"""MobileNet V1: a stem and thirteen pairs of depthwise and pointwise convolutions."""

from torch import Tensor, nn

from tercel.sw.image_format import ImageFormat
from tercel.sw.zoo.network import ImageNetwork, check_classes, check_width, conv_bn_relu6, image_format, initialize

_STEM = 32
_PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
_EPSILON = 1e-3
"""TensorFlow's, where all published weights come from."""


class MobileNetV1(ImageNetwork):
    """``features.0`` is the stem, ``features.{1..13}`` hold ``conv.0`` (depthwise) and ``conv.1`` (1x1), ``classifier.1`` is linear."""

    def __init__(self, *, width: float, classes: int, padding: str, image_format: ImageFormat) -> None:
        super().__init__()
        self.image_format = image_format
        channels = int(_STEM * width)
        layers: list[nn.Module] = [conv_bn_relu6(3, channels, kernel=3, stride=2, padding=padding, epsilon=_EPSILON)]
        for base, stride in _PAIRS:
            layers.append(_Pair(channels, int(base * width), stride=stride, padding=padding))
            channels = int(base * width)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.001), nn.Linear(channels, classes))
        initialize(self)

    def forward(self, input: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.classifier(self.pool(self.features(input)).flatten(1))
        return logits


class _Pair(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int, padding: str) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv_bn_relu6(inputs, inputs, kernel=3, stride=stride, groups=inputs, padding=padding, epsilon=_EPSILON),
            conv_bn_relu6(inputs, outputs, kernel=1, padding=padding, epsilon=_EPSILON),
        )

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.conv(input)
        return output


def mobilenet_v1(
    *, width: float = 1.0, size: int = 224, classes: int = 1000, padding: str = "tensorflow", normalization: str | None = None
) -> MobileNetV1:
    """Make a MobileNet V1 with channels ``int(width * c)``, as Keras counts them."""
    check_width(width)
    check_classes(classes)
    wanted = image_format(size=size, minimum=32, padding=padding, normalization=normalization)
    return MobileNetV1(width=width, classes=classes, padding=padding, image_format=wanted)
