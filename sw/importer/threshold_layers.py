"""Layers whose output is a number of thresholds passed.

The machine counts ``p > T[c, i]`` on ``p = clamp(floor((v*M + 2**(e-1)) / 2**e) + z)``, v being the sum with bias, z the output's zero
point, p of 16 bits. For a layer whose sums are only compared (:func:`threshold_layer`), M = 2**e makes p the sum itself plus z. Its
bias then serves to move the thresholds of a channel into 16 bits: sums beyond p's range saturate on the right side of all of them. So
every sum is on the side where the float network puts it, whatever the scales of the channels, as long as the lowest and the highest
threshold of a channel that any input can reach lie at most 65519 sums apart. Where they lie further apart, the channel's shift s halves
the sums s times, and a threshold is off by at most 2**(s-1) sums, which is less than 1/65519 of the distance between the two.

A channel whose function falls (a negative batch-norm gain) has its weights negated. Constants (bias, batch norm, slopes) are in the
thresholds alone; nothing is rounded but they.
"""

import numpy as np

from tercel.hw.config import unit_exponent
from tercel.sw.importer.capture import Operation
from tercel.sw.importer.counting import HIGHEST, LOWEST, NEVER, Counting, shared_rows
from tercel.sw.importer.expressions import Constant, Quantizer, Stored, Window
from tercel.sw.importer.layers import GraphBuilder, edges, layer_spec, one_stride, real_bias, sum_sides
from tercel.sw.importer.weights import Weights, merged_groups
from tercel.sw.layer_spec import Integers, Kind


def threshold_layer(
    builder: GraphBuilder,
    operation: Operation,
    source: Stored,
    quantizer: Quantizer,
    counting: Counting,
    *,
    weights: Weights,
    window: Window,
    groups: int = 1,
    bias: Constant | None = None,
    divisor: int = 1,
    linear: bool = False,
    name: str | None = None,
) -> Stored:
    """A convolution or matrix product on the array whose sums are compared with thresholds.

    Parameters as of :func:`~tercel.sw.importer.layers.weighted_layer`; ``counting`` takes real sums with bias.
    """
    tensor, own = builder.tensors[source.tensor], builder.quantizers[source.tensor]
    outputs = len(weights.codes)
    falling = counting.falling(outputs)
    weights = weights.negated(falling)
    values = weights.values.reshape(outputs, -1)
    # Sums of w * (a - z); padding adds zeros to them.
    low, high = min(own.low - tensor.zero_point, 0), max(own.high - tensor.zero_point, 0)
    least, most = np.minimum(values * low, values * high).sum(axis=1), np.maximum(values * low, values * high).sum(axis=1)
    units = np.where(falling, -1.0, 1.0) * tensor.scale * weights.scales / divisor
    table = counting.on_integers(units=units, offset=real_bias(bias, outputs), least=least, most=most)
    centre, shift, thresholds = _in_16_bits(table, most)
    weights, groups = merged_groups(weights, groups=groups, lanes=builder.config.lanes)
    kind: Kind = "linear" if linear else "conv"
    codes = weights.codes[:, :, 0, 0] if linear else weights.codes.transpose(0, 2, 3, 1)
    shared, thresholds = shared_rows(thresholds, zero_point=quantizer.zero_point)
    unit = unit_exponent(builder.config.multiplier_bits)
    spec = layer_spec(
        kind=kind,
        input=tensor.shape,
        out=outputs,
        kernel=window.kernel,
        stride=one_stride(window, source, tensor.shape),
        padding=sum_sides(window.padding, source.padding),
        dilation=window.dilation,
        groups=groups,
        weight_bits=weights.bits,
        gain=weights.gain,
        weight_offset=weights.offset,
        multiplier=1 << unit,
        shift=unit,
        thresholds=table.shape[1],
        threshold_shared=shared,
        **edges(tensor, quantizer),
    )
    return builder.add_layer(
        operation,
        spec,
        source,
        quantizer,
        weights=np.ascontiguousarray(codes),
        bias=-tensor.zero_point * values.sum(axis=1) - centre,
        channel_shift=shift,
        thresholds=thresholds,
        name=name,
    )


def _in_16_bits(table: Integers, most: Integers) -> tuple[Integers, Integers, Integers]:
    """What to subtract from the sums of each channel, how often to halve them then, and the thresholds on what that leaves.

    A threshold at ``most`` is passed by no sum; it becomes :data:`~tercel.sw.importer.counting.NEVER`.
    """
    met = table < most[:, None]
    some = met.any(axis=1)
    top = np.where(some, np.where(met, table, table.min(axis=1, keepdims=True)).max(axis=1), 0)
    bottom = np.where(some, table.min(axis=1), 0)
    apart = top - bottom
    shift = np.zeros(len(table), dtype=np.int64)
    while (far := (apart >> shift) > HIGHEST - LOWEST - (shift > 0)).any():
        shift += far
    fits = (bottom >= LOWEST) & (top <= HIGHEST)
    centre = np.where(fits, 0, (bottom + top - ((LOWEST + HIGHEST) << shift)) // 2)
    # floor(v / 2**s + 1/2) > T from v = 2**s * T + 2**(s-1) on; the T whose v lies nearest to t + 1.
    halved = shift[:, None]
    scaled = (table - centre[:, None] + (halved > 0)) >> halved
    return centre, shift, np.where(met, np.clip(scaled, LOWEST, HIGHEST), NEVER)
