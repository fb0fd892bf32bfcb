"""The operators that the host computes, each with its parameters, the type of its result and its values.

Real numbers are float32, as in the networks that these operators come from. Dimensions count as in PyTorch: 0 is the batch, which
every operator leaves alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
Values = npt.NDArray[Any]
Parameters = Mapping[str, Any]

DTYPES = ("int8", "uint8", "int16", "int32")
"""What ``quantize`` may make."""


class HostError(ValueError):
    """Operators on the host that cannot be. The message names the operator, the field, the limit and the value."""


@dataclass(frozen=True)
class HostType:
    """What a tensor is: its shape without the batch, whole numbers or reals, and whether it has a batch (constants have none)."""

    shape: Shape
    whole: bool = False
    batched: bool = True


@dataclass(frozen=True, kw_only=True)
class OperatorKind:
    """One kind of operator.

    Parameters
    ----------
    inputs
        How many tensors it reads; None for one or more.
    parameters
        The names of its parameters, from ``PARAMETERS``; all must be given.
    result
        The type of its result; :class:`HostError` for types or parameters that do not fit.
    run
        Its values, from arrays ``[batch, *shape]`` and constants without a batch.
    """

    inputs: int | None = 1
    parameters: tuple[str, ...] = ()
    result: Callable[[Sequence[HostType], Parameters], HostType]
    run: Callable[[Sequence[Values], Parameters], Values]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31


def _number(value: Any) -> bool:
    return (_whole(value) or isinstance(value, float)) and isfinite(value)


def _list(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_whole, value))


PARAMETERS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "dim": ("a whole number", _whole),
    "dims": ("whole numbers", _list),
    "dtype": (f"one of {', '.join(DTYPES)}", lambda value: value in DTYPES),
    "high": ("a number or null", lambda value: value is None or _number(value)),
    "keep": ("true or false", lambda value: isinstance(value, bool)),
    "largest": ("a whole number", _whole),
    "low": ("a number or null", lambda value: value is None or _number(value)),
    "order": ("whole numbers", _list),
    "scale": ("a number above 0", lambda value: _number(value) and value > 0),
    "shape": ("whole numbers of at least 1", lambda value: _list(value) and min(value, default=1) >= 1),
    "smallest": ("a whole number", _whole),
    "start": ("a whole number of at least 0", lambda value: _whole(value) and value >= 0),
    "step": ("a whole number of at least 1", lambda value: _whole(value) and value >= 1),
    "stop": ("a whole number of at least 1", lambda value: _whole(value) and value >= 1),
    "zero_point": ("a whole number", _whole),
}
"""What each parameter must be, in words and as a test; a parameter means the same in every kind."""


def check_parameters(kind: str, parameters: Parameters) -> None:
    """:class:`HostError` unless ``parameters`` are those of ``kind``, each of its type."""
    names = KINDS[kind].parameters
    if set(parameters) != set(names):
        raise HostError(_text("parameters", ", ".join(names) or "none", ", ".join(sorted(map(str, parameters))) or "none"))
    for name, value in parameters.items():
        text, fits = PARAMETERS[name]
        if not fits(value):
            raise HostError(_text(name, text, repr(value)))


def _text(name: str, limit: object, value: object, why: str = "what the host computes") -> str:
    return f"{name} must be {limit}, not {value} ({why})"


def _one(inputs: Sequence[HostType], *, whole: bool | None = False) -> HostType:
    """The only input, of numbers of the right kind; None allows both."""
    (given,) = inputs
    if not given.batched:
        raise HostError(_text("input", "a tensor of the network", "a constant"))
    if whole is not None and given.whole != whole:
        names = ("real numbers", "whole numbers")
        raise HostError(_text("input", names[whole], names[given.whole]))
    return given


def _dim(given: HostType, dim: int) -> int:
    """``dim`` without the batch."""
    if not 1 <= dim <= len(given.shape):
        raise HostError(_text("dim", f"in 1..{len(given.shape)}", dim, "on the host; 0 is the batch"))
    return dim - 1


def _same(inputs: Sequence[HostType], parameters: Parameters) -> HostType:
    return _one(inputs)


def _along(inputs: Sequence[HostType], parameters: Parameters) -> HostType:
    given = _one(inputs)
    _dim(given, parameters["dim"])
    return given


def _broadcast(inputs: Sequence[HostType], parameters: Parameters) -> HostType:
    if any(given.whole for given in inputs):
        raise HostError(_text("inputs", "real numbers", "whole numbers"))
    tensors = [given for given in inputs if given.batched]
    ranks = {len(given.shape) for given in tensors}
    shapes = ", ".join(str(list(given.shape)) for given in inputs)
    if len(ranks) != 1 or any(len(given.shape) > max(ranks) for given in inputs):
        raise HostError(_text("inputs", "tensors of one rank, and constants of no higher one", shapes))
    try:
        return HostType(np.broadcast_shapes(*(given.shape for given in inputs)))
    except ValueError:
        raise HostError(_text("inputs", "of shapes that broadcast", shapes)) from None


def _clamped(inputs: Sequence[HostType], parameters: Parameters) -> HostType:
    if parameters["low"] is None and parameters["high"] is None:
        raise HostError(_text("limits", "low, high or both", "none"))
    return _one(inputs)


def _reduced(given: HostType, dims: Sequence[int], *, keep: bool, whole: bool) -> HostType:
    gone = {_dim(given, dim) for dim in dims}
    if len(gone) != len(dims) or not dims:
        raise HostError(_text("dims", "different, and one at least", list(dims)))
    return HostType(tuple(1 if index in gone else size for index, size in enumerate(given.shape) if keep or index not in gone), whole)


def _reshaped(inputs: Sequence[HostType], parameters: Parameters) -> HostType:
    given, shape = _one(inputs, whole=None), parameters["shape"]
    if prod(shape) != prod(given.shape):
        raise HostError(_text("shape", f"of {prod(given.shape)} elements an image", list(shape)))
    return HostType(shape, given.whole)


def _transposed(inputs: Sequence[HostType], parameters: Parameters) -> HostType:
    given, order = _one(inputs, whole=None), parameters["order"]
    if order[:1] != (0,) or sorted(order) != list(range(len(given.shape) + 1)):
        raise HostError(_text("order", f"0 and then the dimensions 1..{len(given.shape)}", list(order)))
    return HostType(tuple(given.shape[dim - 1] for dim in order[1:]), given.whole)


def _joined(inputs: Sequence[HostType], parameters: Parameters) -> HostType:
    first = _one(inputs[:1], whole=None)
    axis = _dim(first, parameters["dim"])
    rests = {(given.shape[:axis], given.shape[axis + 1 :], len(given.shape), given.whole, given.batched) for given in inputs}
    if len(rests) != 1:
        raise HostError(_text("inputs", f"equal in all but dimension {axis + 1}", ", ".join(str(list(given.shape)) for given in inputs)))
    return HostType((*first.shape[:axis], sum(given.shape[axis] for given in inputs), *first.shape[axis + 1 :]), first.whole)


def _sliced(inputs: Sequence[HostType], parameters: Parameters) -> HostType:
    given = _one(inputs, whole=None)
    axis = _dim(given, parameters["dim"])
    if not parameters["start"] < parameters["stop"] <= given.shape[axis]:
        raise HostError(_text("start and stop", f"ascending in 0..{given.shape[axis]}", (parameters["start"], parameters["stop"])))
    size = len(range(parameters["start"], parameters["stop"], parameters["step"]))
    return HostType((*given.shape[:axis], size, *given.shape[axis + 1 :]), given.whole)


def _quantized(inputs: Sequence[HostType], parameters: Parameters) -> HostType:
    given, limits = _one(inputs), np.iinfo(parameters["dtype"])
    smallest, largest = parameters["smallest"], parameters["largest"]
    if not limits.min <= smallest < largest <= limits.max:
        raise HostError(_text("smallest and largest", f"ascending in {limits.min}..{limits.max}", (smallest, largest)))
    return HostType(given.shape, whole=True)


def _exponentials(values: Values, dim: int) -> tuple[Values, Values]:
    """``values`` less their largest, and the exponentials of that."""
    lower = values - values.max(axis=dim, keepdims=True)
    return lower, np.exp(lower)


def _run_softmax(inputs: Sequence[Values], given: Parameters) -> Values:
    _, powers = _exponentials(inputs[0], given["dim"])
    return np.asarray(powers / powers.sum(axis=given["dim"], keepdims=True))


def _run_log_softmax(inputs: Sequence[Values], given: Parameters) -> Values:
    lower, powers = _exponentials(inputs[0], given["dim"])
    return np.asarray(lower - np.log(powers.sum(axis=given["dim"], keepdims=True)))


def _run_argmax(inputs: Sequence[Values], given: Parameters) -> Values:
    return np.asarray(np.argmax(inputs[0], axis=given["dim"], keepdims=given["keep"]), dtype=np.int64)


def _run_slice(inputs: Sequence[Values], given: Parameters) -> Values:
    return np.asarray(inputs[0][(slice(None),) * given["dim"] + (slice(given["start"], given["stop"], given["step"]),)])


def _run_quantize(inputs: Sequence[Values], given: Parameters) -> Values:
    codes = np.rint(inputs[0] * (1.0 / given["scale"])) + given["zero_point"]
    return np.asarray(np.clip(codes, given["smallest"], given["largest"]).astype(given["dtype"]))


def _run_dequantize(inputs: Sequence[Values], given: Parameters) -> Values:
    return np.asarray((inputs[0].astype(np.float32) - given["zero_point"]) * np.float32(given["scale"]))


def _elementwise(function: Callable[[Values], Any]) -> OperatorKind:
    return OperatorKind(result=_same, run=lambda inputs, _: np.asarray(function(inputs[0])))


def _arithmetic(function: Callable[[Values, Values], Any]) -> OperatorKind:
    return OperatorKind(inputs=2, result=_broadcast, run=lambda inputs, _: np.asarray(function(*inputs)))


KINDS: dict[str, OperatorKind] = {
    "add": _arithmetic(np.add),
    "argmax": OperatorKind(
        parameters=("dim", "keep"),
        result=lambda inputs, given: _reduced(_one(inputs), (given["dim"],), keep=given["keep"], whole=True),
        run=_run_argmax,
    ),
    "clamp": OperatorKind(
        parameters=("low", "high"), result=_clamped, run=lambda inputs, given: np.asarray(np.clip(inputs[0], given["low"], given["high"]))
    ),
    "concat": OperatorKind(
        inputs=None, parameters=("dim",), result=_joined, run=lambda inputs, given: np.concatenate(inputs, axis=given["dim"])
    ),
    "dequantize": OperatorKind(
        parameters=("scale", "zero_point"),
        result=lambda inputs, _: HostType(_one(inputs, whole=True).shape),
        run=_run_dequantize,
    ),
    "div": _arithmetic(np.divide),
    "exp": _elementwise(np.exp),
    "log": _elementwise(np.log),
    "log_softmax": OperatorKind(parameters=("dim",), result=_along, run=_run_log_softmax),
    "mean": OperatorKind(
        parameters=("dims", "keep"),
        result=lambda inputs, given: _reduced(_one(inputs), given["dims"], keep=given["keep"], whole=False),
        run=lambda inputs, given: np.asarray(inputs[0].mean(axis=given["dims"], keepdims=given["keep"])),
    ),
    "mul": _arithmetic(np.multiply),
    "quantize": OperatorKind(parameters=("scale", "zero_point", "smallest", "largest", "dtype"), result=_quantized, run=_run_quantize),
    "reshape": OperatorKind(
        parameters=("shape",), result=_reshaped, run=lambda inputs, given: inputs[0].reshape(len(inputs[0]), *given["shape"])
    ),
    "sigmoid": _elementwise(lambda values: 1 / (1 + np.exp(-values))),
    "slice": OperatorKind(parameters=("dim", "start", "stop", "step"), result=_sliced, run=_run_slice),
    "softmax": OperatorKind(parameters=("dim",), result=_along, run=_run_softmax),
    "sqrt": _elementwise(np.sqrt),
    "sub": _arithmetic(np.subtract),
    "tanh": _elementwise(np.tanh),
    "transpose": OperatorKind(parameters=("order",), result=_transposed, run=lambda inputs, given: inputs[0].transpose(given["order"])),
}
"""All there are, by name. A file that names another one is of another release or damaged."""
