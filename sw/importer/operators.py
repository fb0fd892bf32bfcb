"""The operators that networks may contain: each function reads one operation and gives its value as an expression."""

from collections.abc import Callable
from math import inf, prod
from typing import Any, cast

import torch
from torch.fx import Node

from tercel.sw.importer.capture import Operation
from tercel.sw.importer.expressions import (
    NO_PADDING,
    Add,
    Clamp,
    Concat,
    Constant,
    Expression,
    Pool,
    Resample,
    Sides,
    View,
    Weighted,
    Window,
)
from tercel.sw.importer.host import HOST_NAMES
from tercel.sw.importer.pointwise import batch_norm, constant_add, count_thresholds, prelu, product
from tercel.sw.importer.report import Rejection

Read = Callable[[Any], Expression | Constant]
"""The value of a node that an operation reads."""


def _activation(read: Read, node: Any) -> Expression:
    value = read(node)
    if isinstance(value, Constant):
        raise Rejection("input", "a tensor that depends on the network's input", "a constant", "fold it into weights or bias")
    return value


def _constant(read: Read, node: Any, argument: str) -> Constant | None:
    if node is None:
        return None
    value = read(node)
    if not isinstance(value, Constant):
        raise Rejection(argument, "a constant", "a computed tensor", "products of two activations do not run on this machine")
    return value


def _shape(operation: Operation) -> tuple[int, ...]:
    if operation.shape is None:
        raise Rejection("shape", "static in all but the batch", "dynamic", "export with fixed image sizes")
    return operation.shape


def _pair(values: Any) -> tuple[int, int]:
    values = [values] if isinstance(values, int) else list(values)
    first, second = values * 2 if len(values) == 1 else values
    return int(first), int(second)


def _same_sides(padding: Any) -> Sides:
    rows, columns = _pair(padding)
    return rows, columns, rows, columns


def _conv2d(operation: Operation, read: Read) -> Expression:
    given = operation.arguments
    weight = _constant(read, given["weight"], "weight")
    assert weight is not None
    if weight.value.dim() != 4:
        raise Rejection("weight", "of 4 dimensions", weight.value.dim(), "write a convolution of vectors as one of images of 1 row")
    rows, columns = (int(size) for size in weight.value.shape[2:])
    dilation = _pair(given["dilation"])
    if given.get("transposed"):
        raise Rejection("convolution", "not transposed", "transposed", "upsample and convolve, or train with a plain convolution")
    padding = NO_PADDING
    if given["padding"] == "same":
        (top, bottom), (left, right) = (_halves((size - 1) * step) for size, step in zip((rows, columns), dilation, strict=True))
        padding = top, left, bottom, right
    elif given["padding"] != "valid":
        padding = _same_sides(given["padding"])
    return Weighted(
        operation,
        "conv",
        _activation(read, given["input"]),
        weight,
        _constant(read, given["bias"], "bias"),
        _shape(operation),
        Window((rows, columns), _pair(given["stride"]), padding, dilation),
        int(given["groups"]),
    )


def _halves(total: int) -> tuple[int, int]:
    return total // 2, total - total // 2


def _linear(operation: Operation, read: Read) -> Expression:
    given = operation.arguments
    weight = _constant(read, given["weight"], "weight")
    assert weight is not None
    return Weighted(
        operation,
        "linear",
        _activation(read, given["input"]),
        weight,
        _constant(read, given["bias"], "bias"),
        _shape(operation),
        Window((1, 1)),
    )


def _relu(operation: Operation, read: Read) -> Expression:
    return Clamp(operation, _activation(read, _first(operation)), _shape(operation), 0.0, inf)


def _relu6(operation: Operation, read: Read) -> Expression:
    return Clamp(operation, _activation(read, _first(operation)), _shape(operation), 0.0, 6.0)


def _clamp(operation: Operation, read: Read) -> Expression:
    given = operation.arguments
    limits = [given.get("min_val", given.get("min")), given.get("max_val", given.get("max"))]
    low, high = (default if limit is None else limit for default, limit in zip((-inf, inf), limits, strict=True))
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        raise Rejection("limits", "numbers", "tensors", "clamp by the same numbers in all channels")
    return Clamp(operation, _activation(read, _first(operation)), _shape(operation), float(low), float(high))


