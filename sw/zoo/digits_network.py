"""A network small enough to train, compile and simulate in minutes: MobileNet V2's blocks on handwritten digits."""

from tercel.sw.image_format import ImageFormat
from tercel.sw.zoo.digits_data import SIZE
from tercel.sw.zoo.mobilenet_v2 import MobileNetV2


def digits() -> MobileNetV2:
    """Make the network: 16x16 grey images, ten classes, five inverted residuals of which three add, channels in multiples of 8."""
    return MobileNetV2(
        stem_channels=16,
        stem_stride=1,
        groups=[(1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 2, 2)],
        last_channels=128,
        classes=10,
        padding="symmetric",
        dropout=0.1,
        image_format=ImageFormat(size=SIZE, mean=(0.0,), std=(1.0,)),
    )
