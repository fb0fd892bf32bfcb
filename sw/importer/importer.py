"""From a captured network with quantize and dequantize operators to an integer graph."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from tercel.hw.config import Config
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.graph.verify import verify
from tercel.sw.host import HostGraph
from tercel.sw.importer.capture import Operation, constants, logical_shape, operations, output_nodes, user_inputs
from tercel.sw.importer.expressions import (
    Affine,
    Broken,
    Constant,
    Count,
    Expression,
    FloatInput,
    HostValue,
    QuantizedConstant,
    Quantizer,
    Slope,
    Stored,
)
from tercel.sw.importer.fold import fold_clamps, remove_unread
from tercel.sw.importer.host import SHAPES, host_graph, host_names, host_quantize, host_value
from tercel.sw.importer.layers import GraphBuilder
from tercel.sw.importer.operators import expression_of, folded
from tercel.sw.importer.realize import Realizer
from tercel.sw.importer.report import Follows, OperatorReport, Rejection, UnsupportedError


@dataclass(frozen=True)
class Imported:
    """A network as whole numbers.

    Parameters
    ----------
    graph
        Verified for the config it was imported for. Its inputs carry the names of the captured network's inputs, its layers and
        tensors those of the modules.
    operators
        What became of each operator, in order.
    warnings
        Losses of accuracy, each with its size.
    host_head, host_tail
        The operators on the host before and after the graph; None where there are none.
    """

    graph: IntegerGraph
    operators: tuple[OperatorReport, ...]
    warnings: tuple[str, ...]
    host_head: HostGraph | None = None
    host_tail: HostGraph | None = None


def import_exported(program: ExportedProgram, *, config: Config, strict: bool = False, allow_host: Sequence[str] = ()) -> Imported:
    """The integer graph of a quantized network.

    Parameters
    ----------
    program
        From ``torch.export``, before any decomposition, with ``quantized_decomposed`` quantize and dequantize operators around each
        layer. The batch may be dynamic, other sizes not.
    config
        The machine: its lanes, multiplier and engines decide how layers are expressed.
    strict
        Refuse what changes the network's numbers by more than rounding (scales of channels that no shift can express).
    allow_host
        Operators (``softmax`` or ``aten.softmax.int``) that may run on the host at the very beginning or end of the network, where the
        machine does not run them.

    :class:`~tercel.sw.importer.report.UnsupportedError` with all operators that cannot run, :class:`~tercel.sw.host.HostError` for a name
    in ``allow_host`` that the host does not run.
    """
    walk = _Walk(program, config, strict=strict, allow_host=allow_host)
    walk.run()
    if walk.edges or walk.rejected:
        faults = {name for name, rejection in walk.rejected.items() if not isinstance(rejection, Follows)}
        raise UnsupportedError([*walk.edges, *(report for node, report in walk.reports() if node in faults)])
    return walk.imported()


def explain(program: ExportedProgram, *, config: Config, allow_host: Sequence[str] = ()) -> tuple[OperatorReport, ...]:
    """What would become of each operator, in order; rejected ones are among them and raise nothing."""
    walk = _Walk(program, config, strict=False, allow_host=allow_host)
    walk.run()
    if not (walk.edges or walk.rejected):
        walk.imported()
    return (*walk.edges, *(report for _, report in walk.reports()))


@dataclass
class _Walk:
    """One pass over a program: the value of every node, and what was rejected: operators, and inputs and outputs (``edges``)."""

    program: ExportedProgram
    config: Config
    strict: bool = field(kw_only=True)
    allow_host: Sequence[str] = field(kw_only=True)

    def __post_init__(self) -> None:
        self.realizer = Realizer(GraphBuilder(self.config, self.strict))
        self.constants = constants(self.program)
        self.values: dict[Node, Expression | Constant] = {node: Constant(value) for node, value in self.constants.items()}
        self.operations: list[Operation] = []
        self.outputs: list[tuple[Node, Stored | HostValue]] = []
        self.rejected: dict[str, Rejection] = {}
        self.edges: list[OperatorReport] = []
        self.moved: dict[str, str] = {}
        self.hosted: dict[str, HostValue] = {}
        self._host = host_names(self.allow_host)

    def run(self) -> None:
        """Give every node a value; errors are collected."""
        for node in user_inputs(self.program):
            shape = logical_shape(node)
            if shape is None:
                self._reject_edge(
                    node.name, "input", Rejection("shape", "static in all but the batch", "dynamic", "export with fixed sizes")
                )
            self.values[node] = FloatInput(node.name, shape or ())
        for operation in operations(self.program):
            if operation.shape is None and not isinstance(operation.node.meta.get("val"), torch.Tensor | tuple | list):
                continue  # sizes and checks of sizes
            self.operations.append(operation)
            self._visit(operation)
        for node in output_nodes(self.program):
            self._output(node)

    def _visit(self, operation: Operation) -> None:
        try:
            value = self._value(operation)
        except Rejection as rejection:
            self._reject(operation, rejection)
            value = self._stand_in(operation)
        self.values[operation.node] = value
        if operation.in_place and isinstance(operation.node.args[0], Node):
            self.values[operation.node.args[0]] = value

    def _reject(self, operation: Operation, rejection: Rejection) -> None:
        self.rejected.setdefault((rejection.operation or operation).node.name, rejection)

    def _reject_edge(self, name: str, edge: str, fault: Rejection) -> None:
        self.edges.append(
            OperatorReport(
                name=name,
                operator=edge,
                verdict="rejected",
                reason=fault.argument,
                limit=fault.limit,
                value=fault.value,
                way_out=fault.way_out,
            )
        )

    def _stand_in(self, operation: Operation) -> Expression:
        """A value after an error, so that what follows is checked too."""
        broken = Broken(operation.name, operation.shape or ())
        if operation.short.startswith("quantize_per_tensor"):
            try:
                return self.realizer.quantize(broken, self._quantizer(operation), operation)
            except Rejection:
                return broken
        return broken

    def _value(self, operation: Operation) -> Expression | Constant:
        short = operation.short
        if operation.operator.startswith("quantized_decomposed."):
            given = self._read(operation.arguments["input"])
            if isinstance(given, HostValue) and not given.head and "_per_tensor" in short:
                return host_quantize(operation, self._quantizer(operation), self._read)
            if short.startswith("quantize_per_"):
                return self._quantize(operation)
            if short.startswith("dequantize_per_"):
                return self._dequantize(operation)
            raise Rejection("operator", "a quantize or dequantize with constant numbers", short, "quantize statically, with calibration")
        read = [self._read(node) for node in operation.nodes()]
        if any(isinstance(value, HostValue) for value in read) or (short in self._host and any(isinstance(v, FloatInput) for v in read)):
            return self._on_host(operation, read)
        if read and all(isinstance(value, Constant) and value.quantized is None for value in read):
            result = folded(operation, {node: self._tensor(node) for node in operation.nodes()})
            if result is not None:
                self.constants[operation.node] = result
                return Constant(result)
        try:
            value = expression_of(operation, self._read)
        except Rejection:
            if short in self._host:
                return self._on_host(operation, read)
            raise
        return self._on_host(operation, read) if isinstance(value, Affine | Slope) and short in self._host else value

    def _read(self, node: Any) -> Expression | Constant:
        if not isinstance(node, Node) or node not in self.values:
            raise Rejection("input", "one tensor", node, "write the operator with tensors alone")
        return self.values[node]

    def _tensor(self, node: Node) -> torch.Tensor:
        value = self.values[node]
        assert isinstance(value, Constant)
        return value.value

    def _quantizer(self, operation: Operation) -> Quantizer:
        """The numbers of a quantize or dequantize operator on an activation."""
        given = operation.arguments
        if "per_channel" in operation.short:
            raise Rejection("quantization of an activation", "one scale for the tensor", "one a channel", "quantize activations per tensor")
        scale, zero_point = (float(np.asarray(self._number(given[key]))) for key in ("scale", "zero_point"))
        low, high, kind = int(given["quant_min"]), int(given["quant_max"]), given["dtype"]
        signed = kind == torch.int8 or low < 0
        smallest, largest = (-128, 127) if signed else (0, 255)
        if low < smallest or high > largest or low >= high:
            raise Rejection(
                "codes of an activation", "of 8 bits (-128..127 or 0..255)", f"{low}..{high}", "quantize activations to int8 or uint8"
            )
        return Quantizer(scale=scale, zero_point=int(zero_point), low=low, high=high, signed=signed)

    def _number(self, value: Any) -> Any:
        return self._tensor(value).numpy() if isinstance(value, Node) else value

    def _quantize(self, operation: Operation) -> Expression | Constant:
        value = self._read(operation.arguments["input"])
        if isinstance(value, Constant):
            result = folded(operation, {node: self._tensor(node) for node in operation.nodes()})
            assert result is not None
            return Constant(result)
        return self.realizer.quantize(value, self._quantizer(operation), operation)

    def _dequantize(self, operation: Operation) -> Expression | Constant:
        given = operation.arguments
        value = self._read(given["input"])
        if isinstance(value, Constant):
            return self._dequantized_constant(operation, value)
        if isinstance(value, Broken):
            return value
        quantizer = self._quantizer(operation)
        if isinstance(value, FloatInput):
            return self.realizer.builder.add_input(value.name, value.shape, quantizer)
        if isinstance(value, Count):
            return self.realizer.quantize(value, quantizer, operation)
        if not isinstance(value, Stored):
            raise (
                Follows(value.name)
                if isinstance(value, Broken)
                else Rejection("input", "quantized", "float", "put a quantize op before it")
            )
        own = self.realizer.builder.quantizers[value.tensor].numbers
        if own != quantizer.numbers:
            names = "scale, zero point and sign"
            raise Rejection(names, f"those of its quantize op {own}", quantizer.numbers, "export the quantized model anew")
        return value

    def _dequantized_constant(self, operation: Operation, value: Constant) -> Constant:
        given = operation.arguments
        scales, zero_points = given.get("scales", given.get("scale")), given.get("zero_points", given.get("zero_point"))
        codes = value.value.numpy().astype(np.int64)
        quantized = QuantizedConstant(
            codes=codes,
            scales=np.atleast_1d(np.asarray(self._number(scales), dtype=np.float64)),
            zero_points=np.atleast_1d(np.asarray(0 if zero_points is None else self._number(zero_points), dtype=np.int64)),
            axis=given.get("axis"),
            low=int(given["quant_min"]),
            high=int(given["quant_max"]),
        )
        result = folded(operation, {node: self._tensor(node) for node in operation.nodes()})
        assert result is not None
        self.constants[operation.node] = result
        return Constant(result, quantized)

    def _on_host(self, operation: Operation, read: Sequence[Expression | Constant]) -> HostValue:
        """A value that the host computes: before the first quantize operator, or after the last layer."""
        if operation.short not in self._host and operation.short not in SHAPES:
            raise Rejection("operator", "in allow_host, because it reads a result of the host", operation.short, "add it, or move it")
        inputs = [value for value in read if not isinstance(value, Constant)]
        head = all(isinstance(value, FloatInput) or (isinstance(value, HostValue) and value.head) for value in inputs)
        for node, value in zip(operation.nodes(), read, strict=True):
            mixed = isinstance(value, FloatInput) or (isinstance(value, HostValue) and value.head)
            if not head and mixed:
                raise Rejection("inputs of a host operator", "all from before or all from after the layers", "both", "split the model")
            if not isinstance(value, Constant | HostValue | FloatInput):
                self.values[node] = self.realizer.plain(value, operation)
        value = host_value(operation, self._read)
        self.hosted[operation.node.name] = value
        return value

    def _output(self, node: Node) -> None:
        value = self.values.get(node)
        operation = next((made for made in self.operations if made.node is node), None)
        if operation is None or value is None or isinstance(value, Constant):
            fault = Rejection("output", "computed from the network's input", "an input or a constant", "return what the layers compute")
            self._reject_edge(str(node), "output", fault)
            return
        if isinstance(value, HostValue) and not value.head:
            self.outputs.append((node, value))
            return
        try:
            self.outputs.append((node, self.realizer.plain(value, operation)))
        except Follows:
            return
        except Rejection as rejection:
            if rejection.operation is None:
                name = operation.name
                rejection = Rejection("output of the network", "quantized", f"the float result of {name}", "quantize the output too")
            self._reject(operation, rejection)

    def reports(self) -> list[tuple[str, OperatorReport]]:
        """Node names with their reports, in order."""
        return [(operation.node.name, self._report(operation)) for operation in self.operations]

    def _report(self, operation: Operation) -> OperatorReport:
        key = operation.node.name
        common = {"name": operation.name, "operator": operation.operator, "source": operation.source}
        rejection = self.rejected.get(key)
        if rejection is not None:
            return OperatorReport(
                verdict="rejected",
                reason=rejection.argument,
                limit=rejection.limit,
                value=rejection.value,
                way_out=rejection.way_out,
                **common,
            )
        value = self.values.get(operation.node)
        if isinstance(value, HostValue):
            return OperatorReport(verdict="host", reason=f"runs on the host, {'before' if value.head else 'after'} the layers", **common)
        placed = self.realizer.placed.get(key)
        if placed is not None and placed not in self.moved:
            return OperatorReport(verdict="placed", reason=f"layer {placed}", **common)
        layer = self.moved.get(placed) if placed is not None else self.realizer.fused.get(key)
        if layer is not None:
            return OperatorReport(verdict="fused", reason=f"in layer {self.moved.get(layer, layer)}", **common)
        if isinstance(value, Constant):
            return OperatorReport(verdict="fused", reason="a constant", **common)
        reason = f"codes of {self.moved.get(value.tensor, value.tensor)}" if isinstance(value, Stored) else "no work"
        return OperatorReport(verdict="fused", reason=reason, **common)

    def imported(self) -> Imported:
        """The result, once nothing is rejected."""
        builder = self.realizer.builder
        values = [value for _, value in self.outputs]
        tail = any(isinstance(value, HostValue) for value in values)
        names = [value.tensor for value in values if isinstance(value, Stored)]
        names = list(dict.fromkeys([*names, *(entry.name for entry in host_graph(values, moved={}).inputs)]))
        graph, self.moved = fold_clamps(builder.graph(names), sorted(self.realizer.clamps))
        graph = remove_unread(graph)
        verify(graph, self.config)
        return Imported(
            graph=graph,
            operators=tuple(report for _, report in self.reports()),
            warnings=tuple(builder.warnings),
            host_head=self._head(graph),
            host_tail=host_graph(values, moved=self.moved, taken=tuple(graph.tensors)) if tail else None,
        )

    def _head(self, graph: IntegerGraph) -> HostGraph | None:
        """The host's part before the layers, if any input of the graph comes from it."""
        if not any(name in self.hosted for name in graph.inputs):
            return None
        inputs = {node.name: self.values[node] for node in user_inputs(self.program)}
        entering = [self.hosted.get(name) or inputs[name] for name in graph.inputs]
        return host_graph([value for value in entering if isinstance(value, HostValue | FloatInput)], moved={})
