"""Operators that map each value by a function of its channel: what may stand between a layer and the thresholds after it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from tercel.sw.importer.capture import Operation
from tercel.sw.importer.expressions import Affine, Constant, Count, Expression, Slope
from tercel.sw.importer.report import Rejection
from tercel.sw.importer.scaling import Reals

Read = Callable[[Any], Expression | Constant]

_FOLD = "fold constants into weights; a product of two activations does not run on this machine"


def batch_norm(operation: Operation, read: Read) -> Expression:
    """Batch norm with its running statistics."""
    given = operation.arguments
    otherwise = Rejection("operator", "a supported one", operation.short, "quantize with a flow that folds it into the convolution before")
    value = read(given["input"])
    if isinstance(value, Constant) or given["running_mean"] is None or given["training"]:
        raise otherwise
    mean, variance, weight, bias = (
        None if given[name] is None else _constant(read, given[name], otherwise)
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    assert mean is not None and variance is not None
    # What is no number is refused with the thresholds that would take it up.
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = (1.0 if weight is None else weight) / np.sqrt(variance + float(given["eps"]))
    offset = (0.0 if bias is None else bias) - mean * gain
    return Affine(operation, value, _shape(operation), gain, offset, otherwise)


def constant_add(operation: Operation, read: Read) -> Expression | None:
    """A sum of an activation and a constant; None for one of two activations."""
    given = operation.arguments
    pair = _activation_and_constant(operation, read)
    if pair is None:
        return None
    value, constant = pair
    shown = given["other"] if not isinstance(given["other"], Node) else "a constant"
    otherwise = Rejection("other", "a tensor", shown, "fold constants into the bias of the layer before")
    constant = constant * float(given.get("alpha", 1))
    return Affine(operation, value, _shape(operation), np.ones(1), _channels(constant, value.shape, otherwise), otherwise)


def product(operation: Operation, read: Read) -> Expression:
    """A product with a constant."""
    otherwise = Rejection("operator", "a supported one", operation.short, _FOLD)
    pair = _activation_and_constant(operation, read)
    if pair is None:
        raise otherwise
    value, constant = pair
    return Affine(operation, value, _shape(operation), _channels(constant, value.shape, otherwise), np.zeros(1), otherwise)


def prelu(operation: Operation, read: Read) -> Expression:
    """A slope of its own below zero, one for all channels or one a channel."""
    given = operation.arguments
    otherwise = Rejection("operator", "a supported one", operation.short, "use relu, or thresholds behind it: scheme n2uq at 2 to 4 bits")
    value = read(given["self"])
    if isinstance(value, Constant):
        raise otherwise
    number = given.get("negative_slope")
    slopes = _constant(read, given["weight"], otherwise) if number is None else np.full(1, float(number))
    return Slope(operation, value, _shape(operation), slopes, otherwise)


def count_thresholds(operation: Operation, read: Read) -> Expression:
    """``tercel::multi_threshold``."""
    given = operation.arguments
    value, thresholds = read(given["x"]), read(given["thresholds"])
    if isinstance(value, Constant) or not isinstance(thresholds, Constant):
        raise Rejection("thresholds", "constant, and x computed", "the other way round", "give the operator an activation first")
    table = thresholds.value.double().numpy()
    return Count(operation, value, _shape(operation), table.reshape(-1, table.shape[-1]))


def _shape(operation: Operation) -> tuple[int, ...]:
    if operation.shape is None:
        raise Rejection("shape", "static in all but the batch", "dynamic", "export with fixed image sizes")
    return operation.shape


def _activation_and_constant(operation: Operation, read: Read) -> tuple[Expression, torch.Tensor] | None:
    """The operands of a sum or product of which one is constant, that one as float64."""
    values = [read(given) if isinstance(given, Node) else given for given in (operation.arguments["self"], operation.arguments["other"])]
    constants = [value for value in values if isinstance(value, Constant | int | float)]
    activations = [value for value in values if not isinstance(value, Constant | int | float)]
    if len(constants) != 1 or len(activations) != 1:
        return None
    constant = constants[0].value if isinstance(constants[0], Constant) else torch.tensor(constants[0])
    return activations[0], constant.double()


def _constant(read: Read, node: Any, otherwise: Rejection) -> Reals:
    value = read(node)
    if not isinstance(value, Constant):
        raise otherwise
    return np.asarray(value.value.double().numpy()).reshape(-1)


def _channels(constant: torch.Tensor, shape: tuple[int, ...], otherwise: Rejection) -> Reals:
    """A constant operand as one number, or one a channel of the ``shape`` without batch; anything finer is ``otherwise``."""
    sizes = (1,) * (len(shape) + 1 - constant.dim()) + tuple(constant.shape)
    if len(sizes) != len(shape) + 1 or any(size != 1 for axis, size in enumerate(sizes) if axis != 1):
        raise otherwise
    return np.asarray(constant.numpy()).reshape(-1)
