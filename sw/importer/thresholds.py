"""Counts of thresholds to layers: inside the layer before them where there is one, else a layer of their own."""

from dataclasses import replace
from typing import TYPE_CHECKING

from tercel.sw.importer.capture import Operation
from tercel.sw.importer.counting import Counting
from tercel.sw.importer.expressions import (
    Add,
    Affine,
    Broken,
    Clamp,
    Count,
    Expression,
    FloatInput,
    HostValue,
    Pool,
    Quantizer,
    Slope,
    Stored,
    View,
    Weighted,
    Window,
)
from tercel.sw.importer.layers import copy_weights, pool_layer
from tercel.sw.importer.report import Follows, Rejection
from tercel.sw.importer.threshold_layers import threshold_layer
from tercel.sw.importer.weights import diagonal

if TYPE_CHECKING:
    from tercel.sw.importer.realize import Realizer


def unfolded(value: Expression) -> Rejection | None:
    """The rejection of an operator at the top of ``value`` that only thresholds take up, of a PReLU rather than of sums around it."""
    found: list[Affine | Slope] = []
    while isinstance(value, Affine | Slope | Clamp):
        if not isinstance(value, Clamp):
            found.append(value)
        value = value.input
    if not found:
        return None
    refused = next((operator for operator in found if isinstance(operator, Slope)), found[0])
    refused.otherwise.operation = refused.operation
    return refused.otherwise


def realize_count(realizer: "Realizer", count: Count, quantizer: Quantizer) -> Stored:
    """The codes of ``count``, whose scale ``quantizer`` gives."""
    most = count.thresholds.shape[1]
    if not 0 <= quantizer.zero_point <= most or quantizer.signed or quantizer.low != 0 or quantizer.high < most:
        found = f"codes {quantizer.low}..{quantizer.high} with zero point {quantizer.zero_point}"
        raise Rejection("dequantize op of counted thresholds", f"of codes 0..{most}, zero among them", found, "a count starts at 0")
    quantizer = replace(quantizer, high=most)
    counting, base = Counting.of(count)
    result = _layer(realizer, count.operation, counting, base, quantizer)
    for step in counting.steps:
        realizer.fused[step.operation.node.name] = result.tensor
    if count.operation.node.name not in realizer.placed:
        realizer.fused[count.operation.node.name] = result.tensor
    return replace(result, shape=count.shape)


def _layer(realizer: "Realizer", operation: Operation, counting: Counting, base: Expression, quantizer: Quantizer) -> Stored:
    match base:
        case Broken():
            raise Follows(base.name)
        case FloatInput() | HostValue():
            raise Rejection("input of thresholds", "quantized", "the network's input", "put quantize and dequantize ops between them")
        case Weighted():
            return _weighted(realizer, counting, base, quantizer)
        case Pool(kind="average_pool") if max(base.window.kernel) <= 16:
            return _average(realizer, counting, base, quantizer)
        case Pool(kind="max_pool") if realizer.exact(base) is None:
            return _maximum(realizer, operation, counting, base, quantizer)
        case Add():
            return _sum(realizer, counting, base, quantizer)
        case View() if counting.uniform or base.shape[0] == base.input.shape[0]:
            return _layer(realizer, operation, counting, base.input, quantizer)
        case _:
            return _copy(realizer, operation, counting, realizer.plain(base, operation), quantizer)


def _weighted(realizer: "Realizer", counting: Counting, value: Weighted, quantizer: Quantizer) -> Stored:
    operands = realizer.operands(value, on_array=True)
    result = threshold_layer(
        realizer.builder,
        value.operation,
        operands.source,
        quantizer,
        counting,
        weights=operands.weights,
        window=operands.window,
        groups=value.groups,
        bias=value.bias,
        linear=operands.linear,
    )
    realizer.placed[value.operation.node.name] = result.tensor
    return result


def _average(realizer: "Realizer", counting: Counting, value: Pool, quantizer: Quantizer) -> Stored:
    """An average on the array: the sums of the window are compared, and never divided."""
    operation, window = value.operation, value.window
    source = realizer.settle(value.input, operation)
    channels = realizer.builder.tensors[source.tensor].shape[2]
    weights, taps = diagonal(channels, taps=window.kernel), window.kernel[0] * window.kernel[1]
    result = threshold_layer(
        realizer.builder, operation, source, quantizer, counting, weights=weights, window=window, groups=channels, divisor=taps
    )
    realizer.placed[operation.node.name] = result.tensor
    return result


def _maximum(realizer: "Realizer", operation: Operation, counting: Counting, value: Pool, quantizer: Quantizer) -> Stored:
    """The maximum of counts is the count of the maximum, where the function rises in all channels."""
    if counting.falling(value.shape[0]).any():
        way_out = "quantize before the pool, or train with positive batch norm gains behind it"
        raise Rejection("function between a max pool and thresholds", "rising in all channels", "falling in some", way_out)
    counts = _layer(realizer, operation, counting, value.input, quantizer)
    result = pool_layer(realizer.builder, value.operation, counts, quantizer, kind="max_pool", window=value.window)
    realizer.placed[value.operation.node.name] = result.tensor
    return result


def _sum(realizer: "Realizer", counting: Counting, value: Add, quantizer: Quantizer) -> Stored:
    """A sum of two tensors, of which a convolution may be one, rounded to 16 bits and compared."""
    if counting.falling(value.shape[0]).any():
        way_out = "quantize the sum before, or train with positive batch norm gains behind it"
        raise Rejection("function between a sum and thresholds", "rising in all channels", "falling in some", way_out)
    return realizer.add(value, quantizer, counting)


def _copy(realizer: "Realizer", operation: Operation, counting: Counting, source: Stored, quantizer: Quantizer) -> Stored:
    """A layer of its own on stored codes: 1x1 weights of 1, or -1, for each channel."""
    channels = realizer.builder.tensors[source.tensor].shape[2]
    if not counting.uniform and source.shape[0] != channels:
        raise Rejection("thresholds behind a reshape", "equal in all channels", "different", "take them before the reshape")
    weights, groups = copy_weights(realizer.builder, channels)
    result = threshold_layer(
        realizer.builder,
        operation,
        source,
        quantizer,
        counting,
        weights=weights,
        window=Window((1, 1)),
        groups=groups,
        name=_name(operation),
    )
    realizer.placed[operation.node.name] = result.tensor
    return result


def _name(operation: Operation) -> str:
    """The module that the thresholds stand in, or the operator where they stand in none."""
    return operation.name.removesuffix(f".{operation.short}")