def _add(operation: Operation, read: Read) -> Expression:
    given = operation.arguments
    with_constant = constant_add(operation, read)
    if with_constant is not None:
        return with_constant
    if given.get("alpha", 1) != 1:
        raise Rejection("alpha", "1", given["alpha"], "scale the tensor before")
    if not isinstance(given["other"], Node):
        raise Rejection("other", "a tensor", given["other"], "fold constants into the bias of the layer before")
    return Add(operation, _activation(read, given["self"]), _activation(read, given["other"]), _shape(operation))


def _max_pool(operation: Operation, read: Read) -> Expression:
    given, value = operation.arguments, _activation(read, _first(operation))
    kernel, dilation = _pair(given["kernel_size"]), _pair(given["dilation"])
    stride, padding = _pair(given["stride"] or kernel), _pair(given["padding"])
    shape = _shape(operation)
    # With ceil_mode the last window may reach past the image, by rows and columns that count as absent.
    past = [
        max(0, (out - 1) * step + (size - 1) * spread + 1 - length - pad) if given["ceil_mode"] else pad
        for out, step, size, spread, length, pad in zip(shape[1:], stride, kernel, dilation, value.shape[1:], padding, strict=True)
    ]
    return Pool(operation, "max_pool", value, shape, Window(kernel, stride, (*padding, past[0], past[1]), dilation))


def _average_pool(operation: Operation, read: Read) -> Expression:
    given, value = operation.arguments, _activation(read, _first(operation))
    kernel = _pair(given["kernel_size"])
    stride, padding, shape = _pair(given["stride"] or kernel), _pair(given["padding"]), _shape(operation)
    if any(padding) and not given["count_include_pad"]:
        raise Rejection("count_include_pad", "true where there is padding", False, "a mean over fewer pixels needs another divisor")
    if given["divisor_override"] is not None:
        raise Rejection("divisor_override", "none", given["divisor_override"], "scale the layer after it")
    floor = tuple(
        (size + 2 * pad - part) // step + 1 for size, pad, part, step in zip(value.shape[1:], padding, kernel, stride, strict=True)
    )
    if floor != shape[1:]:
        raise Rejection("ceil_mode", "false", True, "a mean over fewer pixels needs another divisor")
    return Pool(operation, "average_pool", value, shape, Window(kernel, stride, _same_sides(padding)))


def _adaptive_average_pool(operation: Operation, read: Read) -> Expression:
    value, shape = _activation(read, _first(operation)), _shape(operation)
    whole = all(size % parts == 0 for size, parts in zip(value.shape[1:], shape[1:], strict=True))
    if not whole:
        raise Rejection("output_size", f"a divisor of {value.shape[1:]}", shape[1:], "pool with a fixed kernel")
    kernel = value.shape[1] // shape[1], value.shape[2] // shape[2]
    return Pool(operation, "average_pool", value, shape, Window(kernel, kernel))


def _mean(operation: Operation, read: Read) -> Expression:
    given, value = operation.arguments, _activation(read, _first(operation))
    rank = len(value.shape) + 1
    dims = sorted(dim % rank for dim in given["dim"] or ())
    if rank != 4 or dims != [2, 3]:
        raise Rejection("dim", "rows and columns (2, 3) of an image", given["dim"], "average with adaptive_avg_pool2d")
    return Pool(operation, "average_pool", value, _shape(operation), Window((value.shape[1], value.shape[2])))


def _view(operation: Operation, read: Read) -> Expression:
    value, shape = _activation(read, _first(operation)), _shape(operation)
    if prod(shape) != prod(value.shape):
        raise Rejection("shape", f"of {prod(value.shape)} elements an image", ("batch", *shape), "leave the batch alone")
    return View(operation, value, shape)


def _same(operation: Operation, read: Read) -> Expression | Constant:
    return read(_first(operation))


def _dropout(operation: Operation, read: Read) -> Expression | Constant:
    if operation.arguments.get("train"):
        raise Rejection("model", "in eval mode", "in training mode", "call eval() before the export")
    return _same(operation, read)


def _concat(operation: Operation, read: Read) -> Expression:
    given = operation.arguments
    values = tuple(_activation(read, node) for node in given["tensors"])
    rank = len(values[0].shape) + 1
    if given.get("dim", 0) % rank != 1 or rank not in (2, 4):
        raise Rejection("dim", "1, the channels", given.get("dim", 0), "join along channels")
    return Concat(operation, values, _shape(operation))


