"""Layers of the integer graph out of expressions: geometry, weights and numbers of each."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from tercel.hw.config import Config, unit_exponent
from tercel.sw.graph.integer_graph import Activation, ConcatNode, GraphError, IntegerGraph, LayerNode, Node
from tercel.sw.graph.verify import verify
from tercel.sw.importer.capture import Operation
from tercel.sw.importer.counting import Counting, shared_rows
from tercel.sw.importer.expressions import NO_PADDING, Constant, Quantizer, Sides, Stored, Window
from tercel.sw.importer.report import Rejection
from tercel.sw.importer.scaling import Reals, channel_numbers, shared_numbers
from tercel.sw.importer.weights import Weights, diagonal, merged_groups, one_hot
from tercel.sw.layer_spec import Integers, Kind, LayerError, LayerSpec
from tercel.sw.numeric import MAX_DIGITS

_EMPTY = np.zeros(0, dtype=np.int64)


@dataclass
class GraphBuilder:
    """An integer graph while it grows, one verified layer at a time."""

    config: Config
    strict: bool
    tensors: dict[str, Activation] = field(default_factory=dict)
    quantizers: dict[str, Quantizer] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def graph(self, outputs: Iterable[str]) -> IntegerGraph:
        """All that was placed, with these outputs."""
        return IntegerGraph(tensors=dict(self.tensors), nodes=tuple(self.nodes), inputs=tuple(self.inputs), outputs=tuple(outputs))

    def add_tensor(self, name: str, shape: tuple[int, ...], quantizer: Quantizer) -> str:
        """A tensor of PyTorch's shape without batch; returns its name, made unique."""
        name = self._unique(name)
        self.tensors[name] = Activation(
            name=name, shape=image_shape(shape), signed=quantizer.signed, zero_point=quantizer.zero_point, scale=quantizer.scale
        )
        self.quantizers[name] = quantizer
        return name

    def add_input(self, name: str, shape: tuple[int, ...], quantizer: Quantizer) -> Stored:
        """An input of the network."""
        name = self.add_tensor(name, shape, quantizer)
        self.inputs.append(name)
        return Stored(name, shape)

    def add_concat(self, operation: Operation, parts: tuple[Stored, ...], shape: tuple[int, ...], quantizer: Quantizer) -> Stored:
        """Parts of equal numbers, one after the other."""
        output = self.add_tensor(operation.name, shape, quantizer)
        inputs = tuple(part.tensor for part in parts)
        self.nodes.append(ConcatNode(name=output, inputs=inputs, output=output, source=origin(operation)))
        return Stored(output, shape)

    def add_layer(
        self,
        operation: Operation,
        spec: LayerSpec,
        source: Stored,
        quantizer: Quantizer,
        *,
        residual: Stored | None = None,
        weights: Integers = _EMPTY,
        bias: Integers,
        channel_shift: Integers,
        multipliers: Integers = _EMPTY,
        thresholds: Integers = _EMPTY,
        name: str | None = None,
    ) -> Stored:
        """A layer that is verified on its own; what it cannot keep becomes a ``Rejection``."""
        height, width, channels = spec.output
        shape = (channels, height, width)
        output = self.add_tensor(operation.name if name is None else name, shape, quantizer)
        layer = LayerNode(
            name=output,
            spec=spec,
            input=source.tensor,
            output=output,
            residual=None if residual is None else residual.tensor,
            weights=weights,
            bias=bias,
            shift=channel_shift,
            multipliers=multipliers,
            thresholds=thresholds,
            source=origin(operation),
        )
        names = tuple(dict.fromkeys(layer.inputs))
        tensors = {key: self.tensors[key] for key in (*names, output)}
        try:
            verify(IntegerGraph(tensors=tensors, nodes=(layer,), inputs=names, outputs=(output,)), self.config)
        except GraphError as error:
            raise Rejection.of(error) from error
        self.nodes.append(layer)
        return Stored(output, shape)

    def warn(self, operation: Operation, argument: str, limit: str, value: str, way_out: str) -> None:
        """A loss of accuracy: a warning, in strict mode a ``Rejection``."""
        if self.strict:
            raise Rejection(argument, limit, value, way_out)
        self.warnings.append(f"{operation.name}: {argument} should be {limit}, not {value} ({way_out})")

    def _unique(self, name: str) -> str:
        """A node and the tensor that it makes have one name."""
        candidates = (name if index == 0 else f"{name}.{index}" for index in range(len(self.tensors) + 1))
        return next(candidate for candidate in candidates if candidate not in self.tensors)


