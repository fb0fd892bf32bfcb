"""The rules of an integer graph, and the proof that no sum of it can overflow."""

import math
from dataclasses import dataclass

import numpy as np

from tercel.hw.config import NARROW_BITS, Config, exponents, unit_exponent
from tercel.sw.graph.integer_graph import Activation, ConcatNode, GraphError, IntegerGraph, LayerNode
from tercel.sw.graph.wide_weights import on_engine_that_holds
from tercel.sw.layer_bounds import sum_bounds, sums_narrow
from tercel.sw.layer_spec import Integers, LayerError, LayerSpec


def verify(graph: IntegerGraph, config: Config | None = None) -> None:
    """:class:`GraphError` unless the graph keeps all rules.

    Names are unique; each tensor is made once, by an input or a node, before it is read; shapes, signs and zero points of layers and
    tensors agree; codes, shifts, multipliers, clamps and biases are in their ranges; no sum can leave 32 bits for any input at all,
    bias and padding counted. With a config, also that the machine has what each layer needs; whether it fits its memories is the
    compiler's question.
    """
    whole = _Rules("graph")
    for name, tensor in graph.tensors.items():
        _verify_tensor(name, tensor)
    made = set(graph.inputs)
    whole.check(bool(made), "inputs", "at least one", 0, "a network without input has nothing to compute")
    whole.check(len(made) == len(graph.inputs), "inputs", "different", ", ".join(graph.inputs), "name each once")
    for name in (*graph.inputs, *graph.outputs):
        whole.check(name in graph.tensors, "input or output", "among the tensors", repr(name), "add its Activation")
    names: set[str] = set()
    for node in graph.nodes:
        rules = _Rules(node.name)
        rules.check(node.name not in names, "name", "unique", repr(node.name), "give each node a name of its own")
        names.add(node.name)
        for name in (*node.inputs, node.output):
            rules.check(name in graph.tensors, "tensor", "among the graph's tensors", repr(name), "add its Activation")
        for name in node.inputs:
            rules.check(name in made, "input", "made by an earlier node", repr(name), "sort the nodes")
        rules.check(node.output not in made, "output", "a tensor that nothing else makes", repr(node.output), "give it a name of its own")
        made.add(node.output)
        if isinstance(node, LayerNode):
            _verify_layer(graph, node, config)
        else:
            _verify_concat(graph, node)
    whole.check(bool(graph.outputs), "outputs", "at least one", 0, "name the tensors that you want")
    unmade = sorted(set(graph.tensors) - made)
    whole.check(not unmade, "tensors", "made by an input or a node", ", ".join(unmade), "remove those that nothing makes")


@dataclass(frozen=True)
class _Rules:
    """What is checked of the node or tensor ``name``."""

    name: str

    def check(self, condition: bool, argument: str, limit: str, value: object, way_out: str) -> None:
        if not condition:
            raise GraphError(f"{self.name}: {argument} must be {limit}, not {value} ({way_out})")

    def codes(self, argument: str, values: Integers, *, low: int, high: int, way_out: str) -> None:
        """All values in ``low..high``."""
        if values.size and (values.min() < low or values.max() > high):
            self.check(False, argument, f"in {low}..{high}", f"{values.min()}..{values.max()}", way_out)

    def one_a_channel(self, argument: str, values: Integers, channels: int) -> None:
        self.check(values.shape == (channels,), argument, f"of shape ({channels},)", values.shape, "one for each output channel")


def _verify_tensor(name: str, tensor: Activation) -> None:
    rules, shape, scale = _Rules(name), tensor.shape, tensor.scale
    rules.check(tensor.name == name, "name", "the key it stands under", repr(tensor.name), "use one name")
    rules.check(len(shape) == 3 and min(shape) > 0, "shape", "height, width and channels above 0", shape, "leave the batch out")
    rules.check(math.isfinite(scale) and scale > 0, "scale", "positive and finite", scale, "calibrate the range")
    rules.check(-256 <= tensor.zero_point <= 255, "zero_point", "in -256..255", tensor.zero_point, "the field has 9 bits")


