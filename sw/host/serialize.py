"""Operators on the host as plain values that JSON can hold, and back. Equal graphs make equal values."""

from typing import Any

from tercel.sw.host.host_graph import HostConstant, HostGraph, HostInput, HostOperator
from tercel.sw.host.operators import HostError

VERSION = 1
"""Of the list of operators and of what they compute."""


def ends_to_plain(head: HostGraph | None, tail: HostGraph | None) -> dict[str, Any]:
    """Both ends as dicts, lists, strings and numbers; :func:`ends_from_plain` reads them."""
    return {"version": VERSION, "head": _graph_to_plain(head), "tail": _graph_to_plain(tail)}


def ends_from_plain(plain: Any) -> tuple[HostGraph | None, HostGraph | None]:
    """Head and tail; :class:`~tercel.sw.host.operators.HostError` for another version and for anything that is no such description."""
    version = plain.get("version") if isinstance(plain, dict) else plain
    if version != VERSION:
        raise HostError(f"version of the operators on the host must be {VERSION}, not {version!r} (use the release that wrote it)")
    return _graph_from_plain(plain.get("head")), _graph_from_plain(plain.get("tail"))


def _graph_to_plain(graph: HostGraph | None) -> dict[str, Any] | None:
    if graph is None:
        return None
    return {
        "inputs": [{"name": entry.name, "shape": entry.shape} for entry in graph.inputs],
        "constants": [{"name": c.name, "shape": c.shape, "values": c.values} for c in graph.constants],
        "operators": [
            {"kind": made.kind, "inputs": made.inputs, "output": made.output, "parameters": dict(made.parameters)}
            for made in graph.operators
        ],
        "outputs": graph.outputs,
    }


def _graph_from_plain(plain: Any) -> HostGraph | None:
    if plain is None:
        return None
    try:
        return HostGraph(
            inputs=tuple(HostInput(_name(entry["name"]), _shape(entry["shape"])) for entry in plain["inputs"]),
            constants=tuple(
                HostConstant(_name(c["name"]), _shape(c["shape"]), tuple(float(value) for value in c["values"])) for c in plain["constants"]
            ),
            operators=tuple(_operator(operator) for operator in plain["operators"]),
            outputs=tuple(_name(name) for name in plain["outputs"]),
        )
    except HostError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise HostError(f"operators on the host must have the fields of this version, not {error} (the file is damaged)") from error


def _operator(plain: dict[str, Any]) -> HostOperator:
    given = {_name(name): tuple(value) if isinstance(value, list) else value for name, value in plain["parameters"].items()}
    return HostOperator(_name(plain["kind"]), tuple(_name(name) for name in plain["inputs"]), _name(plain["output"]), given)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError(f"{value!r} in place of a name")
    return value


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} in place of a shape")
    return tuple(value)
