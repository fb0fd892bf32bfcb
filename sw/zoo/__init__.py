"""Networks to start from, as plain PyTorch modules with torchvision's parameter names. Importing this does not import torch."""

from tercel.sw.zoo.catalog import NAMES, ZooError, build, shipped_weights
from tercel.sw.zoo.weights import WeightsError, load_weights

__all__ = ["NAMES", "WeightsError", "ZooError", "build", "load_weights", "shipped_weights"]
