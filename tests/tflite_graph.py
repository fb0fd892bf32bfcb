"""Published integer networks, written down as JSON with constants beside it, as integer graphs with a multiplier for each channel."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tercel.hw.config import BASE, Config
from tercel.sw.graph.integer_graph import Activation, IntegerGraph, LayerNode
from tercel.sw.importer.scaling import channel_numbers, normalise
from tercel.sw.layer_spec import LayerSpec

PER_CHANNEL = Config(**{**vars(BASE), "name": "base per channel", "per_channel_multiplier": True})
_NONE = np.zeros(0, dtype=np.int64)


@dataclass
class TfliteNetwork:
    """``name`` in ``folder``; its softmax is left out. Layers are called ``t<index>`` like the tensors that they make."""

    folder: Path
    name: str
    tensors: dict[str, Activation] = field(default_factory=dict)
    nodes: list[LayerNode] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.description = json.loads((self.folder / f"{self.name}.json").read_text())
        self.constants = np.load(self.folder / f"{self.name}_consts.npz")
        self.golden = np.load(self.folder / f"{self.name}_golden.npz")
        self.same: dict[int, str] = {}
        (self.input,) = self.description["inputs"]
        self.activation(self.input)
        for operator in self.description["ops"]:
            getattr(self, "_" + operator["op"].lower())(operator)
        self.graph = IntegerGraph(
            tensors=self.tensors, nodes=tuple(self.nodes), inputs=(f"t{self.input}",), outputs=(self.nodes[-1].output,)
        )

    def inputs(self) -> np.ndarray:
        """The published input codes."""
        return self.golden["inputs"]

    def expected(self, tensor: str, image: int) -> np.ndarray | None:
        """The published codes of a tensor, ``[height, width, channels]``; None for tensors that the original has not."""
        key = f"act{tensor[1:]}_in{image}"
        if tensor == f"t{self.input}":
            return self.golden["inputs"][image]
        return self.golden[key].reshape(self.tensors[tensor].shape) if key in self.golden else None

    def numbers(self, index: int) -> dict[str, Any]:
        return self.description["tensors"][index]

    def activation(self, index: int) -> Activation:
        name = self.same.get(index, f"t{index}")
        if name not in self.tensors:
            described = self.numbers(index)
            height, width, channels = described["shape"][1:] if len(described["shape"]) == 4 else (1, 1, described["shape"][1])
            self.tensors[name] = Activation(
                name=name,
                shape=(height, width, channels),
                signed=described["dtype"] == "int8",
                zero_point=described["zero_point"][0],
                scale=described["scale"][0],
            )
        return self.tensors[name]

    def _conv_2d(self, operator: dict[str, Any]) -> None:
        weights = self.constants[f"t{operator['inputs'][1]}"].astype(np.int64)
        self._weighted(operator, "conv", weights, kernel=weights.shape[1:3], out=len(weights))

    def _depthwise_conv_2d(self, operator: dict[str, Any]) -> None:
        weights = self.constants[f"t{operator['inputs'][1]}"].astype(np.int64)[0]
        self._weighted(operator, "depthwise", weights, kernel=weights.shape[:2])

    def _fully_connected(self, operator: dict[str, Any]) -> None:
        weights = self.constants[f"t{operator['inputs'][1]}"].astype(np.int64)
        self._weighted(operator, "linear", weights, out=len(weights))

    def _weighted(self, operator: dict[str, Any], kind: str, weights: np.ndarray, **geometry: Any) -> None:
        source, target = self.activation(operator["inputs"][0]), self.activation(operator["outputs"][0])
        channels = target.shape[2]
        described = self.numbers(operator["inputs"][1])
        (zero,) = set(described["zero_point"])
        offset = -zero
        if described["dtype"] == "uint8":
            weights, offset = weights - 128, 128 - zero
        scales = np.broadcast_to(np.array(described["scale"]), channels)
        numbers = channel_numbers(source.scale * scales / target.scale, bits=16)
        taps = weights.reshape(-1, channels).sum(axis=0) if kind == "depthwise" else weights.reshape(channels, -1).sum(axis=1)
        count = weights.size // channels
        bias = self.constants[f"t{operator['inputs'][2]}"].astype(np.int64) - source.zero_point * (taps + offset * count)
        window = {} if kind == "linear" else self._window(operator, source, geometry["kernel"])
        spec = LayerSpec(
            kind=kind,
            weight_offset=offset,
            shift=numbers.shift,
            **geometry,
            **window,
            **self._edges(operator, source, target),
        )
        self.nodes.append(
            LayerNode(
                name=target.name,
                spec=spec,
                input=source.name,
                output=target.name,
                weights=weights,
                bias=bias,
                shift=numbers.channel_shift,
                multipliers=numbers.multipliers,
                source=operator["op"],
            )
        )

    def _average_pool_2d(self, operator: dict[str, Any]) -> None:
        source, target = self.activation(operator["inputs"][0]), self.activation(operator["outputs"][0])
        height, width = operator["filterHeight"], operator["filterWidth"]
        if height > 16:
            # A window too large for the machine: five averages over every fifth row, then their average.
            half = self.tensors.setdefault(
                f"{target.name}.parts", Activation(**{**vars(source), "name": f"{target.name}.parts", "shape": (5, 1, source.shape[2])})
            )
            self._average(operator, source, half, kernel=(height // 5, width), dilation=(5, 1))
            self._average(operator, half, target, kernel=(5, 1))
        else:
            self._average(operator, source, target, kernel=(height, width), stride=1 if target.shape[:2] == (1, 1) else operator["strideH"])

    def _average(self, operator: dict[str, Any], source: Activation, target: Activation, **geometry: Any) -> None:
        taps = geometry["kernel"][0] * geometry["kernel"][1]
        multiplier, shift = normalise(source.scale / (taps * target.scale), bits=16)
        edges = self._edges(operator, source, target)
        spec = LayerSpec(kind="average_pool", multiplier=multiplier, shift=shift, **geometry, **edges)
        bias = np.full(source.shape[2], -source.zero_point * taps)
        zeros = np.zeros_like(bias)
        self.nodes.append(LayerNode(name=target.name, spec=spec, input=source.name, output=target.name, bias=bias, shift=zeros))

    def _add(self, operator: dict[str, Any]) -> None:
        target = self.activation(operator["outputs"][0])
        source, other = sorted((self.activation(index) for index in operator["inputs"]), key=lambda tensor: tensor.scale)
        channels, lanes = target.shape[2], BASE.lanes
        numbers = channel_numbers(np.full(channels, source.scale / target.scale), bits=16, residual=other.scale / target.scale)
        spec = LayerSpec(
            kind="conv",
            out=channels,
            groups=channels // lanes,
            weight_bits=2,
            shift=numbers.shift,
            residual=True,
            res_signed=other.signed,
            z_res=other.zero_point,
            res_multiplier=numbers.res_multiplier,
            res_shift=numbers.res_shift,
            **self._edges(operator, source, target),
        )
        self.nodes.append(
            LayerNode(
                name=target.name,
                spec=spec,
                input=source.name,
                residual=other.name,
                output=target.name,
                weights=np.tile(np.eye(lanes, dtype=np.int64), (channels // lanes, 1))[:, None, None, :],
                bias=np.full(channels, -source.zero_point),
                shift=numbers.channel_shift,
                multipliers=numbers.multipliers,
                source=operator["op"],
            )
        )

    def _reshape(self, operator: dict[str, Any]) -> None:
        self.same[operator["outputs"][0]] = self.activation(operator["inputs"][0]).name

    def _softmax(self, operator: dict[str, Any]) -> None:
        """On the host."""

    def _window(self, operator: dict[str, Any], source: Activation, kernel: tuple[int, int]) -> dict[str, Any]:
        stride = operator["strideH"]
        assert stride == operator["strideW"]
        sides = []
        for size, length in zip(source.shape[:2], kernel, strict=True):
            total = max((-(-size // stride) - 1) * stride + length - size, 0) if operator["padding"] == "SAME" else 0
            sides.append((total // 2, total - total // 2))
        (top, bottom), (left, right) = sides
        return {"stride": stride, "padding": (top, left, bottom, right)}

    def _edges(self, operator: dict[str, Any], source: Activation, target: Activation) -> dict[str, Any]:
        low, high = (-128, 127) if target.signed else (0, 255)
        kind = operator.get("fusedActivationFunction", "NONE")
        if kind != "NONE":
            low = max(low, target.zero_point)
        if kind == "RELU6":
            high = min(high, round(6 / target.scale) + target.zero_point)
        return {
            "input": source.shape,
            "in_signed": source.signed,
            "z_in": source.zero_point,
            "out_signed": target.signed,
            "z_out": target.zero_point,
            "lo": low,
            "hi": high,
        }