def origin(operation: Operation) -> str:
    """Operator and place in the user's model."""
    return f"{operation.operator}, {operation.source}" if operation.source else operation.operator


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width, channels of PyTorch's ``(channels, height, width)`` or ``(features,)``."""
    if len(shape) == 3:
        return shape[1], shape[2], shape[0]
    if len(shape) == 1:
        return 1, 1, shape[0]
    raise Rejection("shape", "(batch, channels, height, width) or (batch, features)", ("batch", *shape), "reshape the tensor")


def weighted_layer(
    builder: GraphBuilder,
    operation: Operation,
    source: Stored,
    quantizer: Quantizer,
    *,
    weights: Weights,
    window: Window,
    groups: int = 1,
    bias: Constant | None = None,
    residual: Stored | None = None,
    counting: Counting | None = None,
    divisor: int = 1,
    linear: bool = False,
    name: str | None = None,
) -> Stored:
    """A convolution, depthwise convolution or matrix product with its requantization.

    ``weights.codes`` is ``[outputs, inputs of a group, rows, columns]``; ``bias`` holds one real value an output, None for zeros;
    ``residual`` is a tensor of the output's shape to add; its sums with the layer's are rounded to 16 bits and compared with thresholds
    where there is a ``counting``; the sum is divided by ``divisor`` (an average); ``linear`` makes a matrix product of a vector, whose
    weights have one row and column; ``name`` replaces the operation's.
    """
    config, tensor = builder.config, builder.tensors[source.tensor]
    channels = tensor.shape[2]
    outputs = len(weights.codes)
    depthwise = groups == channels == outputs and groups > 1 and residual is None and config.depthwise
    kind: Kind = "depthwise" if depthwise else "linear" if linear and residual is None else "conv"
    weights, shifts, change = (weights, None, 0.0) if config.per_channel_multiplier else weights.with_shifts()
    if change:
        builder.warn(
            operation,
            "ratios of the channels' weight scales",
            "powers of two up to 2**15",
            f"{change:.1%} off at most",
            f"the weights were rounded anew; quantize with scheme shift8, or take a config with per_channel_multiplier=True, "
            f"which {config.name} has not",
        )
    # Sums of so few, so small weights that one unit is more codes than there are: it takes smaller units.
    most = 2.0 ** (config.multiplier_bits - unit_exponent(config.multiplier_bits)) * divisor * quantizer.scale / tensor.scale
    digits = MAX_DIGITS if depthwise else config.max_digits
    live = weights.live
    while (weights.scales[live] >= most).any() and weights.bits + 2 <= 2 * digits and abs(4 * weights.offset) <= 255:
        weights = weights.quadrupled()
    # Sums of a channel are in units of its own scale, whatever multiplier it shares; a dead channel has only a bias, in any units.
    units = tensor.scale * np.where(live, weights.scales, weights.scales[live].max() if live.any() else weights.scales.max())
    compared = residual is not None and counting is not None
    # What is compared with thresholds takes its bias from them.
    constant = bias_codes(None if compared else bias, units) - tensor.zero_point * weights.values.reshape(outputs, -1).sum(axis=1)
    step, shared = quantizer.scale, False
    table: Integers = _EMPTY
    if residual is not None and counting is not None:
        own = _largest(builder, source) * np.abs(weights.values).reshape(outputs, -1).sum(axis=1)
        reach = units * own + builder.tensors[residual.tensor].scale * _largest(builder, residual)
        step, table = counting.on_sums(reach, offset=real_bias(bias, outputs))
        shared, table = shared_rows(table, zero_point=quantizer.zero_point)
    factors = units / (divisor * step)
    ratio = None if residual is None else builder.tensors[residual.tensor].scale / step
    if shifts is None:
        numbers = channel_numbers(factors, bits=config.multiplier_bits, residual=ratio)
    else:
        numbers = shared_numbers(float(factors[np.argmin(shifts)]), shifts, bits=config.multiplier_bits, residual=ratio)
    if kind == "conv":
        weights, groups = merged_groups(weights, groups=groups, lanes=config.lanes)
        codes = weights.codes.transpose(0, 2, 3, 1)
    else:
        codes = weights.codes[:, 0].transpose(1, 2, 0) if depthwise else weights.codes[:, :, 0, 0]
    added = None if residual is None else builder.tensors[residual.tensor]
    spec = layer_spec(
        kind=kind,
        input=tensor.shape,
        out=0 if depthwise else outputs,
        kernel=window.kernel,
        stride=one_stride(window, source, tensor.shape),
        padding=sum_sides(window.padding, source.padding),
        dilation=window.dilation,
        groups=groups if kind == "conv" else 1,
        weight_bits=weights.bits,
        gain=weights.gain,
        weight_offset=weights.offset,
        multiplier=numbers.multiplier,
        shift=numbers.shift,
        residual=added is not None,
        res_signed=added is not None and added.signed,
        z_res=0 if added is None else added.zero_point,
        res_multiplier=numbers.res_multiplier,
        res_shift=numbers.res_shift,
        thresholds=table.shape[1] if table.size else 0,
        threshold_shared=shared,
        **edges(tensor, quantizer),
    )
    return builder.add_layer(
        operation,
        spec,
        source,
        quantizer,
        residual=residual,
        weights=np.ascontiguousarray(codes),
        bias=constant,
        channel_shift=numbers.channel_shift,
        multipliers=numbers.multipliers,
        thresholds=table,
        name=name,
    )