def _pad(operation: Operation, read: Read) -> Expression:
    given, value = operation.arguments, _activation(read, _first(operation))
    if given.get("mode", "constant") != "constant":
        raise Rejection("mode", "constant", given["mode"], "pad with zeros")
    if given.get("value") not in (None, 0, 0.0):
        raise Rejection("value", "0", given["value"], "other values need a quantizer that knows them")
    sides = [*given["pad"], *[0] * (6 - len(given["pad"]))]
    left, right, top, bottom, before, after = sides
    if min(sides) < 0 or len(sides) > 6 or len(value.shape) != 3:
        raise Rejection("pad", "at least 0 for columns, rows and channels of an image", given["pad"], "crop with a convolution")
    padding, channels, stride = (top, left, bottom, right), (before, after), (1, 1)
    if isinstance(value, Resample):
        padding = cast(Sides, tuple(map(sum, zip(padding, value.padding, strict=True))))
        channels = channels[0] + value.channels[0], channels[1] + value.channels[1]
        stride, value = value.stride, value.input
    return Resample(operation, value, _shape(operation), stride, padding, channels)


def _slice(operation: Operation, read: Read) -> Expression:
    given, value, shape = operation.arguments, _activation(read, _first(operation)), _shape(operation)
    dim, step = given["dim"] % (len(value.shape) + 1), given["step"]
    if shape == value.shape:
        return value
    whole = dim in (2, 3) and len(value.shape) == 3 and given["start"] in (None, 0) and shape[dim - 1] == -(-value.shape[dim - 1] // step)
    if not whole:
        raise Rejection("slice", "every n-th row and column of a whole image", f"dim {dim}, step {step}", "crop with a convolution")
    stride = (step, 1) if dim == 2 else (1, step)
    if isinstance(value, Resample) and value.padding == NO_PADDING and value.channels == (0, 0):
        stride, value = (stride[0] * value.stride[0], stride[1] * value.stride[1]), value.input
    return Resample(operation, value, shape, stride=stride)


def _first(operation: Operation) -> Any:
    return next(iter(operation.arguments.values()))


_TABLE: dict[str, Callable[[Operation, Read], Expression | Constant]] = {
    "conv2d": _conv2d,
    "convolution": _conv2d,
    "linear": _linear,
    "relu": _relu,
    "relu6": _relu6,
    "hardtanh": _clamp,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "add": _add,
    "batch_norm": batch_norm,
    "mul": product,
    "prelu": prelu,
    "leaky_relu": prelu,
    "max_pool2d": _max_pool,
    "avg_pool2d": _average_pool,
    "adaptive_avg_pool2d": _adaptive_average_pool,
    "mean": _mean,
    "cat": _concat,
    "concat": _concat,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "slice": _slice,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "flatten", "squeeze", "unsqueeze"), _view),
    **dict.fromkeys(("dropout", "feature_dropout"), _dropout),
    **dict.fromkeys(("clone", "contiguous", "detach", "alias", "lift_fresh_copy", "to", "_to_copy"), _same),
}

_OWN: dict[str, Callable[[Operation, Read], Expression | Constant]] = {"tercel.multi_threshold.default": count_thresholds}

_WAYS_OUT = {
    "hardswish": "use relu6",
    "hardsigmoid": "use relu6",
    "silu": "use relu6",
    "gelu": "use relu",
    "sigmoid": "leave it out at the end, or allow_host",
    "softmax": "leave it out at the end, or allow_host; it does not change the order of the classes",
    "addmm": "import the program before run_decompositions",
    "permute": "keep images as batch, channels, rows, columns",
}


def expression_of(operation: Operation, read: Read) -> Expression | Constant:
    """The value of an operation; a ``Rejection`` for operators that the machine lacks."""
    short = operation.short
    make = _TABLE.get(short) if operation.operator.startswith("aten.") else _OWN.get(operation.operator)
    if make is None:
        way_out = "replace it, or let it run on the host at either end" if short in HOST_NAMES else "replace it"
        way_out = next((way for name, way in _WAYS_OUT.items() if name in short), way_out)
        raise Rejection("operator", "a supported one", short, way_out)
    return make(operation, read)


def folded(operation: Operation, values: dict[Node, torch.Tensor]) -> torch.Tensor | None:
    """The result of an operator that reads constants alone."""
    with torch.no_grad():
        arguments = torch.fx.map_arg(operation.node.args, lambda node: values[node])
        named = torch.fx.map_arg(operation.node.kwargs, lambda node: values[node])
        result = operation.node.target(*arguments, **named)  # type: ignore[operator]
    return result if isinstance(result, torch.Tensor) else None
