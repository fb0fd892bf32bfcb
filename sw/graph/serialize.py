"""Integer graphs as bytes. Equal graphs make equal bytes.

::

    8 bytes "TERCELG1", 4 bytes length of the description (little endian), description (JSON), arrays one after the other, 4 bytes CRC32

The description names each array's place, shape and type; an array is stored in the narrowest of int8, int16, int32 and int64 that
holds it.
"""

import json
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np

from tercel.sw.graph.integer_graph import Activation, ConcatNode, GraphError, IntegerGraph, LayerNode, Node
from tercel.sw.layer_spec import Integers, LayerError, LayerSpec

_MAGIC = b"TERCELG1"
_ARRAYS = ("weights", "bias", "shift", "multipliers", "thresholds")
_TYPES = ("<i1", "<i2", "<i4", "<i8")


def graph_to_bytes(graph: IntegerGraph) -> bytes:
    """A graph as bytes; :func:`graph_from_bytes` reads them."""
    arrays = bytearray()
    description = {
        "tensors": [asdict(tensor) for tensor in graph.tensors.values()],
        "nodes": [_describe(node, arrays) for node in graph.nodes],
        "inputs": graph.inputs,
        "outputs": graph.outputs,
    }
    text = json.dumps(description, separators=(",", ":"), sort_keys=True).encode()
    body = _MAGIC + len(text).to_bytes(4, "little") + text + bytes(arrays)
    return body + zlib.crc32(body).to_bytes(4, "little")


def graph_from_bytes(data: bytes) -> IntegerGraph:
    """The graph in ``data``; :class:`GraphError` for bytes that are none or damaged."""
    if data[: len(_MAGIC)] != _MAGIC:
        raise GraphError(f"graph must begin with {_MAGIC!r}, not {data[: len(_MAGIC)]!r} (it is no integer graph of this version)")
    found, stored = zlib.crc32(data[:-4]), int.from_bytes(data[-4:], "little")
    if len(data) < len(_MAGIC) + 8 or found != stored:
        raise GraphError(f"graph must have the checksum {stored:#010x}, not {found:#010x} (the data are damaged)")
    start = len(_MAGIC) + 4
    end = start + int.from_bytes(data[len(_MAGIC) : start], "little")
    try:
        description = json.loads(data[start:end])
        tensors = [Activation(**tensor | {"shape": tuple(tensor["shape"])}) for tensor in description["tensors"]]
        return IntegerGraph(
            tensors={tensor.name: tensor for tensor in tensors},
            nodes=tuple(_build(node, data[end:-4]) for node in description["nodes"]),
            inputs=tuple(description["inputs"]),
            outputs=tuple(description["outputs"]),
        )
    except (KeyError, TypeError, ValueError, LayerError) as error:
        raise GraphError(f"graph must have the fields of this version, not {error} (write it anew with this version)") from error


def _describe(node: Node, arrays: bytearray) -> dict[str, Any]:
    if isinstance(node, ConcatNode):
        return {"concat": asdict(node)}
    fields = {name: getattr(node, name) for name in ("name", "input", "output", "residual", "source")}
    return {"layer": fields, "spec": asdict(node.spec), "arrays": {name: _store(getattr(node, name), arrays) for name in _ARRAYS}}


def _store(values: Integers, arrays: bytearray) -> dict[str, Any]:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    kind = next(kind for kind in _TYPES if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    place = {"offset": len(arrays), "shape": values.shape, "type": kind}
    arrays += values.astype(kind).tobytes()
    return place


def _build(fields: dict[str, Any], arrays: bytes) -> Node:
    if "concat" in fields:
        return ConcatNode(**fields["concat"] | {"inputs": tuple(fields["concat"]["inputs"])})
    spec: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields["spec"].items()}
    tensors: dict[str, Any] = {name: _load(place, arrays) for name, place in fields["arrays"].items()}
    return LayerNode(**fields["layer"], spec=LayerSpec(**spec), **tensors)


def _load(place: dict[str, Any], arrays: bytes) -> Integers:
    count = int(np.prod(place["shape"], dtype=np.int64))
    values = np.frombuffer(arrays, dtype=place["type"], count=count, offset=place["offset"] if count else 0)
    return values.reshape(place["shape"]).astype(np.int64)