def _largest(builder: GraphBuilder, stored: Stored) -> int:
    """The largest distance of a tensor's code from its zero point."""
    quantizer = builder.quantizers[stored.tensor]
    return max(quantizer.high - quantizer.zero_point, quantizer.zero_point - quantizer.low)


def copy_layer(
    builder: GraphBuilder,
    operation: Operation,
    source: Stored,
    quantizer: Quantizer,
    *,
    stride: tuple[int, int] = (1, 1),
    channels: tuple[int, int] = (0, 0),
    residual: Stored | None = None,
    counting: Counting | None = None,
    name: str | None = None,
) -> Stored:
    """A layer that only requantizes, subsamples, pads, or adds a residual: a weight of 1 for each channel."""
    count = builder.tensors[source.tensor].shape[2]
    window = Window((1, 1), stride)
    if any(channels):
        weights, groups = one_hot(count, before=channels[0], after=channels[1]), 1
    else:
        weights, groups = copy_weights(builder, count)
    return weighted_layer(
        builder,
        operation,
        source,
        quantizer,
        weights=weights,
        window=window,
        groups=groups,
        residual=residual,
        counting=counting,
        name=name,
    )


def copy_weights(builder: GraphBuilder, channels: int) -> tuple[Weights, int]:
    """Weights that copy each channel, and their groups: on the array, which is the faster engine and the only one that adds a residual."""
    return merged_groups(diagonal(channels), groups=channels, lanes=builder.config.lanes)


