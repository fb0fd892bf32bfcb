"""The list of passes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from tercel.hw.config import Config
from tercel.hw.isa import Opcode
from tercel.sw.compiler.fit import FitError
from tercel.sw.compiler.emit import Machine, emit_group
from tercel.sw.compiler.finish import give_tokens, ranges
from tercel.sw.compiler.fold import fold_inputs
from tercel.sw.compiler.group_plan import GroupPlan
from tercel.sw.compiler.legalize import legalize
from tercel.sw.compiler.schedule import schedule
from tercel.sw.compiler.segment import segment
from tercel.sw.emitter import Emitter
from tercel.sw.graph.integer_graph import ConcatNode, IntegerGraph, LayerNode
from tercel.sw.layer import lower_to_ports
from tercel.sw.layer_spec import LayerError, LayerTensors
from tercel.sw.lowered_layer import LayerPorts, LoweredLayer
from tercel.sw.memory_image import MemoryImage
from tercel.sw.program import LayerMark, Port, Program
from tercel.sw.tensor_layout import Placement
from tercel.sw.transfer import move_groups, move_tensor

_EMPTY = np.zeros(0, dtype=np.int64)


def run_passes(
    graph: IntegerGraph,
    config: Config,
    *,
    keep: Sequence[str],
    memory_latency: int,
    dump: Path | None,
    progress: Callable[[str], None] | None,
) -> Program:
    """Every layer a group of its own."""
    legal, folds = fold_inputs(legalize(graph, config), config)
    image = MemoryImage(config)
    wanted = dict.fromkeys(graph.outputs)
    for node in graph.nodes:
        if any(fnmatchcase(node.name, pattern) for pattern in keep):
            wanted[node.output] = None
    groups = segment(legal, config, wanted)
    ports: dict[str, Port] = {}
    for plan in groups:
        for name in plan.group.stored if isinstance(plan, GroupPlan) else [plan.output]:
            tensor = legal.tensors[name]
            ports[name] = image.add_tensor(tensor.name, tensor.shape, signed=tensor.signed)
    for name in legal.inputs:
        tensor = graph.tensors[name]
        ports[name] = image.add_input(name, np.zeros(tensor.shape, dtype=np.int64), signed=tensor.signed, fold=folds.get(name, 1))
    for name in wanted:
        image.share_output(ports[name])
    machine = Machine(config, image, ports, {node.name: number for number, node in enumerate(legal.nodes)})
    problems = []
    for plan in groups:
        if isinstance(plan, GroupPlan):
            emit_group(machine, plan)
            continue
        image.prefix = f"{plan.name}."
        try:
            lowered = _lower(plan, image, ports)
        except LayerError as error:
            problems.append(f"{plan.name}: {error}")
            continue
        machine.trace.node = machine.numbers[plan.name]
        machine.append_alone(lowered.emitter, reads=plan.inputs, writes=plan.output)
    if problems:
        raise FitError(problems)
    trace = machine.trace
    order = schedule(trace, config, memory_latency=memory_latency)
    instructions = give_tokens(trace, order)
    owned: dict[int, list[int]] = {}
    for place, index in enumerate(order):
        owned.setdefault(trace.operations[index].node, []).append(place)
    group_of = {}
    for number, plan in enumerate(groups):
        for node in plan.group.layers if isinstance(plan, GroupPlan) else [plan]:
            group_of[node.name] = number
    marks = []
    for number, node in enumerate(graph.nodes):
        layer = isinstance(node, LayerNode)
        marks.append(
            LayerMark(
                name=node.name,
                kind=node.spec.kind if layer else "concat",
                engine=("array" if node.spec.on_array(config) else "depthwise") if layer else "load",
                instructions=ranges(owned.get(number, [])),
                macs=node.spec.macs if layer else 0,
                digits=node.spec.digits if layer and node.spec.on_array(config) else 1,
                group=group_of[node.name],
            )
        )
    return replace(image.program(instructions, tuple(marks)), graph=graph)


def _lower(node: LayerNode | ConcatNode, image: MemoryImage, ports: dict[str, Port]) -> LoweredLayer:
    if isinstance(node, ConcatNode):
        return _lower_concat(node, image.config, ports)
    tensors = LayerTensors(
        input=_EMPTY,
        weights=node.weights,
        bias=node.bias,
        shift=node.shift,
        multiplier=node.multipliers if node.multipliers.size else np.full(len(node.bias), node.spec.multiplier),
        thresholds=node.thresholds,
        residual=_EMPTY,
    )
    residual = None if node.residual is None else ports[node.residual]
    return lower_to_ports(node.spec, tensors, image, LayerPorts(input=ports[node.input], output=ports[node.output], residual=residual))


def _lower_concat(node: ConcatNode, config: Config, ports: dict[str, Port]) -> LoweredLayer:
    """Every row of every part through the array scratchpad."""
    emitter = Emitter()
    target = ports[node.output]
    first = 0
    stored: list[int] = []
    for name in node.inputs:
        source = ports[name]
        width = source.shape[1]
        words = Placement.words_needed(banks=config.pixels, bank=0, pitch=width, pixel=source.groups, rows=1)
        if words > config.array_depth:
            raise LayerError(f"{name} must need at most array_depth={config.array_depth} words a bank for one row, not {words}")
        for row in range(source.shape[0]):
            place = Placement(banks=config.pixels, space=0, base=0, pitch=width, pixel=source.groups, rows=1, first_row=row)
            loaded = move_tensor(emitter, Opcode.LOAD, source, place, rows=1, column=0, columns=width, after=stored)
            stored = move_groups(emitter, Opcode.STORE, target, place, rows=1, columns=width, groups=(first, source.groups), after=[loaded])
        first += source.groups
    return LoweredLayer(emitter=emitter, kind="concat", engine="load", macs=0, digits=1)
