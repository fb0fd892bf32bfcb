"""Networks with random weights and scales, as integer graphs, for tests of the compiler."""

from dataclasses import replace

import numpy as np

from tercel.hw.config import Config, unit_exponent
from tercel.sw.graph.integer_graph import Activation, ConcatNode, IntegerGraph, LayerNode, Node
from tercel.sw.layer_reference import layer_reference
from tercel.sw.layer_spec import Kind, LayerSpec, LayerTensors

EMPTY = np.zeros(0, dtype=np.int64)


class NetworkBuilder:
    """Adds layers one by one; weights, biases and shifts are random, scales keep the codes spread out."""

    def __init__(self, config: Config, *, input: tuple[int, int, int], seed: int = 0, bits: int = 8) -> None:
        self.config, self.bits = config, bits
        self.random = np.random.default_rng([seed, 77])
        self.tensors: dict[str, Activation] = {}
        self.nodes: list[Node] = []
        self.input = self._tensor("image", input, signed=False, zero_point=int(self.random.integers(100, 140)))

    def _tensor(self, name: str, shape: tuple[int, int, int], *, signed: bool, zero_point: int) -> str:
        self.tensors[name] = Activation(name=name, shape=shape, signed=signed, zero_point=zero_point, scale=0.02)
        return name

    def layer(
        self,
        kind: Kind,
        source: str,
        *,
        name: str | None = None,
        residual: str | None = None,
        signed: bool = False,
        zero_point: int | None = None,
        **geometry,
    ) -> str:
        """Add a layer; returns its output tensor."""
        random, config = self.random, self.config
        name = name or f"layer{len(self.nodes)}"
        taken = self.tensors[source]
        if kind in ("conv", "linear"):
            geometry.setdefault("weight_bits", self.bits)
        same = kind == "max_pool"
        spec = LayerSpec(
            kind=kind,
            input=taken.shape,
            in_signed=taken.signed,
            z_in=taken.zero_point,
            out_signed=taken.signed if same else signed,
            z_out=taken.zero_point
            if same
            else zero_point
            if zero_point is not None
            else int(random.integers(-20, 20))
            if signed
            else int(random.integers(0, 30)),
            residual=residual is not None,
            **geometry,
        )
        channels = spec.output[2]
        taps = spec.kernel[0] * spec.kernel[1]
        low, high = spec.code_range(config)
        shapes = {
            "conv": (spec.out, *spec.kernel, spec.input[2] // spec.groups),
            "linear": (spec.out, spec.input[2]),
            "depthwise": (*spec.kernel, channels),
        }
        pool = kind in ("max_pool", "average_pool")
        weights = EMPTY if pool else random.integers(low, high + 1, shapes[kind])
        fan_in = taps * (spec.input[2] // spec.groups if kind in ("conv", "linear") else 1)
        spread = max(1.0, (high - low) / 3.5 * 74 * np.sqrt(fan_in)) if not pool else taps
        scale = (60 if not pool else 1) / spread
        if spec.thresholds:
            scale *= 16
        top = 1 << config.multiplier_bits
        shift = int(np.clip(np.floor(np.log2(top / scale)), 8, 39))
        multiplier = 1 if same else int(np.clip(round(scale * 2**shift), 1, top - 1))
        shift = unit_exponent(config.multiplier_bits) if same else shift
        sums = (
            weights.reshape(-1, channels).sum(axis=0)
            if kind == "depthwise"
            else weights.reshape(channels, -1).sum(axis=1)
            if not pool
            else 0
        )
        bias = (
            np.zeros(channels, dtype=np.int64)
            if same
            else np.broadcast_to(-spec.z_in * (taps if pool else spec.gain * sums + spec.weight_offset * fan_in), channels)
        )
        channel_shift = np.zeros(channels, dtype=np.int64) if pool else random.integers(0, 3, channels)
        if spec.residual:
            added = self.tensors[residual]
            res_shift = max(0, shift - 16)
            spec = replace(
                spec,
                res_shift=res_shift,
                res_multiplier=int(min(65535, 0.8 * 2 ** (shift - res_shift))),
                z_res=added.zero_point,
                res_signed=added.signed,
            )
        table = EMPTY
        if spec.thresholds:
            rows = 1 if spec.threshold_shared else channels
            table = np.sort(np.rint(random.normal(spec.z_out, 900, (rows, spec.thresholds))).astype(np.int64), axis=1)
        per_channel = config.per_channel_multiplier and not pool
        self.nodes.append(
            LayerNode(
                name=name,
                spec=replace(spec, multiplier=0 if per_channel else multiplier, shift=shift),
                input=source,
                residual=residual,
                output=self._tensor(f"{name}.out", spec.output, signed=spec.out_signed, zero_point=spec.z_out),
                weights=weights,
                bias=np.asarray(bias, dtype=np.int64) + (0 if pool else random.integers(-500, 501, channels)),
                shift=channel_shift,
                multipliers=np.clip(np.rint(multiplier * random.uniform(0.6, 1.4, channels)), 1, top - 1).astype(np.int64)
                if per_channel
                else EMPTY,
                thresholds=table,
            )
        )
        return f"{name}.out"

    def concat(self, sources: list[str], *, name: str | None = None) -> str:
        """Join tensors that have the scale, zero point and sign of the first."""
        name = name or f"concat{len(self.nodes)}"
        first = self.tensors[sources[0]]
        channels = sum(self.tensors[source].shape[2] for source in sources)
        output = self._tensor(f"{name}.out", (*first.shape[:2], channels), signed=first.signed, zero_point=first.zero_point)
        self.nodes.append(ConcatNode(name=name, inputs=tuple(sources), output=output))
        return output

    def graph(self, *outputs: str) -> IntegerGraph:
        """The network."""
        return IntegerGraph(tensors=self.tensors, nodes=tuple(self.nodes), inputs=(self.input,), outputs=outputs)

    def image(self) -> dict[str, np.ndarray]:
        """A random input."""
        return {self.input: self.random.integers(0, 256, self.tensors[self.input].shape)}


def expected(graph: IntegerGraph, inputs: dict[str, np.ndarray], config: Config) -> dict[str, np.ndarray]:
    """All tensors, layer by layer from the numeric contract."""
    tensors = dict(inputs)
    for node in graph.nodes:
        if isinstance(node, ConcatNode):
            tensors[node.output] = np.concatenate([tensors[name] for name in node.inputs], axis=2)
            continue
        tensors[node.output] = layer_reference(
            replace(node.spec, narrow=False),
            LayerTensors(
                input=tensors[node.input],
                weights=node.weights,
                bias=node.bias,
                shift=node.shift,
                multiplier=node.multipliers if node.multipliers.size else np.full(len(node.bias), node.spec.multiplier),
                thresholds=node.thresholds,
                residual=tensors[node.residual] if node.residual else EMPTY,
            ),
            config,
        )
    return tensors


def inverted_residual(net: NetworkBuilder, source: str, *, out: int, stride: int, expand: int, name: str) -> str:
    """MobileNetV2's block."""
    channels = net.tensors[source].shape[2]
    x = source
    if expand != 1:
        x = net.layer("conv", x, out=channels * expand, name=f"{name}.expand")
    x = net.layer("depthwise", x, kernel=(3, 3), padding=(1, 1, 1, 1), stride=stride, name=f"{name}.depthwise")
    residual = source if stride == 1 and channels == out else None
    return net.layer("conv", x, out=out, residual=residual, signed=True, name=f"{name}.project")


def mobilenet_v2(
    config: Config, *, size: int = 224, bits: int = 8, classes: int = 1000, width: float = 1.0, seed: int = 0
) -> tuple[IntegerGraph, NetworkBuilder]:
    """The network's shapes with random numbers."""
    net = NetworkBuilder(config, input=(size, size, 3), seed=seed, bits=bits)

    def channels(count: float) -> int:
        return max(8, int(count * width + 4) // 8 * 8)

    x = net.layer("conv", net.input, out=channels(32), kernel=(3, 3), padding=(1, 1, 1, 1), stride=2, name="features.0")
    number = 1
    for expand, count, repeats, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for repeat in range(repeats):
            x = inverted_residual(
                net, x, out=channels(count), stride=stride if repeat == 0 else 1, expand=expand, name=f"features.{number}"
            )
            number += 1
    x = net.layer("conv", x, out=max(1280, channels(1280)), name=f"features.{number}")
    x = net.layer("average_pool", x, kernel=net.tensors[x].shape[:2], name="pool")
    x = net.layer("linear", x, out=classes, signed=True, name="classifier")
    return net.graph(x), net
