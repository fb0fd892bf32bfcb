"""The list of passes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from tercel.hw.config import Config
from tercel.hw.isa import Engine, Opcode
from tercel.sw.compiler.fit import FitError
from tercel.sw.compiler.legalize import legalize
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
    legal = legalize(graph, config)
    image = MemoryImage(config)
    wanted = dict.fromkeys(graph.outputs)
    for node in graph.nodes:
        if any(fnmatchcase(node.name, pattern) for pattern in keep):
            wanted[node.output] = None
    ports: dict[str, Port] = {}
    for node in legal.nodes:
        tensor = legal.tensors[node.output]
        ports[node.output] = image.add_tensor(tensor.name, tensor.shape, signed=tensor.signed)
    for name in legal.inputs:
        tensor = legal.tensors[name]
        ports[name] = image.add_input(name, np.zeros(tensor.shape, dtype=np.int64), signed=tensor.signed)
    for name in wanted:
        image.share_output(ports[name])
    emitter = Emitter()
    marks = []
    problems = []
    for number, node in enumerate(legal.nodes):
        image.prefix = f"{node.name}."
        try:
            lowered = _lower(node, image, ports)
        except LayerError as error:
            problems.append(f"{node.name}: {error}")
            continue
        marks.append(replace(_append(emitter, lowered), name=node.name, group=number))
    if problems:
        raise FitError(problems)
    return replace(image.program(emitter.finish(), tuple(marks)), graph=graph)


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
    return lower_to_ports(
        node.spec, tensors, image, LayerPorts(input=ports[node.input], output=ports[node.output], residual=residual)
    )


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
            stored = move_groups(
                emitter, Opcode.STORE, target, place, rows=1, columns=width, groups=(first, source.groups), after=[loaded]
            )
        first += source.groups
    return LoweredLayer(emitter=emitter, kind="concat", engine="load", macs=0, digits=1)


def _append(emitter: Emitter, layer: LoweredLayer) -> LayerMark:
    """Each engine's first instruction of a layer waits for everything of the layers before."""
    last = {emitter.engine(index): index for index in range(len(emitter))}
    mark = layer.mark(first=len(emitter))
    places: dict[int, int] = {}
    begun: set[Engine] = set()
    for index in range(len(layer.emitter)):
        engine = layer.emitter.engine(index)
        emitter.splice(layer.emitter, places, after=() if engine in begun else last.values())
        begun.add(engine)
    return mark
