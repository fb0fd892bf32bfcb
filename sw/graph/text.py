"""An integer graph as a table that people read: what is dumped after passes."""

from tercel.hw.config import Config
from tercel.sw.graph.integer_graph import Activation, IntegerGraph, LayerNode, Node


def graph_text(graph: IntegerGraph, config: Config) -> str:
    """The tensors that enter and leave, then one line a node with its engine, geometry and numbers; columns are aligned."""
    lines = [f"inputs   {', '.join(tensor_text(graph.tensors[name]) for name in graph.inputs)}"]
    lines.append(f"outputs  {', '.join(tensor_text(graph.tensors[name]) for name in graph.outputs)}")
    rows: list[tuple[str, ...]] = [("layer", "kind", "engine", "input", "output", "kernel", "bits", "scale", "clamp", "reads", "source")]
    rows += [_row(graph, node, config) for node in graph.nodes]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def tensor_text(tensor: Activation) -> str:
    """``name 7x7x320 int8 zero -3 scale 0.0125``."""
    kind = "int8" if tensor.signed else "uint8"
    return f"{tensor.name} {_shape(tensor.shape)} {kind} zero {tensor.zero_point} scale {tensor.scale:.6g}"


def _shape(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _row(graph: IntegerGraph, node: Node, config: Config) -> tuple[str, ...]:
    output = graph.tensors[node.output]
    if not isinstance(node, LayerNode):
        return (node.name, "concat", "", "", _shape(output.shape), "", "", "", "", " ".join(node.inputs), node.source)
    spec = node.spec
    geometry = f"{spec.kernel[0]}x{spec.kernel[1]}"
    geometry += f" s{spec.stride}" if spec.stride != 1 else ""
    geometry += f" d{spec.dilation[0]},{spec.dilation[1]}" if spec.dilation != (1, 1) else ""
    geometry += f" p{','.join(map(str, spec.padding))}" if any(spec.padding) else ""
    geometry += f" g{spec.groups}" if spec.groups != 1 else ""
    weighted = node.weights.size > 0
    bits = f"{spec.weight_bits}" + (f" g{spec.gain}h{spec.weight_offset:+d}" if (spec.gain, spec.weight_offset) != (1, 0) else "")
    multiplier = f"{node.multipliers.min()}..{node.multipliers.max()}" if node.multipliers.size else f"{spec.multiplier}"
    shifts = f"+{node.shift.min()}..{node.shift.max()}" if node.shift.any() else ""
    scale = "" if spec.kind == "max_pool" else f"{multiplier}>>{spec.shift}{shifts}"
    if spec.residual:
        scale += f" residual {spec.res_multiplier}<<{spec.res_shift}"
    clamp = f"{spec.thresholds} thresholds" if spec.thresholds else f"{spec.low}..{spec.high}"
    engine = "array" if spec.on_array(config) else "depthwise"
    return (
        node.name,
        spec.kind,
        f"{engine} narrow" if spec.narrow else engine,
        _shape(spec.input),
        _shape(output.shape),
        geometry,
        bits if weighted else "",
        scale,
        clamp,
        " ".join(node.inputs),
        node.source,
    )