def _verify_layer(graph: IntegerGraph, layer: LayerNode, config: Config | None) -> None:
    spec, rules = layer.spec, _Rules(layer.name)
    source, target = graph.tensors[layer.input], graph.tensors[layer.output]
    _verify_edge(rules, "input", source, (spec.input, spec.in_signed, spec.z_in))
    _verify_edge(rules, "output", target, (spec.output, spec.out_signed, spec.z_out))
    rules.check(spec.residual == (layer.residual is not None), "residual", "a tensor if spec.residual", layer.residual, "set both or none")
    if layer.residual is not None:
        _verify_edge(rules, "residual", graph.tensors[layer.residual], (spec.output, spec.res_signed, spec.z_res))
    channels = spec.output[2]
    _verify_weights(layer)
    rules.one_a_channel("bias", layer.bias, channels)
    rules.codes("bias", layer.bias, low=-(1 << 31), high=(1 << 31) - 1, way_out="the accumulator has 32 bits: take a smaller shift or bias")
    rules.one_a_channel("shift", layer.shift, channels)
    rules.codes("shift", layer.shift, low=0, high=15, way_out="a channel's shift has 4 bits")
    low, high = (-128, 127) if spec.out_signed else (0, 255)
    ordered = low <= spec.low <= spec.high <= high
    rules.check(ordered, "clamp", f"ordered and in {low}..{high}", f"{spec.low}..{spec.high}", "codes have 8 bits")
    _verify_multipliers(layer, config)
    if spec.kind == "max_pool":
        same = source.scale == target.scale and (spec.in_signed, spec.z_in) == (spec.out_signed, spec.z_out)
        rules.check(same, "output", "of the input's scale, zero point and sign", "another", "requantize in a layer of its own")
    else:
        _verify_sums(layer)
    if spec.kind in ("max_pool", "average_pool"):
        equal = all((values == values[0]).all() for values in (layer.bias, layer.shift, layer.multipliers) if values.size)
        rules.check(equal, "parameters", "equal in all channels", "different", "a pool has one parameter word")
    _verify_thresholds(layer)
    if config is not None:
        _verify_machine(layer, config)


def _verify_edge(rules: _Rules, argument: str, tensor: Activation, expected: tuple[tuple[int, int, int], bool, int]) -> None:
    """Shape, sign and zero point that the spec gives are the tensor's."""
    sign = {True: "signed", False: "unsigned"}
    shape, signed, zero_point = expected
    way_out = f"the spec and tensor {tensor.name} must agree"
    rules.check(tensor.shape == shape, argument, f"of shape {tensor.shape}", shape, way_out)
    rules.check(tensor.signed == signed, argument, sign[tensor.signed], sign[signed], way_out)
    rules.check(tensor.zero_point == zero_point, argument, f"of zero point {tensor.zero_point}", zero_point, way_out)