def pool_layer(
    builder: GraphBuilder,
    operation: Operation,
    source: Stored,
    quantizer: Quantizer,
    *,
    kind: Kind,
    window: Window,
    name: str | None = None,
) -> Stored:
    """A maximum, whose output has the input's scale, or an average."""
    tensor, taps = builder.tensors[source.tensor], window.kernel[0] * window.kernel[1]
    if kind == "average_pool" and not builder.config.depthwise:
        weights = diagonal(tensor.shape[2], taps=window.kernel)
        return weighted_layer(
            builder, operation, source, quantizer, weights=weights, window=window, groups=tensor.shape[2], divisor=taps, name=name
        )
    average = kind == "average_pool"
    channels = tensor.shape[2]
    factor = tensor.scale / (taps * quantizer.scale) if average else 1.0
    numbers = shared_numbers(factor, np.zeros(channels, dtype=np.int64), bits=builder.config.multiplier_bits)
    spec = layer_spec(
        kind=kind,
        input=tensor.shape,
        kernel=window.kernel,
        stride=one_stride(window, source, tensor.shape),
        padding=sum_sides(window.padding, source.padding),
        dilation=window.dilation,
        multiplier=numbers.multiplier,
        shift=numbers.shift,
        **edges(tensor, quantizer),
    )
    bias = np.full(channels, -tensor.zero_point * taps if average else 0, dtype=np.int64)
    return builder.add_layer(operation, spec, source, quantizer, bias=bias, channel_shift=numbers.channel_shift, name=name)


def layer_spec(**fields: object) -> LayerSpec:
    """A spec, or a ``Rejection`` with the spec's own words."""
    try:
        return LayerSpec(**fields)  # type: ignore[arg-type]
    except LayerError as error:
        raise Rejection.of(error) from error


def edges(tensor: Activation, quantizer: Quantizer) -> dict[str, object]:
    """The fields of a spec that say what codes of its input and output mean."""
    return {
        "in_signed": tensor.signed,
        "z_in": tensor.zero_point,
        "out_signed": quantizer.signed,
        "z_out": quantizer.zero_point,
        "lo": quantizer.low,
        "hi": quantizer.high,
    }


def sum_sides(first: Sides, second: Sides) -> Sides:
    """Padding of both, side by side."""
    return first[0] + second[0], first[1] + second[1], first[2] + second[2], first[3] + second[3]


def one_stride(window: Window, source: Stored, shape: tuple[int, int, int]) -> int:
    """The machine's one stride; where the output has one row or one column, that direction's stride does not count."""
    top, left, bottom, right = sum_sides(window.padding, source.padding)
    sizes = shape[0] + top + bottom, shape[1] + left + right
    counted = {
        stride
        for size, kernel, dilation, stride in zip(sizes, window.kernel, window.dilation, window.stride, strict=True)
        if size - (kernel - 1) * dilation - 1 >= stride
    }
    if len(counted) > 1:
        raise Rejection("stride", "equal in rows and columns", window.stride, "subsample in a layer of its own")
    return counted.pop() if counted else 1


def real_bias(bias: Constant | None, outputs: int) -> Reals:
    """A bias as real numbers, one an output; stored codes in float64."""
    if bias is None:
        return np.zeros(outputs)
    if bias.quantized is None:
        return np.asarray(bias.value.double().numpy())
    return (bias.quantized.codes - bias.quantized.zero_points) * bias.quantized.scales


def bias_codes(bias: Constant | None, units: Reals) -> Integers:
    """A bias in units of the sums; stored codes stay as they are where their scale is the same to within float32."""
    if bias is None:
        return np.zeros(len(units), dtype=np.int64)
    real = real_bias(bias, len(units))
    scaled = np.rint(real / units)
    if not (np.isfinite(scaled).all() and np.abs(scaled).max(initial=0) < 2.0**62):
        limit = "below 2**31 in units of input scale * weight scale"
        raise Rejection(
            "bias", limit, f"{np.abs(real).max():.3g}", "calibrate the input's range, or give the channel a larger weight scale"
        )
    if bias.quantized is not None:
        same = np.abs(bias.quantized.scales / units - 1) < 1e-6
        scaled = np.where(same, bias.quantized.codes - bias.quantized.zero_points, scaled)
    return scaled.astype(np.int64)


def unpadded(builder: GraphBuilder, operation: Operation, source: Stored) -> Stored:
    """The tensor with its padding stored, by a layer if there is any."""
    if source.padding == NO_PADDING:
        return source
    copied = copy_layer(builder, operation, source, builder.quantizers[source.tensor].full, name=f"{source.tensor}.padded")
    return replace(copied, shape=source.shape)
