"""Layers whose sums fit 18 bits, of which the drain takes J a cycle instead of one.

Narrow sums have half as many shifts as others: E + s in 16..31 for a multiplier of 16 bits. A layer whose factor M / 2**E is 1 or a little
more has E = 15. In units half as large, weights and bias are twice what they were and E is 16. The codes are the same, since twice v, the
rounding term and the divisor cancel, and ``gain`` doubles the sum of weights without another digit.
"""

from dataclasses import replace

from tercel.hw.config import Config
from tercel.sw.graph.integer_graph import LayerNode
from tercel.sw.layer_bounds import fits_narrow, shifts_narrow

_LARGEST_OFFSET = 255


def with_narrow_sums(layer: LayerNode, config: Config) -> LayerNode | None:
    """What computes the same with narrow sums, whatever the input; None if nothing does."""
    spec = layer.spec
    if not spec.on_array(config):
        return None
    if not shifts_narrow(spec.shift, layer.shift, config):
        if spec.gain != 1 or 2 * abs(spec.weight_offset) > _LARGEST_OFFSET or not shifts_narrow(spec.shift + 1, layer.shift, config):
            return None
        doubled = replace(spec, gain=2, weight_offset=2 * spec.weight_offset, shift=spec.shift + 1)
        layer = replace(layer, spec=doubled, bias=2 * layer.bias)
    narrow = replace(layer, spec=replace(layer.spec, narrow=True))
    return narrow if fits_narrow(layer.spec, layer.weights, layer.bias, layer.shift, config) else None