def weight_shape(spec: LayerSpec) -> tuple[int, ...]:
    """Shape of a layer's weight codes, as in :class:`~tercel.sw.layer_spec.LayerTensors`; ``(0,)`` for pools."""
    if spec.kind == "conv":
        return (spec.out, *spec.kernel, spec.input[2] // spec.groups)
    if spec.kind == "linear":
        return (spec.out, spec.input[2])
    return (*spec.kernel, spec.input[2]) if spec.kind == "depthwise" else (0,)


def _verify_weights(layer: LayerNode) -> None:
    rules, shape = _Rules(layer.name), weight_shape(layer.spec)
    rules.check(layer.weights.shape == shape, "weights", f"of shape {shape}", layer.weights.shape, "channels last")
    half = 1 << 2 * layer.spec.digits - 1
    rules.codes("weights", layer.weights, low=-half, high=half - 1, way_out=f"weight_bits is {layer.spec.weight_bits}")


def _verify_multipliers(layer: LayerNode, config: Config | None) -> None:
    spec, rules = layer.spec, _Rules(layer.name)
    bits = 16 if config is None else config.multiplier_bits
    top = (1 << bits) - 1
    least, most = unit_exponent(bits) if config else 1, exponents(bits)[-1]
    rules.check(least <= spec.shift <= most, "spec.shift", f"in {least}..{most}", spec.shift, "scale the multiplier")
    total = spec.shift + int(layer.shift.max(initial=0))
    rules.check(total <= most, "spec.shift + shift", f"at most {most}", total, "scale the multiplier")
    if layer.multipliers.size:
        rules.check(spec.multiplier == 0, "multiplier", "0 beside multipliers", spec.multiplier, "one of both")
        rules.one_a_channel("multipliers", layer.multipliers, spec.output[2])
        rules.codes("multipliers", layer.multipliers, low=0, high=top, way_out="take a smaller spec.shift")
    else:
        rules.check(1 <= spec.multiplier <= top, "multiplier", f"in 1..{top}", spec.multiplier, "take another spec.shift")
    if spec.residual:
        rules.check(1 <= spec.res_multiplier <= 65535, "res_multiplier", "in 1..65535", spec.res_multiplier, "take another res_shift")
        most = spec.res_shift + int(layer.shift.max(initial=0))
        rules.check(spec.res_shift >= 0 and most <= 31, "res_shift + shift", "in 0..31", most, "the residual is shifted by 31 at most")


def _verify_sums(layer: LayerNode) -> None:
    rules = _Rules(layer.name)
    least, most = sum_bounds(layer.spec, layer.weights, layer.bias)
    low, high = -(1 << 31), (1 << 31) - 1
    channel = int(np.argmax(np.maximum(most - high, low - least)))
    rules.check(
        bool(low <= least[channel] and most[channel] <= high),
        f"sums of channel {channel}",
        f"in {low}..{high}",
        f"{least[channel]}..{most[channel]}",
        "the accumulator has 32 bits: take fewer weight bits, a smaller shift or bias, or fewer input channels",
    )
    narrow = not layer.spec.narrow or sums_narrow(layer.spec, layer.weights, layer.bias)
    rules.check(narrow, "narrow", "false", True, f"sums {least.min()}..{most.max()} do not fit {NARROW_BITS} bits")


def _verify_thresholds(layer: LayerNode) -> None:
    spec, rules = layer.spec, _Rules(layer.name)
    if not spec.thresholds:
        rules.check(layer.thresholds.size == 0, "thresholds", "empty", layer.thresholds.shape, "spec.thresholds is 0")
        return
    shape = (1 if spec.threshold_shared else spec.output[2], spec.thresholds)
    rules.check(layer.thresholds.shape == shape, "thresholds", f"of shape {shape}", layer.thresholds.shape, "one row a channel, or one")
    rules.codes("thresholds", layer.thresholds, low=-32768, high=32767, way_out="they are compared at 16 bits")


def _verify_machine(layer: LayerNode, config: Config) -> None:
    spec, rules, machine = layer.spec, _Rules(layer.name), f"config {config.name}"
    on_array = spec.on_array(config)
    rules.check(on_array or config.depthwise, "kind", "conv or linear", spec.kind, f"{machine} has no depthwise engine")
    rules.check(
        not layer.multipliers.size or config.per_channel_multiplier,
        "multipliers",
        "empty",
        f"{layer.multipliers.size} values",
        f"{machine} has one multiplier a layer; take scales that differ by powers of two, or per_channel_multiplier=True",
    )
    has_thresholds = config.threshold_depth > 0
    rules.check(
        has_thresholds or not spec.thresholds,
        "thresholds",
        "0",
        spec.thresholds,
        f"{machine} has no threshold memory; take one with threshold_depth above 0",
    )
    rules.check(spec.out_space == 0 or config.depthwise, "out_space", "0", spec.out_space, f"{machine} has no window scratchpad")
    if not on_array:
        try:
            on_engine_that_holds(layer, config)
        except LayerError as error:
            raise GraphError(f"{layer.name}: {error}") from error
        return
    most = 2 * config.max_digits
    rules.check(spec.digits <= config.max_digits, "weight_bits", f"at most {most}", spec.weight_bits, f"{machine} has no more digit planes")
    if config.digit_set == "ternary":
        rules.codes("weights", layer.weights, low=-1, high=1, way_out=f"{machine} has ternary digits")
    if spec.groups > 1:
        for argument, channels in (("input channels a group", spec.input[2] // spec.groups), ("outputs a group", spec.out // spec.groups)):
            limit = f"a multiple of lanes={config.lanes}"
            rules.check(channels % config.lanes == 0, argument, limit, channels, "merge groups, with zeros between them")


def _verify_concat(graph: IntegerGraph, node: ConcatNode) -> None:
    rules, target = _Rules(node.name), graph.tensors[node.output]
    parts = [graph.tensors[name] for name in node.inputs]
    rules.check(bool(parts), "inputs", "at least one", 0, "name the tensors to join")
    for part in parts:
        same = (part.signed, part.zero_point, part.scale) == (target.signed, target.zero_point, target.scale)
        rules.check(same, "input", "of the output's scale, zero point and sign", part.name, "requantize it first")
        rules.check(part.shape[:2] == target.shape[:2], "input", f"{target.shape[0]}x{target.shape[1]} pixels", part.name, "crop or pad it")
    channels = sum(part.shape[2] for part in parts)
    rules.check(channels == target.shape[2], "channels", f"{target.shape[2]} in all", channels, "the output holds all inputs")
