"""Static checks: what the dispatcher refuses before an instruction reaches its engine."""

from collections.abc import Mapping

from tercel.hw.config import Config, exponents, unit_exponent
from tercel.hw.isa import FIELDS, RESERVED_LOW, Engine, Fault, Opcode, Space

ENGINE_OF = {
    Opcode.LOAD: Engine.LOAD,
    Opcode.STORE: Engine.STORE,
    Opcode.ARRAY: Engine.ARRAY,
    Opcode.DEPTHWISE: Engine.DEPTHWISE,
}
_OPCODES = {int(opcode) for opcode in Opcode}
_BANKS = {opcode: [field.name for field in table if field.name.endswith("_bank")] for opcode, table in FIELDS.items()}


def check_opcode(word: int, config: Config) -> Fault:
    """ILLEGAL_OPCODE, ILLEGAL_FIELD (a bit past the last field) or NONE: what can be said before the fields are decoded."""
    number = word & 0xF
    if number not in _OPCODES or (number == Opcode.DEPTHWISE and not config.depthwise):
        return Fault.ILLEGAL_OPCODE
    return Fault.ILLEGAL_FIELD if word >> RESERVED_LOW[Opcode(number)] else Fault.NONE


def check_fields(opcode: Opcode, values: Mapping[str, int], config: Config) -> Fault:
    """ILLEGAL_FIELD or NONE for a decoded instruction that passed :func:`check_opcode`."""
    if any(values[name] >= config.pixels for name in _BANKS[opcode]) or _header(opcode, values, config):
        return Fault.ILLEGAL_FIELD
    match opcode:
        case Opcode.LOAD | Opcode.STORE:
            illegal = _transfer(opcode, values, config)
        case Opcode.ARRAY:
            illegal = _requantize(values, config) or _array(values, config)
        case Opcode.DEPTHWISE:
            illegal = _requantize(values, config) or max(values["record_addr"], values["parameter_addr"]) >= config.record_depth
        case _:
            illegal = False
    return Fault.ILLEGAL_FIELD if illegal else Fault.NONE


def _header(opcode: Opcode, values: Mapping[str, int], config: Config) -> bool:
    if opcode is Opcode.HALT:
        return bool(values["wait"] or values["post"] or values["fence"])
    if opcode is Opcode.SYNC and values["engine"] == Engine.DEPTHWISE and not config.depthwise:
        return True
    own = values["engine"] if opcode is Opcode.SYNC else ENGINE_OF[opcode]
    return bool((values["wait"] | values["post"]) >> own & 1)


def _transfer(opcode: Opcode, values: Mapping[str, int], config: Config) -> bool:
    depths = {
        Space.ARRAY: config.array_depth,
        Space.WINDOW: config.window_depth,
        Space.WEIGHT: config.weight_depth,
        Space.PARAMETER: config.parameter_depth,
        Space.RECORD: config.record_depth,
        Space.DEPTHWISE_PARAMETER: config.record_depth,
        Space.THRESHOLD: config.threshold_depth,
    }
    space = values["space"]
    if space not in depths or depths[Space(space)] == 0:
        return True
    linear = space > Space.WINDOW
    return (
        (opcode is Opcode.STORE and linear)
        or bool(values["memory_addr"] % config.memory_width or values["memory_row"] % config.memory_width)
        or (linear and values["addr_linear"] >= depths[Space(space)])
    )


def _requantize(values: Mapping[str, int], config: Config) -> bool:
    """The checks that ARRAY and DEPTHWISE share."""
    return (
        not unit_exponent(config.multiplier_bits) <= values["shift"] < exponents(config.multiplier_bits).stop
        or values["multiplier"] >= 1 << config.multiplier_bits
        or values["dilation_x"] == 0
        or values["dilation_y"] == 0
        or values["lo"] > values["hi"]
    )


def _array(values: Mapping[str, int], config: Config) -> bool:
    thresholds = values["thresholds"] > 0
    return (
        (values["out_space"] == 1 and not config.depthwise)
        or values["last_lanes"] >= config.lanes
        or values["digits"] >= config.max_digits
        or bool(values["narrow"] and (thresholds or values["residual"]))
        or values["weight_addr"] >= config.weight_depth
        or values["parameter_addr"] >= config.parameter_depth
        or (thresholds and values["threshold_addr"] >= config.threshold_depth)
    )
