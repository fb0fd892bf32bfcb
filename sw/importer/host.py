"""Operators of a captured graph that the host computes: each becomes one of the closed list in :mod:`tercel.sw.host`."""

from collections.abc import Callable, Mapping, Sequence
from math import isinf
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import Node

from tercel.sw.host import KINDS, HostConstant, HostError, HostGraph, HostInput, HostOperator, HostType
from tercel.sw.importer.capture import Operation, short_name
from tercel.sw.importer.expressions import Constant, Expression, FloatInput, HostOperand, HostValue, Quantizer, Stored
from tercel.sw.importer.report import Rejection

Call = tuple[Sequence[Any], dict[str, Any]]
"""Operands (nodes and numbers) and parameters."""


def _rank(operation: Operation) -> int:
    """Dimensions of the first tensor that it reads, the batch among them."""
    return int(operation.nodes()[0].meta["val"].dim())


def _refuse(operation: Operation, **wanted: Any) -> None:
    """A ``Rejection`` for an argument with another value than the one that the host's operator has; those it lacks do not count."""
    for name, value in wanted.items():
        found = operation.arguments.get(name, value)
        if found != value:
            raise Rejection(name, "left out" if value is None else str(value), found, "the host runs the operator in its plain form")


def _elementwise(operation: Operation) -> Call:
    return [operation.arguments["self"]], {}


def _arithmetic(operation: Operation) -> Call:
    _refuse(operation, alpha=1, rounding_mode=None)
    return [operation.arguments["self"], operation.arguments["other"]], {}


def _reversed(operation: Operation) -> Call:
    (first, second), parameters = _arithmetic(operation)
    return [second, first], parameters


def _along(operation: Operation) -> Call:
    _refuse(operation, half_to_float=False)
    return [operation.arguments["self"]], {"dim": int(operation.arguments["dim"]) % _rank(operation)}


def _clamp(operation: Operation) -> Call:
    given = operation.arguments
    return [given["self"]], {"low": _limit(given.get("min", given.get("min_val"))), "high": _limit(given.get("max", given.get("max_val")))}


def _limit(value: Any) -> float | None:
    if isinstance(value, Node):
        raise Rejection("limits", "numbers", "tensors", "clamp by the same numbers everywhere")
    return None if value is None or isinf(value) else float(value)


def _argmax(operation: Operation) -> Call:
    given = operation.arguments
    if given["dim"] is None:
        raise Rejection("dim", "one dimension", None, "name it, or the batch would be searched too")
    return [given["self"]], {"dim": int(given["dim"]) % _rank(operation), "keep": bool(given["keepdim"])}


def _mean(operation: Operation) -> Call:
    given = operation.arguments
    if not given.get("dim"):
        raise Rejection("dim", "one dimension or more", None, "name them, or the batch would be averaged too")
    dims = tuple(sorted(int(dim) % _rank(operation) for dim in given["dim"]))
    return [given["self"]], {"dims": dims, "keep": bool(given["keepdim"])}


def _reshape(operation: Operation) -> Call:
    return [next(iter(operation.arguments.values()))], {"shape": operation.shape}


def _permute(operation: Operation) -> Call:
    return [operation.arguments["self"]], {"order": tuple(int(dim) % _rank(operation) for dim in operation.arguments["dims"])}


def _transpose(operation: Operation) -> Call:
    given, order = operation.arguments, list(range(_rank(operation)))
    first, second = (int(given[name]) % len(order) for name in ("dim0", "dim1"))
    order[first], order[second] = order[second], order[first]
    return [given["self"]], {"order": tuple(order)}


def _concat(operation: Operation) -> Call:
    return operation.arguments["tensors"], {"dim": int(operation.arguments["dim"]) % _rank(operation)}


def _slice(operation: Operation) -> Call:
    given = operation.arguments
    dim = int(given["dim"]) % _rank(operation)
    size = int(given["self"].meta["val"].shape[dim]) if dim else 0
    start, stop, step = slice(given["start"], given["end"], given["step"]).indices(size)
    return [given["self"]], {"dim": dim, "start": start, "stop": stop, "step": step}


