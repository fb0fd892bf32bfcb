"""Real values to codes and back, at the edges of a network."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tercel.sw.graph.integer_graph import Activation
from tercel.sw.layer_spec import Integers


def to_codes(activation: Activation, values: npt.NDArray[np.floating[Any]]) -> Integers:
    """Codes of real values, int64, clipped to the 8 bits of the tensor.

    ``values`` ends in height, width, channels. Rounds half to even, after a multiplication by ``1 / scale`` in the precision of
    ``values``, as quantize ops of PyTorch do, so that float32 images give equal codes there and here.
    """
    scaled = np.rint(np.asarray(values) * (1.0 / activation.scale)) + activation.zero_point
    low, high = (-128, 127) if activation.signed else (0, 255)
    clipped: Integers = np.clip(scaled, low, high).astype(np.int64)
    return clipped


def from_codes(activation: Activation, codes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
    """The real values that codes stand for: ``scale * (code - zero_point)``."""
    return (np.asarray(codes, dtype=np.float64) - activation.zero_point) * activation.scale
