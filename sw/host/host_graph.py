"""Operators on the host in order, from named inputs and constants to named outputs: checked when made, run in NumPy."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from tercel.sw.host.operators import KINDS, PARAMETERS, HostError, HostType, Parameters, Shape, Values, check_parameters

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class HostInput:
    """A tensor of real numbers that enters; ``shape`` without the batch."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class HostConstant:
    """Finite real numbers, row by row; ``shape`` is ``()`` for one number."""

    name: str
    shape: Shape
    values: tuple[float, ...]

    @cached_property
    def array(self) -> Values:
        """The constant as operators read it, float32."""
        return np.asarray(self.values, dtype=np.float32).reshape(self.shape)


@dataclass(frozen=True)
class HostOperator:
    """One operator: its kind in :data:`~tercel.sw.host.operators.KINDS`, the tensors it reads, the one it makes, its parameters."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    parameters: Parameters

    def __str__(self) -> str:
        given = (f"{name}={list(value) if isinstance(value, tuple) else value}" for name, value in sorted(self.parameters.items()))
        return f"{self.output} = {self.kind}({', '.join((*self.inputs, *given))})"


@dataclass(frozen=True)
class HostGraph:
    """The operators at one end of a network.

    Parameters
    ----------
    inputs
        What enters.
    constants
        Numbers that operators read beside it.
    operators
        In an order in which each reads what is there before it.
    outputs
        Names of inputs or of results of operators.

    :class:`~tercel.sw.host.operators.HostError` for a kind that is not in the list, parameters or shapes that do not fit, and names that
    are missing or given twice.
    """

    inputs: tuple[HostInput, ...]
    constants: tuple[HostConstant, ...]
    operators: tuple[HostOperator, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.outputs:
            if name not in self.types or not self.types[name].batched:
                raise HostError(f"output must be an input or the result of an operator on the host, not {name!r}")

    @cached_property
    def types(self) -> dict[str, HostType]:
        """Every tensor's type by name, constants included."""
        found: dict[str, HostType] = {}
        entering: tuple[HostInput | HostConstant, ...] = (*self.inputs, *self.constants)
        for tensor in entering:
            _add(found, tensor.name, _entering(tensor))
        for operator in self.operators:
            _add(found, operator.output, _result(operator, found))
        return found

    def run(self, values: Mapping[str, Values]) -> dict[str, Values]:
        """The outputs by name, ``[batch, *shape]``, from the inputs: float32, or whole numbers behind ``quantize`` and ``argmax``."""
        found = {constant.name: constant.array for constant in self.constants}
        found |= {entry.name: np.asarray(values[entry.name], dtype=np.float32) for entry in self.inputs}
        with np.errstate(all="ignore"):  # as in PyTorch, an overflow is infinite
            for operator in self.operators:
                found[operator.output] = KINDS[operator.kind].run([found[name] for name in operator.inputs], operator.parameters)
        return {name: found[name] for name in self.outputs}


def _add(found: dict[str, HostType], name: str, added: HostType) -> None:
    if name in found:
        raise HostError(f"tensors on the host must have different names, not {name!r} twice")
    found[name] = added


def _entering(tensor: HostInput | HostConstant) -> HostType:
    text, fits = PARAMETERS["shape"]
    if not fits(tensor.shape):
        raise HostError(f"shape of {tensor.name} must be {text}, not {list(tensor.shape)} (a tensor on the host)")
    if isinstance(tensor, HostInput):
        return HostType(tensor.shape)
    if len(tensor.values) != prod(tensor.shape):
        raise HostError(f"{tensor.name} must have {prod(tensor.shape)} values, not {len(tensor.values)} (a constant on the host)")
    for value in tensor.values:
        if not abs(value) <= _LARGEST:  # nor is it so for nan
            raise HostError(f"{tensor.name} must hold finite float32 numbers, not {value} (a constant on the host)")
    return HostType(tensor.shape, batched=False)


def _result(operator: HostOperator, found: Mapping[str, HostType]) -> HostType:
    name = operator.output
    if operator.kind not in KINDS:
        raise HostError(f"{name}: operator must be one of {', '.join(KINDS)}, not {operator.kind!r} (what this release runs on the host)")
    kind = KINDS[operator.kind]
    count = len(operator.inputs)
    if count != (max(count, 1) if kind.inputs is None else kind.inputs):
        raise HostError(f"{name}: {operator.kind} must read {kind.inputs or 'some'} tensors, not {count} (on the host)")
    for read in operator.inputs:
        if read not in found:
            raise HostError(f"{name}: {operator.kind} must read a tensor that is there before it, not {read!r} (on the host)")
    try:
        check_parameters(operator.kind, operator.parameters)
        return kind.result([found[read] for read in operator.inputs], operator.parameters)
    except HostError as error:
        raise HostError(f"{name}: {operator.kind}: {error}") from None