VIEWS = ("view", "_unsafe_view", "reshape", "flatten", "squeeze", "unsqueeze")
UNCHANGED = ("dropout", "feature_dropout", "clone", "contiguous", "detach", "alias", "lift_fresh_copy", "to", "_to_copy")
SHAPES = (*VIEWS, *UNCHANGED)
"""Operators that change no value: beside the host's they run on the host."""

_TABLE: dict[str, tuple[str, Callable[[Operation], Call]]] = {
    **{kind: (kind, _elementwise) for kind in ("exp", "log", "sigmoid", "sqrt", "tanh")},
    **{kind: (kind, _arithmetic) for kind in ("add", "sub", "mul", "div")},
    "rsub": ("sub", _reversed),
    **dict.fromkeys(("softmax", "_softmax"), ("softmax", _along)),
    **dict.fromkeys(("log_softmax", "_log_softmax"), ("log_softmax", _along)),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "hardtanh"), ("clamp", _clamp)),
    "relu": ("clamp", lambda operation: ([operation.arguments["self"]], {"low": 0.0, "high": None})),
    "relu6": ("clamp", lambda operation: ([operation.arguments["self"]], {"low": 0.0, "high": 6.0})),
    "argmax": ("argmax", _argmax),
    "mean": ("mean", _mean),
    "permute": ("transpose", _permute),
    "transpose": ("transpose", _transpose),
    **dict.fromkeys(("cat", "concat"), ("concat", _concat)),
    "slice": ("slice", _slice),
    **dict.fromkeys(SHAPES, ("reshape", _reshape)),
}
HOST_NAMES = tuple(short for short in _TABLE if not short.startswith("_") and short not in SHAPES)
"""What may be allowed to run on the host."""


def host_names(allow_host: Sequence[str]) -> frozenset[str]:
    """The short names in ``allow_host``; :class:`~tercel.sw.host.HostError` for an operator that the host does not run."""
    names = frozenset(map(short_name, allow_host))
    for given in allow_host:
        if short_name(given) not in _TABLE:
            raise HostError(f"allow_host must name operators of the host, not {given!r} (they are {', '.join(HOST_NAMES)})")
    return names


def allowed_by(*graphs: HostGraph | None) -> tuple[str, ...]:
    """The ``allow_host`` that a network with these operators on the host was imported with, as far as it counted."""
    kinds = {operator.kind for graph in graphs if graph is not None for operator in graph.operators}
    return tuple(short for short, (kind, _) in _TABLE.items() if kind in kinds and short not in SHAPES)


def host_value(operation: Operation, value: Callable[[Any], Expression | Constant]) -> HostValue:
    """An operation as one on the host; a ``Rejection`` for what none in the list does. ``value`` gives that of each node it reads."""
    if operation.short not in _TABLE or not operation.operator.startswith("aten."):
        raise Rejection("operator", "one that the host runs", operation.short, f"they are {', '.join(HOST_NAMES)}")
    kind, make = _TABLE[operation.short]
    return _checked(operation, kind, make(operation), value)


def host_quantize(operation: Operation, quantizer: Quantizer, value: Callable[[Any], Expression | Constant]) -> HostValue:
    """A quantize or dequantize operator behind the layers, on the host."""
    numbers: dict[str, Any] = {"scale": quantizer.scale, "zero_point": quantizer.zero_point}
    kind = operation.short.split("_")[0]
    if kind == "quantize":
        dtype = str(operation.arguments["dtype"]).removeprefix("torch.")
        numbers |= {"smallest": quantizer.low, "largest": quantizer.high, "dtype": dtype}
    return _checked(operation, kind, ([operation.arguments["input"]], numbers), value)


