"""From planned groups to operations: addresses, fields, and what waits for what."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tercel.hw.config import Config
from tercel.hw.isa import Engine, Mode, Opcode, Space
from tercel.sw.band import Band
from tercel.sw.chunk import Chunk, LinearPart
from tercel.sw.compiler.alone import lower_alone
from tercel.sw.compiler.fit import FitError
from tercel.sw.compiler.flat import flat_band, has_gapless
from tercel.sw.compiler.fold import FoldedSpec, folded_fields, row_pieces
from tercel.sw.compiler.group import Key
from tercel.sw.compiler.group_plan import GroupPlan
from tercel.sw.compiler.layer_code import LayerCode, code_layer
from tercel.sw.compiler.state import Compilation
from tercel.sw.compiler.steps import Step
from tercel.sw.compiler.trace import RingMemory, RowAccesses, Trace
from tercel.sw.compiler.weights import PartStream, linear_memories
from tercel.sw.emitter import Emitter, engine_of
from tercel.sw.graph.integer_graph import LayerNode
from tercel.sw.layer_array import array_geometry, input_fields
from tercel.sw.layer_spec import LayerError
from tercel.sw.memory_image import MemoryImage
from tercel.sw.program import Port
from tercel.sw.tensor_layout import Placement, ceil_div
from tercel.sw.transfer import move_groups, move_tensor

_Shared = list[tuple[int, list[int], list[list[int]]]]
"""Address, loads and lists of users of what all chunks of a layer share."""


@dataclass
class _Place:
    """A buffer at its address and who has used it."""

    low: int
    high: int
    accesses: RowAccesses


@dataclass
class Machine:
    """What is where while operations are emitted."""

    config: Config
    image: MemoryImage
    ports: dict[str, Port]
    numbers: dict[str, int]
    trace: Trace
    views: dict[str, tuple[str, int]]
    memories: dict[Space, RingMemory] = field(default_factory=dict)
    external: dict[str, RowAccesses] = field(default_factory=dict)
    places: tuple[list[_Place], list[_Place]] = field(default_factory=lambda: ([], []))

    def __post_init__(self) -> None:
        self.memories = linear_memories(self.config)

    def occupy(self, space: int, low: int, words: int, *, ring: int) -> RowAccesses:
        """Give words of a scratchpad to a tensor that is about to be written there."""
        before: set[int] = set()
        kept = []
        for place in self.places[space]:
            if place.low < low + words and low < place.high:
                before |= place.accesses.users()
                if place.low >= low and place.high <= low + words:
                    continue
            kept.append(place)
        accesses = RowAccesses(ring=ring, before=frozenset(before))
        kept.append(_Place(low, low + words, accesses))
        self.places[space][:] = kept
        return accesses

    def append_alone(self, emitter: Emitter, *, reads: Iterable[str], writes: str) -> None:
        """Append instructions that use all on-chip memories as they like: after everything so far and before everything to come."""
        before = range(len(self.trace.operations))
        places: list[int] = []
        latest: dict[Engine, int] = {}
        for opcode, values, after in emitter.entries():
            engine = engine_of(opcode, values)
            assert engine is not None
            overwrites = [latest[engine]] if engine in latest else before
            latest[engine] = self.trace.add(opcode, values, after=[places[other] for other in after], overwrites=overwrites)
            places.append(latest[engine])
        # Operations of one engine stay in order here, so the last of each stands for all.
        for space, depth in enumerate((self.config.array_depth, self.config.window_depth)):
            accesses = self.occupy(space, 0, depth, ring=0)
            for index in latest.values():
                accesses.note_read(index, 0, 1, groups=(0, 1))
        for memory in self.memories.values():
            memory.take(memory.depth)[1].extend(latest.values())
        for name in reads:
            self.in_memory(name).note_read(latest[Engine.LOAD], 0, self.ports[name].shape[0], groups=(0, self.ports[name].groups))
        self.in_memory(writes).note_write(latest[Engine.STORE], 0, self.ports[writes].shape[0], groups=(0, self.ports[writes].groups))

    def in_memory(self, tensor: str) -> RowAccesses:
        """Who has written and read a tensor in external memory."""
        return self.external.setdefault(tensor, RowAccesses())


def emit(state: Compilation) -> None:
    """Fill in ``trace``; weights and parameters go to external memory. :class:`FitError` with all layers that cannot be cut to fit."""
    numbers = {node.name: number for number, node in enumerate(state.graph.nodes)}
    machine = Machine(state.config, state.image, state.ports, numbers, state.trace, state.views)
    problems = []
    for plan in state.groups:
        if isinstance(plan, GroupPlan):
            _GroupEmitter(machine, plan).run()
            continue
        state.image.prefix = f"{plan.name}."
        state.trace.node = numbers[plan.name]
        try:
            emitter = lower_alone(plan, state.image, state.ports, state.graph.tensors)
            if len(emitter):
                machine.append_alone(emitter, reads=[name for name in plan.inputs if name in state.ports], writes=plan.output)
        except LayerError as error:
            problems.append(f"{plan.name}: {error}")
    if problems:
        raise FitError(problems)


class _GroupEmitter:
    def __init__(self, machine: Machine, plan: GroupPlan) -> None:
        self.machine, self.plan, self.config = machine, plan, machine.config
        self.trace = machine.trace
        self.accesses: dict[Key, RowAccesses] = {}
        self.slices: dict[Key, tuple[int, int]] = {}
        self.codes: dict[str, LayerCode] = {}
        self.streams: dict[str, list[PartStream]] = {}
        self.common: dict[str, list[PartStream]] = {}

    def run(self) -> None:
        for layer in self.plan.group.layers:
            self._prepare(layer)
        sliced: Step | None = None
        for step in self.plan.steps:
            if step.kind != "layer":
                self._move(step)
            elif self.plan.buffers[step.key].copies > 1:
                sliced = step
            elif sliced is not None:
                self._compute_sliced(sliced, step)
                sliced = None
            else:
                self._compute(step)

    def _prepare(self, layer: LayerNode) -> None:
        self.machine.image.prefix = f"{layer.name}."
        code = code_layer(layer, self.machine.image, out_space=self.plan.group.output_key(layer)[1])
        self.codes[layer.output] = code
        per_chunk = self.plan.chunks[layer.output]
        streams = []
        for part in code.parts:
            fitting = max(1, part.depth // 4 // (part.words * per_chunk)) * per_chunk
            per_load = per_chunk if part.space in (Space.WEIGHT, Space.RECORD) else fitting
            streams.append(self._stream(part, per_load, code.sections * code.groups))
        self.streams[layer.output] = streams
        self.common[layer.output] = [self._stream(part, 1, 1) for part in code.common]

    def _stream(self, part: LinearPart, per_load: int, groups: int) -> PartStream:
        return PartStream(part, self.machine.memories[part.space], self.trace, part.space in self.plan.resident, per_load, groups)

    def _view(self, key: Key, *, row: int, rows: int) -> Placement:
        base = self.slices[key][0] if key in self.slices else self.plan.bases[key]
        return self.plan.buffers[key].view(base, row=row, rows=rows)

    def _first_group(self, key: Key) -> int:
        """The tensor's channel group that lies at the beginning of its place."""
        return self.slices[key][1] if key in self.slices else 0

    def _access(self, key: Key) -> RowAccesses:
        if key not in self.accesses:
            buffer = self.plan.buffers[key]
            ring = buffer.rows if buffer.ring else 0
            self.accesses[key] = self.machine.occupy(key[1], self.plan.bases[key], buffer.words, ring=ring)
        return self.accesses[key]

    def _move(self, step: Step) -> None:
        """LOAD or STORE of whole rows."""
        name = step.key[0]
        load = step.kind == "load"
        owner = self.plan.group.uses[step.key][0].layer if load else self.plan.group.producers[name]
        self.trace.node = self.machine.numbers[owner.name]
        if name in self.machine.views:
            self._store_part(step)
            return
        port = self.machine.ports[name]
        rows, groups = step.end - step.first, (0, port.groups)
        on_chip, outside = self._access(step.key), self.machine.in_memory(name)
        source, target = (outside, on_chip) if load else (on_chip, outside)
        after = source.read(step.first, step.end, groups=groups) | target.write(step.first, step.end, groups=groups)
        index = move_tensor(
            self.trace,
            Opcode.LOAD if load else Opcode.STORE,
            port,
            self._view(step.key, row=step.first, rows=rows),
            rows=rows,
            column=0,
            columns=port.columns,
            after=after,
        )
        source.note_read(index, step.first, step.end, groups=groups)
        target.note_write(index, step.first, step.end, groups=groups)

    def _store_part(self, step: Step) -> None:
        """STOREs of whole rows into some channel groups of a concatenation, row by row."""
        whole, first = self.machine.views[step.key[0]]
        port, outside, on_chip = self.machine.ports[whole], self.machine.in_memory(whole), self._access(step.key)
        count = ceil_div(self.plan.group.tensors[step.key[0]].shape[2], self.config.lanes)
        for row in range(step.first, step.end):
            after = sorted(on_chip.read(row, row + 1, groups=(0, count)))
            view = self._view(step.key, row=row, rows=1)
            indices = move_groups(self.trace, Opcode.STORE, port, view, rows=1, columns=port.columns, groups=(first, count), after=after)
            for index in indices:
                on_chip.note_read(index, row, row + 1, groups=(0, count))
                outside.note_write(index, row, row + 1, groups=(first, first + count))

    def _begin(self, layer: LayerNode) -> _Shared:
        """A strip of a layer begins: weights that do not stay are loaded again, and what all its chunks share."""
        self.trace.node = self.machine.numbers[layer.name]
        for stream in (*self.streams[layer.output], *self.common[layer.output]):
            stream.begin()
        return [stream.bring(0, 1) for stream in self.common[layer.output]]

    def _compute(self, step: Step) -> None:
        """A strip of a layer, chunk by chunk of its outputs."""
        layer = self.plan.group.producers[step.key[0]]
        shared = self._begin(layer)
        code = self.codes[layer.output]
        settled = step.first > 0 and all(stream.resident for stream in self.streams[layer.output])
        per_chunk = code.groups if settled and not self.plan.shape.channels else self.plan.chunks[layer.output]
        for section in range(code.sections):
            for first in range(0, code.groups, per_chunk):
                chunk = Chunk(0, section, first, min(per_chunk, code.groups - first))
                for piece in row_pieces(code.spec, step.first, step.end):
                    self._compute_chunk(layer, replace(step, first=piece[0], end=piece[1]), chunk, shared)

    def _compute_sliced(self, made: Step, read: Step) -> None:
        """The whole maps of two layers, slice by slice of the channels that the first hands to the second."""
        key, buffer = made.key, self.plan.buffers[made.key]
        words = buffer.words // buffer.copies
        layers = [self.plan.group.producers[step.key[0]] for step in (made, read)]
        shared = [self._begin(layer) for layer in layers]
        writer, reader = (self.codes[layer.output] for layer in layers)
        for number, low in enumerate(range(0, reader.groups, buffer.pixel)):
            base = self.plan.bases[key] + number % buffer.copies * words
            self.slices[key] = (base, low)
            self.accesses[key] = self.machine.occupy(key[1], base, words, ring=0)
            high = min(low + buffer.pixel, reader.groups)
            self._compute_groups(made, layers[0], shared[0], low // writer.group_words, ceil_div(high, writer.group_words))
            self._compute_groups(read, layers[1], shared[1], low, high)

    def _compute_groups(self, step: Step, layer: LayerNode, shared: _Shared, low: int, high: int) -> None:
        per_chunk = self.plan.chunks[layer.output]
        for first in range(low, high, per_chunk):
            chunk = Chunk(0, 0, first, min(per_chunk, high - first))
            for piece in row_pieces(self.codes[layer.output].spec, step.first, step.end):
                self._compute_chunk(layer, replace(step, first=piece[0], end=piece[1]), chunk, shared)

    def _compute_chunk(self, layer: LayerNode, step: Step, chunk: Chunk, shared: _Shared) -> None:
        self.trace.node = self.machine.numbers[layer.name]
        code = self.codes[layer.output]
        spec, group = code.spec, self.plan.group
        inputs = group.input_keys[layer.output]
        rows = step.end - step.first
        band = Band(
            row=step.first,
            rows=rows,
            column=0,
            columns=spec.output[1],
            input_row=0,
            input_rows=spec.input[0],
            input_column=0,
            input_columns=spec.input[1],
        )
        touched = [inputs, step.key] if layer.residual is None else [inputs, step.key, (layer.residual, 0)]
        if code.on_array and has_gapless(spec, [self.plan.buffers[key] for key in touched], rows=rows, config=self.config):
            band = flat_band(band)
        top = step.first * spec.stride - spec.padding[0]
        visited = (rows - 1) * spec.stride + (spec.kernel[0] - 1) * spec.dilation[0] + 1
        source = self._view(inputs, row=top, rows=visited)
        values = dict(code.numbers)
        if code.on_array:
            values |= array_geometry(spec, self.config, band, source, chunk)
            if isinstance(spec, FoldedSpec):
                values |= folded_fields(spec, band, source)
            words = values["groups"] + 1
            reads = (chunk.section * words, (chunk.section + 1) * words)
        elif code.numbers["mode"] == Mode.MATRIX_VECTOR:
            values |= input_fields(spec, band, source, group=0) | {"groups": chunk.count - 1}
            reads = (0, self.plan.buffers[inputs].pixel)
        else:
            first_group = chunk.first - self._first_group(inputs)
            values |= input_fields(spec, band, source, group=first_group) | {"groups": chunk.count - 1}
            reads = (chunk.first, chunk.first + chunk.count)
        word = chunk.section * code.section_words + chunk.first * code.group_words
        writes = (word, word + chunk.count * code.group_words)
        target_group = word - self._first_group(step.key)
        values |= self._view(step.key, row=step.first, rows=rows).fields("out", row=step.first, column=0, step=1, group=target_group)
        rows_read = (max(0, top), min(spec.input[0], top + visited))
        after = self._access(inputs).read(*rows_read, groups=reads)
        if spec.residual:
            assert layer.residual is not None
            residual: Key = (layer.residual, 0)
            values |= self._view(residual, row=step.first, rows=rows).fields("res", row=step.first, column=0, step=1, group=word)
            after |= self._access(residual).read(step.first, step.end, groups=writes)
        users: list[list[int]] = []
        streams = self.streams[layer.output]
        found = [stream.bring(chunk.section * code.groups + chunk.first, chunk.count) for stream in streams]
        for (address, loads, noted), stream in zip((*found, *shared), (*streams, *self.common[layer.output]), strict=True):
            values[_ADDRESS_FIELDS[stream.part.space]] = address
            after.update(loads)
            users += noted
        target = self._access(step.key)
        overwrites = target.write(step.first, step.end, groups=writes)
        index = self.trace.add(Opcode.ARRAY if code.on_array else Opcode.DEPTHWISE, values, after=after, overwrites=overwrites)
        self._access(inputs).note_read(index, *rows_read, groups=reads)
        if spec.residual:
            self._access(residual).note_read(index, step.first, step.end, groups=writes)
        target.note_write(index, step.first, step.end, groups=writes)
        for noted_users in users:
            noted_users.append(index)


_ADDRESS_FIELDS = {
    Space.WEIGHT: "weight_addr",
    Space.PARAMETER: "parameter_addr",
    Space.THRESHOLD: "threshold_addr",
    Space.RECORD: "record_addr",
    Space.DEPTHWISE_PARAMETER: "parameter_addr",
}
