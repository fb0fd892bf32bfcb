"""Expressions to stored tensors: what a quantize op makes out of the operators before it."""

from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from tercel.sw.importer.capture import Operation
from tercel.sw.importer.counting import Counting
from tercel.sw.importer.expressions import (
    NO_PADDING,
    Add,
    Affine,
    Broken,
    Clamp,
    Concat,
    Count,
    Expression,
    FloatInput,
    HostValue,
    Pool,
    Quantizer,
    Resample,
    Slope,
    Stored,
    View,
    Weighted,
    Window,
)
from tercel.sw.importer.layers import GraphBuilder, copy_layer, pool_layer, unpadded, weighted_layer
from tercel.sw.importer.report import Follows, Rejection
from tercel.sw.importer.thresholds import realize_count, unfolded
from tercel.sw.importer.weights import Weights, weights_of

_LARGEST_KERNEL = 16


@dataclass(frozen=True)
class Operands:
    """Input, weights and geometry of a convolution or matrix product; ``linear``: of a vector, with weights of one row and column."""

    source: Stored
    weights: Weights
    window: Window
    linear: bool


@dataclass
class Realizer:
    """Makes layers. Each call names the operation on whose behalf it works; that one is rejected where it cannot be done.

    ``placed`` collects for each node the layer that it became, ``fused`` the layer that it went into, ``clamps`` the layers that do
    nothing but clamp codes.
    """

    builder: GraphBuilder
    placed: dict[str, str] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)
    clamps: set[str] = field(default_factory=set)
    _made: dict[tuple[int, Quantizer], tuple[Expression, Stored]] = field(default_factory=dict)

    def quantize(self, value: Expression, quantizer: Quantizer, asked: Operation) -> Stored:
        """The codes of ``value`` under ``quantizer``; made once."""
        key = id(value), quantizer
        if key not in self._made:
            # The value stands beside its codes, so that no other object takes its identity.
            self._made[key] = value, self._quantize(value, quantizer, asked)
        return self._made[key][1]

    def _quantize(self, value: Expression, quantizer: Quantizer, asked: Operation) -> Stored:
        try:
            return self._layers(value, quantizer, asked)
        except Rejection as rejection:
            if rejection.operation is None and not isinstance(value, Stored | FloatInput | Broken):
                rejection.operation = value.operation
            raise

    def _layers(self, value: Expression, quantizer: Quantizer, asked: Operation) -> Stored:
        match value:
            case Stored():
                return self._requantize(value, quantizer, asked)
            case Weighted():
                return self._weighted(value, quantizer)
            case Pool(kind="max_pool"):
                return self._max_pool(value, quantizer)
            case Pool():
                return self._average(value, quantizer)
            case Clamp():
                result = self.quantize(value.input, quantizer.narrowed(value.low, value.high), asked)
                self.fused[value.operation.node.name] = result.tensor
                return result
            case Affine() | Slope():
                refused = unfolded(value)
                assert refused is not None
                raise refused
            case Count():
                return realize_count(self, value, quantizer)
            case Add():
                return self.add(value, quantizer)
            case View():
                return replace(self.quantize(value.input, quantizer, asked), shape=value.shape)
            case Resample():
                return self._resample(value, quantizer)
            case Concat():
                parts = tuple(self._plain(self.quantize(part, quantizer, asked), asked) for part in value.inputs)
                result = self.builder.add_concat(value.operation, parts, value.shape, quantizer.full)
                self.placed[value.operation.node.name] = result.tensor
                return result
            case FloatInput() | HostValue():
                return self._requantize(self._input(value, quantizer.full), quantizer, asked)
            case Broken():
                return Stored(self.builder.add_tensor(asked.name, value.shape, quantizer), value.shape)

    def _input(self, value: FloatInput | HostValue, quantizer: Quantizer) -> Stored:
        name = value.name if isinstance(value, FloatInput) else value.operation.node.name
        if name not in self.builder.inputs:
            return self.builder.add_input(name, value.shape, quantizer)
        own = self.builder.quantizers[name]
        if own != quantizer:
            limit = f"one scale, zero point and sign, {own.numbers}"
            raise Rejection("quantize ops of an input", limit, quantizer.numbers, "quantize the input once, before all branches")
        return Stored(name, value.shape)

    def settle(self, value: Expression, asked: Operation) -> Stored:
        """A value that is codes without any rounding; a ``Rejection`` of ``asked`` for one that needs a quantize op first."""
        if isinstance(value, Broken):
            raise Follows(value.name)
        quantizer = self.exact(value)
        if quantizer is None:
            refused = unfolded(value)
            if refused is not None:
                raise refused
            way_out = "put quantize and dequantize ops between the two"
            raise Rejection("input", "quantized", f"the float result of {_describe(value)}", way_out)
        return self.quantize(value, quantizer, asked)

    def plain(self, value: Expression, asked: Operation) -> Stored:
        """As :meth:`settle`, with the padding stored."""
        return self._plain(self.settle(value, asked), asked)

    def _plain(self, stored: Stored, asked: Operation) -> Stored:
        return unpadded(self.builder, asked, stored)

    def exact(self, value: Expression) -> Quantizer | None:
        """The quantizer under which the codes of ``value`` stand for it exactly, or None."""
        match value:
            case Stored():
                return self.builder.quantizers[value.tensor].full
            case Pool(kind="max_pool") | View() | Resample():
                return self.exact(value.input)
            case Clamp():
                inner = self.exact(value.input)
                on_grid = inner is not None and all(
                    not np.isfinite(limit) or abs(limit / inner.scale - np.rint(limit / inner.scale)) < 1e-6
                    for limit in (value.low, value.high)
                )
                return inner if on_grid else None
            case Concat():
                parts = {self.exact(part) for part in value.inputs}
                return parts.pop() if len(parts) == 1 else None
            case _:
                return None

    def _requantize(self, source: Stored, quantizer: Quantizer, asked: Operation) -> Stored:
        own = self.builder.quantizers[source.tensor]
        unchanged = own.numbers == quantizer.numbers and quantizer.low <= own.low and own.high <= quantizer.high
        if unchanged:
            return source
        copied = copy_layer(self.builder, asked, source, quantizer, name=f"{source.tensor}.requantize")
        self.placed[asked.node.name] = copied.tensor
        if own.numbers == quantizer.numbers and source.padding == NO_PADDING:
            self.clamps.add(copied.tensor)
        return replace(copied, shape=source.shape)

    def operands(self, value: Weighted, *, on_array: bool) -> "Operands":
        """What a convolution or matrix product reads, as the machine takes it; ``on_array``: never on the other engine."""
        operation = value.operation
        source = self.settle(value.input, operation)
        weights = weights_of(value.weight, ternary=self.builder.config.digit_set == "ternary" and on_array)
        height, width, channels = self.builder.tensors[source.tensor].shape
        window, linear = value.window, value.kind == "linear"
        if linear:
            source = self._plain(source, operation)
            if source.shape != (prod((height, width, channels)),):
                limit = f"(batch, {height * width * channels})"
                raise Rejection("input of a matrix product", limit, ("batch", *source.shape), "flatten it")
            # Features stand in the order channel, row, column: the product is a convolution by a kernel as large as the image.
            shape = (len(weights.codes), channels, height, width)
            weights = replace(weights, codes=weights.codes.reshape(shape))
            window = Window((height, width))
        else:
            self._check_image(source, operation)
        return Operands(source=source, weights=weights, window=window, linear=linear and (height, width) == (1, 1))

    def _weighted(self, value: Weighted, quantizer: Quantizer, residual: Stored | None = None, counting: Counting | None = None) -> Stored:
        operands = self.operands(value, on_array=not self._on_window(value, residual))
        result = weighted_layer(
            self.builder,
            value.operation,
            operands.source,
            quantizer,
            weights=operands.weights,
            window=operands.window,
            groups=value.groups,
            bias=value.bias,
            residual=residual,
            counting=counting,
            linear=operands.linear,
        )
        self.placed[value.operation.node.name] = result.tensor
        return replace(result, shape=value.shape)

    def _on_window(self, value: Weighted, residual: Stored | None) -> bool:
        """Whether the depthwise engine runs it, whose weights have 8 bits on every machine."""
        depthwise = value.groups > 1 and value.groups == value.shape[0] and residual is None
        vector = value.kind == "linear" and residual is None
        return self.builder.config.depthwise and (depthwise or vector)

    def _check_image(self, source: Stored, operation: Operation) -> None:
        """Whether PyTorch's shape and the stored one are the same image."""
        height, width, channels = self.builder.tensors[source.tensor].shape
        top, left, bottom, right = source.padding
        shape = (channels, height + top + bottom, width + left + right)
        if source.shape != shape:
            raise Rejection("input", f"of shape {('batch', *shape)}", ("batch", *source.shape), "views may only flatten an image")

    def _max_pool(self, value: Pool, quantizer: Quantizer) -> Stored:
        operation = value.operation
        # A maximum and a rounding can change places.
        exact = self.exact(value.input)
        source = self.quantize(value.input, quantizer if exact is None else exact, operation)
        self._check_image(source, operation)
        own = self.builder.quantizers[source.tensor]
        if source.padding != NO_PADDING and own.low < own.zero_point:
            # The machine's maximum does not see padding; stored zeros it does.
            source = self._plain(source, operation)
        same = own.numbers == quantizer.numbers
        pooled = quantizer if same else replace(own.full, low=own.low, high=own.high)
        result = pool_layer(self.builder, operation, source, pooled, kind="max_pool", window=value.window)
        self.placed[operation.node.name] = result.tensor
        return result if same else self._requantize(result, quantizer, operation)

    def _average(self, value: Pool, quantizer: Quantizer) -> Stored:
        operation, window = value.operation, value.window
        source = self.settle(value.input, operation)
        self._check_image(source, operation)
        if max(window.kernel) > _LARGEST_KERNEL and value.shape[1:] == (1, 1):
            source, window = self._half_average(operation, source, window)
        result = pool_layer(self.builder, operation, source, quantizer, kind="average_pool", window=window)
        self.placed[operation.node.name] = result.tensor
        return replace(result, shape=value.shape)

    def _half_average(self, operation: Operation, source: Stored, window: Window) -> tuple[Stored, Window]:
        """An average over one large window as averages over its parts, each a part of every few pixels, and their average."""
        parts = tuple(_divisor(size) for size in window.kernel)
        steps = tuple(size // part for size, part in zip(window.kernel, parts, strict=True))
        first = Window((parts[0], parts[1]), dilation=(steps[0], steps[1]), padding=window.padding)
        quantizer = self.builder.quantizers[source.tensor].full
        self.builder.warn(
            operation,
            "window of the average",
            f"at most {_LARGEST_KERNEL} pixels high and wide",
            f"{window.kernel[0]}x{window.kernel[1]}",
            "it runs in two steps with a rounding between them",
        )
        half = pool_layer(self.builder, operation, source, quantizer, kind="average_pool", window=first, name=f"{operation.name}.parts")
        return half, Window((steps[0], steps[1]))

    def add(self, value: Add, quantizer: Quantizer, counting: Counting | None = None) -> Stored:
        """The codes of a sum, inside the layer of a convolution where it has one; or thresholds of ``counting`` on it."""
        operation = value.operation
        products = [side for side in (value.left, value.right) if isinstance(side, Weighted)]
        if len(products) == 2:
            way_out = "quantize one of them first"
            raise Rejection("operands of a sum", "at most one convolution without a quantize op", "two of them", way_out)
        if products:
            other = value.right if products[0] is value.left else value.left
            residual = self._residual(other, value)
            result = self._weighted(products[0], quantizer, residual, counting)
            self.fused[operation.node.name] = result.tensor
            return result
        left, right = self._residual(value.left, value), self._residual(value.right, value)
        # The finer scale goes through the multiplier, the coarser one through the residual's, which is shifted up.
        if self.builder.tensors[left.tensor].scale > self.builder.tensors[right.tensor].scale:
            left, right = right, left
        result = copy_layer(self.builder, operation, left, quantizer, residual=right, counting=counting)
        self.placed[operation.node.name] = result.tensor
        return replace(result, shape=value.shape)

    def _residual(self, value: Expression, add: Add) -> Stored:
        if value.shape != add.shape:
            limit = f"of the sum's shape {('batch', *add.shape)}"
            raise Rejection("operand of a sum", limit, ("batch", *value.shape), "expand it first; sums of constants belong into a bias")
        return self.plain(value, add.operation)

    def _resample(self, value: Resample, quantizer: Quantizer) -> Stored:
        operation = value.operation
        exact = self.exact(value.input)
        inner = quantizer if exact is None else exact
        source = self.quantize(value.input, inner, operation)
        self._check_image(source, operation)
        self.fused[operation.node.name] = source.tensor
        if value.stride != (1, 1) or any(value.channels):
            source = copy_layer(self.builder, operation, source, quantizer, stride=value.stride, channels=value.channels)
            self.placed[operation.node.name] = source.tensor
        elif inner.numbers != quantizer.numbers:
            source = replace(self._requantize(source, quantizer, operation), shape=source.shape)
        if any(value.padding) and not quantizer.low <= quantizer.zero_point <= quantizer.high:
            raise Rejection("zero padding", "inside the range after it", f"code {quantizer.zero_point}", "clamp before the padding")
        sides = zip(source.padding, value.padding, strict=True)
        top, left, bottom, right = (old + new for old, new in sides)
        return replace(source, shape=value.shape, padding=(top, left, bottom, right))


def _divisor(size: int) -> int:
    """The largest divisor of ``size`` up to the largest kernel whose other factor fits too."""
    fitting = [part for part in range(1, _LARGEST_KERNEL + 1) if size % part == 0 and size // part <= 15]
    if not fitting:
        raise Rejection("window of the average", "a product of two factors up to 15", size, "pool in two steps, or change the image size")
    return fitting[-1]


def _describe(value: Expression) -> str:
    return value.name if isinstance(value, FloatInput) else value.operation.name if not isinstance(value, Stored | Broken) else "a tensor"