def _checked(operation: Operation, kind: str, call: Call, value: Callable[[Any], Expression | Constant]) -> HostValue:
    given, parameters = call
    if operation.shape is None:
        raise Rejection("shape", "static in all but the batch", "dynamic", "export with fixed image sizes")
    operands = tuple(_operand(value(each) if isinstance(each, Node) else each, len(operation.shape)) for each in given)
    try:
        result = KINDS[kind].result([_type(operand) for operand in operands], parameters)
    except HostError as error:
        raise Rejection.of(error) from None
    own = operation.node.meta["val"]
    if not result.whole and own.dtype != torch.float32:
        raise Rejection("dtype", "float32 on the host", own.dtype, "leave the network in float32")
    batches = {str(node.meta["val"].shape[0]) for node in operation.nodes() if not isinstance(value(node), Constant)}
    if result.shape != operation.shape or batches != {str(own.shape[0])}:
        raise Rejection("batch", "left alone, as the first dimension", list(own.shape), "work on one image at a time on the host")
    head = all(isinstance(o, FloatInput) or (isinstance(o, HostValue) and o.head) for o in operands if not isinstance(o, np.ndarray))
    return HostValue(operation, result.shape, head, kind, operands, parameters, whole=result.whole)


def _operand(value: Any, rank: int) -> HostOperand:
    """What an operation reads, as the host's operators take it; ``rank`` is that of the result without the batch."""
    if isinstance(value, HostValue | Stored | FloatInput):
        return value
    array = np.asarray(value.value.numpy() if isinstance(value, Constant) else value, dtype=np.float32)
    return array[0] if array.ndim == rank + 1 and array.shape[0] == 1 else array


def _type(operand: HostOperand) -> HostType:
    if isinstance(operand, np.ndarray):
        return HostType(operand.shape, batched=False)
    return HostType(operand.shape, whole=isinstance(operand, HostValue) and operand.whole)


def host_graph(outputs: Sequence[HostValue | Stored | FloatInput], *, moved: Mapping[str, str], taken: Sequence[str] = ()) -> HostGraph:
    """The operators that make ``outputs``, each named after its node.

    ``moved`` are new names of stored tensors; ``taken`` are names that no operator may have.
    """
    assembly = _Assembly(moved, set(taken))
    names = tuple(assembly.name(value) for value in outputs)
    return HostGraph(tuple(assembly.inputs.values()), tuple(assembly.constants), tuple(assembly.operators), names)


class _Assembly:
    """Inputs, constants and operators as they are come upon."""

    def __init__(self, moved: Mapping[str, str], taken: set[str]) -> None:
        self.moved, self.taken = moved, taken
        self.inputs: dict[str, HostInput] = {}
        self.constants: list[HostConstant] = []
        self.operators: list[HostOperator] = []
        self.names: dict[str, str] = {}

    def name(self, value: HostOperand) -> str:
        """The tensor's name on the host, after all that it takes has been added."""
        match value:
            case FloatInput():
                return self.inputs.setdefault(value.name, HostInput(value.name, value.shape)).name
            case Stored():
                return self._stored(value)
            case HostValue():
                node = value.operation.node.name
                if node not in self.names:
                    read = tuple(self.name(operand) for operand in value.operands)
                    self.names[node] = self._operator(value.kind, read, node, value.parameters)
                return self.names[node]
            case _:
                return self._constant(value)

    def _stored(self, value: Stored) -> str:
        """A tensor enters with the shape of its first use; other views of it are made from that."""
        tensor = self.moved.get(value.tensor, value.tensor)
        entry = self.inputs.setdefault(tensor, HostInput(tensor, value.shape))
        view = f"{tensor}.{'x'.join(map(str, value.shape))}"
        if entry.shape == value.shape:
            return tensor
        if view not in self.names:
            self.names[view] = self._operator("reshape", (tensor,), view, {"shape": value.shape})
        return self.names[view]

    def _operator(self, kind: str, read: tuple[str, ...], name: str, parameters: Mapping[str, Any]) -> str:
        while name in self.taken:
            name += ".host"
        self.taken.add(name)
        self.operators.append(HostOperator(kind, read, name, parameters))
        return name

    def _constant(self, value: npt.NDArray[np.float32]) -> str:
        name = f"constant.{len(self.constants)}"
        self.constants.append(HostConstant(name, value.shape, tuple(float(number) for number in value.flat)))
        return name
