"""The static checks that every instruction passes before it is dispatched."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from tercel.hw.config import Config, exponents, unit_exponent
from tercel.hw.isa import INSTRUCTION_BITS, LAYOUTS, RESERVED_LOW, Engine, Fault, Opcode, Space
from tercel.hw.memory.space import depth, spaces
from tercel.hw.table import table

OWN_ENGINE = {
    Opcode.LOAD: Engine.LOAD,
    Opcode.STORE: Engine.STORE,
    Opcode.ARRAY: Engine.ARRAY,
    Opcode.DEPTHWISE: Engine.DEPTHWISE,
}
"""The engine that runs an opcode. HALT belongs to none, SYNC to the one it names."""

_PIECE_BITS = 16
"""Bits that may be set nowhere, looked at in one piece."""


def fields_bits(config: Config) -> int:
    """Bits of the beats that have fields of any opcode."""
    beat_bits = 8 * config.memory_width
    return -(-max(RESERVED_LOW.values()) // beat_bits) * beat_bits


class Checks(Component):
    """Finds illegal opcodes and fields, in the order and wording of the static checks in the README of ``hw``.

    Latency 2 cycles: ``code`` is the verdict on the ``instruction`` of two cycles before. Any instruction may follow any other in
    every cycle.

    Members
    -------
    instruction
        The instruction as fetched; of its last bits, which no opcode has a field in, ``nonzero`` is enough.
    nonzero
        For each beat of ``memory_width`` bytes whether any of its bits is set.
    code
        ``Fault.NONE``, ``Fault.ILLEGAL_OPCODE`` or ``Fault.ILLEGAL_FIELD``.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._beat_bits = 8 * config.memory_width
        super().__init__(
            {"instruction": In(fields_bits(config)), "nonzero": In(INSTRUCTION_BITS // self._beat_bits), "code": Out(4)}
        )

    def elaborate(self, platform) -> Module:
        """Stage 1: the faults of every opcode side by side, a register for a few bits each; stage 2: those of the actual one."""
        m = Module()
        layouts = {name: layout for name, layout in LAYOUTS.items() if name != Opcode.DEPTHWISE or self._config.depthwise}
        actual = []
        illegal = []
        for name, layout in layouts.items():
            fields = data.View(layout, self.instruction[: layout.size])
            is_actual = Signal(name=f"is_{name.name.lower()}", reset_less=True)
            m.d.sync += is_actual.eq(self.instruction[:4] == name)
            actual.append(is_actual)
            for number, condition in enumerate([*self._past_last_field(name), *self._conditions(name, fields)]):
                failed = Signal(name=f"illegal_{name.name.lower()}_{number}", reset_less=True)
                m.d.sync += failed.eq(condition.bool())
                illegal.append(is_actual & failed)

        code = Signal.like(self.code, reset_less=True)
        m.d.comb += self.code.eq(code)
        # Only an opcode that exists has fields.
        m.d.sync += code.eq(Mux(Cat(illegal).any(), Fault.ILLEGAL_FIELD, 0) | Mux(Cat(actual).any(), 0, Fault.ILLEGAL_OPCODE))
        return m

    def _past_last_field(self, opcode: Opcode) -> list[Value]:
        """What is set if a bit after the last field is, in the beat of that field or in a later one; in pieces.

        They are cut from the end, so that opcodes whose fields end in the same beat have most of them in common.
        """
        size = RESERVED_LOW[opcode]
        beat, below = divmod(size, self._beat_bits)
        past = Cat(self.instruction[size : size - below + self._beat_bits], self.nonzero[beat + 1 :])
        return [past[max(0, high - _PIECE_BITS) : high] for high in range(len(past), 0, -_PIECE_BITS)]

    def _conditions(self, opcode: Opcode, fields: data.View) -> list[Value]:
        """Each entry is not 0 if a check fails, and of few bits."""
        if opcode == Opcode.HALT:
            return [Cat(fields.wait, fields.post, fields.fence)]
        if opcode == Opcode.SYNC:
            own = (fields.wait | fields.post).bit_select(fields.engine, 1)
            return [own] if self._config.depthwise else [own, fields.engine == Engine.DEPTHWISE]

        engine = OWN_ENGINE[opcode]
        failures = [Cat(fields.wait[engine], fields.post[engine])]
        if self._config.pixels < 16:
            failures.append(Cat(table(fields[name], lambda bank: bank >= self._config.pixels) for name in _bank_fields(opcode)))
        if opcode in (Opcode.LOAD, Opcode.STORE):
            return failures + self._memory_conditions(opcode, fields)
        bits = self._config.multiplier_bits
        failures += [
            table(fields.shift, lambda shift: not unit_exponent(bits) <= shift < exponents(bits).stop),
            _at_or_above(fields.multiplier, 1 << bits),
            Cat(fields.dilation_x == 0, fields.dilation_y == 0),
            fields.lo > fields.hi,
        ]
        if opcode == Opcode.DEPTHWISE:
            record_depth = self._config.record_depth
            return [*failures, Cat(_at_or_above(fields.record_addr, record_depth), _at_or_above(fields.parameter_addr, record_depth))]
        return failures + self._array_conditions(fields)

    def _memory_conditions(self, opcode: Opcode, fields: data.View) -> list[Value]:
        alignment_bits = exact_log2(self._config.memory_width)
        failures = [(fields.memory_addr | fields.memory_row)[:alignment_bits]]
        if opcode == Opcode.STORE:
            return [*failures, fields.space[1:] if self._config.depthwise else fields.space]
        present = spaces(self._config)
        failures.append(table(fields.space, lambda number: number not in present))
        for space in present:
            if space not in (Space.ARRAY, Space.WINDOW):
                failures.append((fields.space == space) & _at_or_above(fields.addr_linear, depth(self._config, space=space)).any())
        return failures

    def _array_conditions(self, fields: data.View) -> list[Value]:
        config = self._config
        failures = [
            Cat(_at_or_above(fields.last_lanes, config.lanes), _at_or_above(fields.digits, config.max_digits)),
            fields.narrow & (fields.thresholds.any() | fields.residual),
            Cat(_at_or_above(fields.weight_addr, config.weight_depth), _at_or_above(fields.parameter_addr, config.parameter_depth)),
        ]
        if not config.depthwise:
            failures.append(fields.out_space)
        if config.threshold_depth:
            failures.append(fields.thresholds.any() & _at_or_above(fields.threshold_addr, config.threshold_depth).any())
        else:
            failures.append(fields.thresholds)
        return failures


def _bank_fields(opcode: Opcode) -> list[str]:
    return [name for name, _ in LAYOUTS[opcode] if name.endswith("_bank")]


def _at_or_above(value: Value, power_of_two: int) -> Value:
    """The bits of ``value`` of which one is set if it reaches a power of two."""
    return value[power_of_two.bit_length() - 1 :]
